"""What is remembered of a large experiment: an excerpt that tells the most, of bounded size."""

import json
import time
from pathlib import Path

import pytest

from lamdagent.tracking import run_cache, schema
from lamdagent.tracking.queries import ANCESTORS, BEST, NEWEST, within_working_set
from lamdagent.tracking.run_cache import ALONE
from lamdagent.tracking.runs import RunRecord
from lamdagent.tracking.searches import start_search
from lamdagent.tracking.store import RunStore


def action(number: int, score: float | None, *parents: str, status: str = "FINISHED") -> RunRecord:
    tags = {schema.KIND: "action", schema.PARENTS: json.dumps(parents)}
    metrics = {} if score is None else {schema.SCORE: score}
    return RunRecord(f"run{number}", "1", "", status, number, number, "", metrics=metrics, tags=tags)


def excerpt(records: list[RunRecord]) -> set[str]:
    return {record.run_id for record in within_working_set({record.run_id: record for record in records})}


def test_the_best_the_newest_the_running_and_their_ancestors_stay() -> None:
    running = action(0, None, status="RUNNING")
    chain = [action(1, 0.1), action(2, 0.1, "run1"), action(3, 0.9, "run2")]
    forgotten = action(4, 0.1)
    better = [action(5 + number, 0.5) for number in range(BEST - 1)]
    newest = [action(1000 + number, 0.2) for number in range(NEWEST)]
    kept = excerpt([running, *chain, forgotten, *better, *newest])
    assert kept == {record.run_id for record in (running, *chain, *better, *newest)}


def test_however_long_the_pipelines_it_is_bounded() -> None:
    long = [action(number, number / 10_000, *[f"run{number - 1}"] * (number > 0)) for number in range(5000)]
    kept = excerpt(long)
    assert len(kept) == NEWEST + ANCESTORS and "run4999" in kept and "run0" not in kept


@pytest.mark.parametrize("later", [0, 3 * ALONE])
def test_what_another_has_started_is_seen_however_many_came_after_it(
    later: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_cache, "FRESH_S", 0.0)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    store, other = RunStore(uri, "x"), RunStore(uri, "x")
    search = start_search(store, "ours", "ours", {}, "")
    store.runs()
    theirs = other.open(start_search(other, "theirs", "theirs", {}, ""), "action", "theirs", {}, {})
    time.sleep(0.01)  # a millisecond is the resolution of start times
    own = [store.open(search, "action", f"{number}", {}, {}) for number in range(later)]
    assert {theirs, *own} <= {record.run_id for record in store.runs()}


def test_a_tag_is_cut_at_one_length_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The length is looked up where the schema has it, by the store's writes and by the search's description."""
    monkeypatch.setattr(schema, "MAX_TAG", 2000)
    store = RunStore(f"sqlite:///{tmp_path}/mlflow.db", "x")
    search = start_search(store, "ours", "ours", {}, "", text="long " * 1000)
    run = store.open(search, "action", "first", {schema.REASON: "long " * 1000}, {})
    tags = {run_id: store.client.get_run(run_id).data.tags for run_id in (search, run)}
    assert len(tags[search][schema.DESCRIPTION]) == len(tags[run][schema.REASON]) == 2000
