"""Wall clocks that jump: nobody alive is taken for dead, no order is lost, nothing is done twice."""

import json
import time
from collections import Counter
from pathlib import Path

import pytest

from lamdagent.memory.history import build_history
from lamdagent.tracking import schema
from lamdagent.tracking.owner import HeartbeatMonitor
from lamdagent.tracking.runs import RunRecord
from tests.searches import ROOT, begin, end, fingerprints, of_kind, runs_of, tag

HOURS = 3600.0


class TestHeartbeatMonitor:
    def test_the_first_look_goes_by_the_clocks(self) -> None:
        assert HeartbeatMonitor().silent_s("a", int(time.time() * 1000) - 60_000) == pytest.approx(60, abs=5)

    def test_our_own_clock_jumps(self, monkeypatch: pytest.MonkeyPatch) -> None:
        watch, sign = HeartbeatMonitor(), int(time.time() * 1000)
        monkeypatch.setattr(time, "time", lambda: sign / 1000 + 5 * HOURS)
        assert watch.silent_s("a", sign) < 5

    def test_a_sign_that_changes_counts_whatever_it_says(self) -> None:
        watch, now = HeartbeatMonitor(), int(time.time() * 1000)
        watch.silent_s("a", now)
        assert watch.silent_s("a", now - 10_000_000) < 5
        assert watch.silent_s("b", now - 10_000_000) > 9_000, "another one has given none"


def test_parents_come_first_whatever_the_clocks_said() -> None:
    def record(run_id: str, start_ms: int, *parents: str) -> RunRecord:
        kind = "action" if parents else "base"
        listed = "[" + ", ".join(f'"{parent}"' for parent in parents) + "]"
        tags = {schema.KIND: kind, schema.PARENTS: listed, schema.FINGERPRINT: run_id}
        return RunRecord(run_id, "1", run_id, "FINISHED", start_ms, start_ms + 1, "", tags=tags)

    records = [
        record("base", 500),
        record("child", 100, "base"),
        record("other", 200, "base"),
        record("grandchild", 50, "other", "child"),
        record("one", 600, "two"),  # anyone may write a tag
        record("two", 700, "one"),
    ]
    trials = build_history(records, (), (), ()).trials
    order = [trial.run_id for trial in trials]
    assert sorted(order) == sorted(record.run_id for record in records)
    assert order.index("base") < order.index("child") < order.index("grandchild") > order.index("other")
    merged = next(trial for trial in trials if trial.run_id == "grandchild")
    assert merged.action and [model.fingerprint for model in merged.action.models] == ["other", "child"]


@pytest.mark.slow
@pytest.mark.parametrize("jump_s", [-3 * HOURS, 3 * HOURS])
def test_a_search_goes_on_over_a_jump_and_so_does_the_next(tmp_path: Path, jump_s: float) -> None:
    offset = tmp_path / "offset"
    offset.write_text("0")
    clock = {"CLOCK_OFFSET": str(offset), "PYTHONPATH": f"{ROOT / 'tests' / 'clock'}:{ROOT}"}
    amounts = "actions.nudge.hyperparameters.amount=[0.1,0.2,0.3,0.4,0.5,0.6]"
    search = ("+experiment=stunts", "agent=random", "execution=inline", amounts)
    process = begin(tmp_path, *search, "budget.trials=5", **clock)
    assert process.stdout
    seen = []
    for line in process.stdout:
        seen.append(line)
        if line.startswith("> 3/5"):
            offset.write_text(str(jump_s))
        if line.startswith("> 5/5"):
            process.kill()
    end(process)
    assert any(line.startswith("> 5/5") for line in seen), seen
    offset.write_text("0")  # and back again
    code, output = end(begin(tmp_path, *search, "budget.trials=6", **clock))
    assert code == 0, output
    runs = runs_of(tmp_path, "stunts")
    assert not [run for run in runs if run.info.status == "RUNNING"]
    done = fingerprints(runs)
    assert len(done) == 6 and max(Counter(done).values()) == 1
    finished = {run.info.run_id for run in of_kind(runs, "base") + of_kind(runs, "action")}
    assert all(parent in finished for run in of_kind(runs, "action") for parent in json.loads(tag(run, "parents")))
    assert {tag(run, "failure_kind") for run in runs} <= {"", "orphan"}
