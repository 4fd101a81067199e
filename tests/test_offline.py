"""Wheels are fetched once, checked, extracted, and never again."""

import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from lamdagent.errors import UserError
from lamdagent.files import build_once, cache_folder
from lamdagent.objects.wheels import wheel_files
from tests import forkserver

MEMBERS = ("tinydata/a/one.txt", "tinydata/two.txt")


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel that only pip knows about, an index that does not exist, and an empty cache."""
    links = tmp_path / "links"
    links.mkdir()
    path = links / "tinydata-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name in (*MEMBERS, "tinydata/unwanted.txt"):
            archive.writestr(name, f"this is {name}")
        archive.writestr("tinydata-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tinydata\nVersion: 1.0\n")
        archive.writestr("tinydata-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("tinydata-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("LAMDAGENT_CACHE", str(tmp_path / "cache"))
    return path


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_members_are_extracted_and_later_calls_need_no_source(wheel: Path) -> None:
    sha256 = digest(wheel)
    folder = wheel_files("tinydata", "1.0", sha256, MEMBERS)
    assert sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()) == sorted(MEMBERS)
    assert (folder / MEMBERS[0]).read_text() == f"this is {MEMBERS[0]}"
    wheel.unlink()
    assert wheel_files("tinydata", "1.0", sha256, MEMBERS) == folder


def test_another_file_under_the_same_name_is_refused(wheel: Path) -> None:
    with pytest.raises(UserError, match="not the file that was released"):
        wheel_files("tinydata", "1.0", "0" * 64, MEMBERS)
    assert not list((cache_folder() / "wheels").glob("tinydata-1.0-????????????"))
    assert wheel_files("tinydata", "1.0", digest(wheel), MEMBERS).is_dir(), "a failure leaves nothing in the way"


def test_what_pip_says_reaches_the_user(wheel: Path) -> None:
    with pytest.raises(UserError, match=r"pip could not fetch tinydata==9\.9.*No matching distribution.*try again"):
        wheel_files("tinydata", "9.9", "0" * 64, MEMBERS)


def test_a_member_that_is_not_there_is_named(wheel: Path) -> None:
    with pytest.raises(UserError, match="has no tinydata/three.txt"):
        wheel_files("tinydata", "1.0", digest(wheel), ("tinydata/three.txt",))


def test_two_processes_at_once_get_the_same_folder(wheel: Path) -> None:
    code = (
        f"from lamdagent.objects.wheels import *; print(wheel_files('tinydata', '1.0', '{digest(wheel)}', {MEMBERS}))"
    )
    command = [sys.executable, "-c", code]
    both = [forkserver.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) for _ in range(2)]
    printed = {process.communicate(timeout=120)[0].strip() for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert len(printed) == 1
    assert (Path(printed.pop()) / MEMBERS[1]).is_file()


def test_a_build_that_was_killed_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "made.partial").mkdir()
    (tmp_path / "made.partial" / "half").touch()
    folder = build_once(tmp_path / "made", lambda partial: (partial / "whole").touch())
    assert [path.name for path in folder.iterdir()] == ["whole"]
    assert build_once(folder, lambda partial: pytest.fail("built twice")) == folder


def test_a_cache_that_cannot_be_made_is_the_users_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LAMDAGENT_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match="LAMDAGENT_CACHE"):
        cache_folder()
