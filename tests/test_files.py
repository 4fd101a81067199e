"""Functions by name, and files that appear whole or not at all."""

from pathlib import Path

import pytest

from lamdagent.errors import UserError
from lamdagent.files import write_atomic
from lamdagent.functions import load_function


def test_a_function_is_found_by_its_name() -> None:
    assert load_function("lamdagent.functions:load_function") is load_function
    assert load_function("pathlib:Path.home") == Path.home


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("lamdagent.functions", "the form is module:function"),
        ("", "the form is module:function"),
        ("no_such_module:f", "No module named 'no_such_module'"),
        ("lamdagent.functions:nothing", "has no attribute 'nothing'"),
        ("broken_when_imported:f", "ZeroDivisionError: division by zero"),
    ],
)
def test_what_is_no_function_is_told_with_its_key(
    path: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_when_imported.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError) as caught:
        load_function(path, "actions.mine.function")
    assert str(caught.value).startswith(f"actions.mine.function: {path!r} is no module:function on the Python path (")
    assert reason in str(caught.value)


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "note.txt"
    write_atomic(path, "ä")
    write_atomic(path, "second")
    assert path.read_text(encoding="utf-8") == "second"
    assert [file.name for file in path.parent.iterdir()] == ["note.txt"]


def test_what_cannot_be_written_leaves_the_old_content_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "note.txt"
    write_atomic(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomic(path, "\ud800")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
