"""The benchmarks run, compare equals, and end with their figures; how fast anything is, is not asserted."""

import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import forkserver

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted(path.name for path in (ROOT / "scripts" / "bench").glob("bench_*.py"))


def output(*arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *(f"scripts/bench/{arguments[0]}", *arguments[1:])]
    done = forkserver.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def figures(*arguments: str) -> dict[str, Any]:
    return dict(json.loads(output(*arguments).splitlines()[-1]))


@pytest.mark.parametrize("script", SCRIPTS)
def test_says_what_it_measures(script: str) -> None:
    assert "usage" in output(script, "--help")


@pytest.mark.slow
def test_chain() -> None:
    found = figures("bench_chain.py", "--pairs", "1", "--items", "4", "--quick")
    names = ("ratio_one_process", "ratio_one_process_low", "ratio_one_process_high")
    assert all(math.isfinite(found[name]) and found[name] > 0 for name in names)
    assert found["weights_equal"] and found["scores_equal"]
    assert all(len(each) == 1 and each[0] > 0 for each in found["seconds"].values())


@pytest.mark.slow
def test_merging() -> None:
    found = figures("bench_merging.py", "--pairs", "1", "--methods", "linear")
    names = ("ratio_worker", "ratio_fresh", "ratio_memory", "worker_linear", "fresh_linear", "memory_linear")
    assert all(math.isfinite(found[name]) and found[name] > 0 for name in names)
    assert found["equal"]


@pytest.mark.slow
def test_driver_with_a_past() -> None:
    wanted = "--trials 5 --every 2 --policy random --past 20 --plain 1 --store server --profile".split()
    text = output("bench_driver.py", *wanted)
    found = json.loads(text.splitlines()[-1])
    assert found["past"] == 20 and found["ms"] > 0 and len(found["milliseconds"]) == 2
    assert found["ratio"] == pytest.approx(found["ms"] / found["by_hand_ms"], rel=0.01)
    assert "cumulative" in text and "search.py" in text
