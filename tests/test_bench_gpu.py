"""scripts/bench/bench_gpu.py as a user runs it, on a CPU: with the smallest sizes; what it refuses."""

import importlib
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import forkserver

ROOT = Path(__file__).parents[1]
FIGURES = {"tokens_per_second", "memory_gb", "seconds"}
TINY = "--steps 1 --batch 2 --micro 1 --tokens 32 --reply 2 --items 2".split()


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "scripts/bench/bench_gpu.py", "--device", "cpu", *arguments]
    return forkserver.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)


def told(*arguments: str) -> dict[str, Any]:
    """The last line; every figure that is there is a number above 0."""
    done = bench(*TINY, "--pairs", "1", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert found["parameters"] > 0 and found["device"].startswith("CPU")
    for name, step in found["steps"].items():
        assert step["failed"] == {} and f"{name} ..." in done.stdout
        for side in ("ours", "plain"):
            figures = {key: step[side][key] for key in FIGURES}
            assert all(math.isfinite(value) and value > 0 for value in figures.values() if value is not None)
            assert {key for key, value in figures.items() if value is None} <= {"tokens_per_second"}
            assert (figures["tokens_per_second"] is None) == (name == "merge")
        for key, ratio in step["ratio"].items():
            assert ratio is None or 0 < ratio["low"] <= ratio["median"] <= ratio["high"] < math.inf, key
    return found


@pytest.mark.slow
def test_training_and_merge_have_all_figures() -> None:
    found = told("--only", "sft_packed", "merge")
    assert list(found["steps"]) == ["sft_packed", "merge"]
    sides = found["steps"]["sft_packed"]
    assert sides["ours"]["active"]["packing"] and not sides["plain"]["active"]["packing"]
    assert sides["ours"]["active"]["attention"] == "sdpa" and not sides["ours"]["active"]["bf16"]


@pytest.mark.slow
def test_the_other_kinds_of_steps_run_on_both_sides() -> None:
    found = told("--only", "dpo", "grpo", "evaluation")
    assert list(found["steps"]) == ["dpo", "grpo", "evaluation"]


def test_a_side_that_fails_says_why_and_the_other_keeps_its_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "bench"))
    script: Any = importlib.import_module("bench_gpu")
    setting = script.Setting("nowhere", "pico", False, **script.DEFAULTS["pico"])
    given = {"setting": vars(setting), "step": "merge", "side": "ours", "packs": 1, "tokens": 0}
    reason = script.in_process(given, 100)["failed"]
    assert "nowhere" in reason
    assert script.in_process(given, 0.1) == {"failed": "not done after 0 s (--timeout)"}

    good = {"tokens": 4, "tokens_per_second": 2.0, "memory_gb": 1.0, "seconds": 2.0, "active": None}
    monkeypatch.setattr(script, "in_process", lambda given, _: {"failed": "x"} if given["side"] == "ours" else good)
    found = script.measured("sft", setting, {"tokens": {"sft": 100}}, 3, 1.0)
    assert found["failed"] == {"ours": "x"} and found["ratio"] == {} and found["plain"]["seconds"] == 2.0
    assert script.shown({"sft": found}).row_count == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--size", "1b"], "take --size pico, or --force"),
        (["--only", "nothing"], "invalid choice: 'nothing'"),
        (["--batch", "3", "--micro", "2"], "must be a multiple of --micro"),
        (["--pairs", "0"], "--pairs: got 0, wanted at least 1"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: list[str], words: str) -> None:
    done = bench(*arguments)
    assert done.returncode == 2 and words in done.stderr and done.stdout == ""
