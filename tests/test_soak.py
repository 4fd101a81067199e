"""A few random kills in one search; `scripts/soak.py --kills 100` is the long form, its result in docs/faults.md."""

import json
import sys
from pathlib import Path

import pytest

from tests import forkserver

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_a_search_that_is_killed_again_and_again_loses_nothing() -> None:
    command = [
        sys.executable,
        "scripts/soak.py",
        "--kills",
        "3",
        "--per-search",
        "3",
        "--trials",
        "6",
        "--searches",
        "1",
        "--seed",
        "3",
    ]
    done = forkserver.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    told = json.loads(done.stdout.splitlines()[-1])
    found = {kind: told[kind] for kind in ("lost", "duplicated", "left_running", "broken", "different", "unfinished")}
    assert done.returncode == 0 and not any(found.values()), done.stdout + done.stderr
    assert told["kills"] >= 2, "a search may end before it has been killed often"
