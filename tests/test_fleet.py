"""The simulated fleet against what can be told with pencil and paper, and its store, measured for real."""

import json
import os
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests import forkserver

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def script() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "scripts" / "bench"))
        yield import_module("simulate_fleet")


@pytest.fixture(scope="module")
def got(script: Any) -> Any:
    """Figures of a fleet whose actions all take 100 s."""

    def simulated(workers: int, drivers: int = 1, driver_s: float = 0.0, store_s: float = 0.0) -> Any:
        return script.simulate(script.Fleet(workers, drivers, driver_s, store_s), lambda: 100.0)

    return simulated


def test_nobody_waits_where_driver_and_store_take_no_time(got: Any) -> None:
    found = got(50)
    assert found.efficiency == pytest.approx(1.0, rel=0.05) and found.driver == found.store == 0
    assert found.per_hour == pytest.approx(50 * 36, rel=0.05)


def test_a_driver_can_feed_so_many_and_no_more(got: Any) -> None:
    """One turn of 2 s for each action of 100 s: 51 workers keep it busy, more only wait."""
    assert got(20, driver_s=2.0).efficiency == pytest.approx(100 / 102, rel=0.03)
    full = got(200, driver_s=2.0)
    assert full.per_hour == pytest.approx(3600 / 2, rel=0.02) and full.driver == pytest.approx(1.0, rel=0.02)
    assert full.efficiency == pytest.approx(50 / 200, rel=0.03)


def test_more_drivers_help_until_the_store_is_full(got: Any) -> None:
    one, four, many = (got(400, drivers, 1.5, 0.5) for drivers in (1, 4, 40))
    assert one.per_hour == pytest.approx(3600 / 2, rel=0.02)
    assert four.per_hour == pytest.approx(4 * 3600 / 2, rel=0.1)
    assert many.per_hour <= 3600 / 0.5 * 1.02 and many.store > 0.9, "the store does one trial after another"


def test_actions_are_the_recorded_ones_stretched(script: Any) -> None:
    draw = script.durations(10, 0)
    drawn = sorted(draw() for _ in range(2001))
    assert drawn[1000] == pytest.approx(600, rel=0.1) and drawn[0] < drawn[1000] < drawn[-1]


@pytest.mark.slow
def test_the_store_is_measured_with_writers_side_by_side() -> None:
    command = [sys.executable, "scripts/bench/simulate_fleet.py", "--stores", "sqlite", "--trials", "3"]
    command += ["--minutes", "10", "--workers", "1", "20"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = forkserver.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    [table] = json.loads(done.stdout.splitlines()[-1])["tables"]
    assert 1 < table["store_ms"] < 10_000 and set(table["drivers_1"]["workers"]) == {"1", "20"}
