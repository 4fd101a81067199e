"""Items of tasks for a driver that stays light: read in another process, kept, and never stale."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lamdagent.errors import UserError
from lamdagent.evaluation.items import items
from lamdagent.evaluation.task import DataUnavailable, Item, Task
from lamdagent.guards import item_cache
from lamdagent.guards.item_cache import items_of
from tests.searches import ROOT
from tests.test_package import HEAVY

REPEAT = Task("repeat", "pico_repeat", "", folder="builtin", splits={"search": "search", "test": "test"})
OWN = """
task: own
custom_dataset: !function own.rows
test_split: test
output_type: multiple_choice
doc_to_text: question
doc_to_choice: ["a", "b"]
doc_to_target: 0
"""
ROWS = """
import os, signal, sys

def rows(**_):
    from datasets import Dataset

    asked = "what?"
    return {"test": Dataset.from_list([{"question": asked}])}
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty one."""
    monkeypatch.setenv("LAMDAGENT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def kept(cache: Path) -> list[Path]:
    return sorted((cache / "items").glob("*")) if (cache / "items").exists() else []


@pytest.fixture
def no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has to read fails."""

    def refuse(**_: Any) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(item_cache, "LocalExecutor", refuse)


def own(folder: Path, code: str = ROWS) -> Task:
    (folder / "own.yaml").write_text(OWN)
    (folder / "own.py").write_text(code)
    return Task("mine", "own", "", folder=str(folder), splits={"search": "test"})


def test_what_another_process_reads_and_what_is_kept_are_the_items(cache: Path, request: Any) -> None:
    letters = Task("low", "letters_low", "", folder="builtin", splits={"search": "search"})
    every = [REPEAT, letters]
    wanted = [items(task) for task in every]
    assert items_of(every) == wanted and len(kept(cache)) == 2
    request.getfixturevalue("no_process")
    assert items_of(every) == wanted
    assert items_of([dataclasses.replace(REPEAT, name="other")]) == [
        [dataclasses.replace(item, task="other") for item in wanted[0]]
    ]


@pytest.mark.parametrize("broken", ["", "{", "[]", "{}", '{"items": [["search", "0"]]}', '{"items": 3}'])
def test_a_broken_file_is_read_anew(cache: Path, broken: str) -> None:
    [wanted] = items_of([REPEAT], inline=True)
    [file] = kept(cache)
    whole = file.read_text()
    file.write_text(broken)
    assert items_of([REPEAT], inline=True) == [wanted] and file.read_text() == whole


def test_another_question_split_code_or_library_has_items_of_its_own(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items_of([REPEAT], inline=True)
    asked = dataclasses.replace(REPEAT, question="{{ prompt | upper }}")
    [upper] = items_of([asked], inline=True)
    assert isinstance(upper, list) and upper[0].question == "REPEAT THE WORD WINDOW."
    [half] = items_of([dataclasses.replace(REPEAT, splits={"search": "test"})], inline=True)
    assert isinstance(half, list) and half[0].question == "Repeat the word planet."
    assert len(kept(cache)) == 3
    copy = tmp_path / "package" / "lamdagent" / "evaluation"  # its code is looked at where it lies
    shutil.copytree(ROOT / "lamdagent", copy.parent)
    monkeypatch.setattr(item_cache, "__file__", str(copy / "reading.py"))
    items_of([REPEAT], inline=True)
    assert len(kept(cache)) == 3
    (copy.parent / "letters.py").write_text("ANOTHER = 1\n")
    items_of([REPEAT], inline=True)
    assert len(kept(cache)) == 4
    version = item_cache.metadata.version
    monkeypatch.setattr(
        item_cache.metadata, "version", lambda name: version(name) + ("1" if name == "datasets" else "")
    )
    items_of([REPEAT], inline=True)
    assert len(kept(cache)) == 5


def test_what_may_change_underneath_is_read_at_every_start(cache: Path, tmp_path: Path) -> None:
    task = own(tmp_path)
    assert items_of([task]) == [[Item("mine", "search", "0", "what?")]]
    own(tmp_path, ROWS.replace("what?", "why?"))
    assert items_of([task]) == [[Item("mine", "search", "0", "why?")]]
    redirected = dataclasses.replace(REPEAT, options={"dataset_kwargs": {"source": str(tmp_path)}})
    items_of([redirected], inline=True)
    assert kept(cache) == []


def test_faults_cross_as_they_are_and_the_next_task_is_read(cache: Path, tmp_path: Path) -> None:
    astray = Task("astray", "astray", "", folder=str(tmp_path), splits={"search": "test"})
    for name in ("raising", "dying"):  # side by side: a task is looked for in all of its folder
        (tmp_path / name).mkdir()
    raising = own(tmp_path / "raising", ROWS.replace("asked =", "raise OSError('the disk is gone\\nhere') #"))
    dying = own(tmp_path / "dying", ROWS.replace("asked =", "os.kill(os.getpid(), signal.SIGKILL) #"))
    wrong = dataclasses.replace(REPEAT, question="{{ nothing }}")
    found = items_of([astray, raising, dying, wrong, REPEAT])
    assert [type(one) for one in found] == [UserError, DataUnavailable, DataUnavailable, UserError, list]
    assert str(found[0]).startswith("Task astray: there is no lm-eval task 'astray'")
    assert str(found[1]) == "the disk is gone" and "was ended by SIGKILL" in str(found[2])
    with pytest.raises(UserError) as told:
        items(wrong)
    assert str(found[3]) == str(told.value)


@pytest.mark.slow
def test_the_driver_of_a_plan_loads_nothing_heavy(tmp_path: Path) -> None:
    """Neither when it reads the items, in another process, nor when they are kept; inline, all is in one process."""
    code = (
        "import atexit, json, sys\n"
        f"heavy = {(*HEAVY, 'mlflow', 'pandas', 'litellm', 'sklearn')!r}\n"
        "atexit.register(lambda: print('HEAVY', json.dumps([name for name in heavy if name in sys.modules])))\n"
        "from lamdagent.__main__ import main\n"
        "if __name__ == '__main__': main()\n"
    )
    (tmp_path / "start.py").write_text(code)

    def heavy(*words: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "start.py", "+experiment=smoke", "dry_run=true", *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "LAMDAGENT_CACHE": str(tmp_path / "cache")},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("lamdagent: checking models, data, actions and tasks")
        return list(json.loads(done.stdout.rsplit("HEAVY ", 1)[1]))

    assert heavy() == [] and len(kept(tmp_path / "cache")) == 2
    assert heavy() == []
    shutil.rmtree(tmp_path / "cache" / "items")
    assert "lm_eval" in heavy("execution=inline")
