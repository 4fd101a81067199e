"""Runs at several data fractions in one experiment: each search compares those of its own."""

import json
from dataclasses import replace

import pytest

from lamdagent.config import Config, MemoryConfig
from lamdagent.memory.history import build_history
from lamdagent.memory.trial import History, Trial
from lamdagent.report.document import document, scales
from lamdagent.tracking.runs import RunRecord
from lamdagent.weights.retention import decide
from tests.builders import DATASETS, SFT, TASKS, TYPES, base_trial, space, trial_of

NAMED = tuple(replace(task, fingerprint=f"items of {task.name}") for task in TASKS)


def record(run_id: str, start: int, fraction: str = "", parents: tuple[str, ...] = ("base",), score: float = 0.5):
    """A finished run; one without a fraction is of an older version."""
    kind = "action" if run_id != "base" else "base"
    tags = {"lamdagent.kind": kind, "lamdagent.schema": "1", "lamdagent.fingerprint": run_id * 8}
    tags |= {"lamdagent.tasks": json.dumps({task.name: task.fingerprint for task in NAMED})}
    tags |= {"lamdagent.parents": json.dumps(parents if kind == "action" else []), "mlflow.parentRunId": "search"}
    params = {"seed": "0"} | ({"data_fraction": fraction} if fraction else {})
    metrics = {"task.calls": score, "task.style": score}
    return RunRecord(run_id, "1", run_id, "FINISHED", start, start + 1, "", params, metrics, tags)


RECORDS = [
    record("base", 1),
    record("old", 2, score=0.6),
    record("small", 3, "0.1", score=0.9),
    record("whole", 4, "1.0", score=0.7),
    record("mixed", 5, "1.0", ("small", "whole"), score=0.95),
    record("above", 6, "1.0", ("mixed",), score=0.99),
    record("grown", 7, "0.1", ("small",), score=0.8),
]


@pytest.mark.parametrize(
    ("config", "seen"),
    [
        (Config(), ["whole", "old", "base"]),
        (Config(data_fraction=0.1), ["small", "grown", "base"]),
        (Config(data_fraction=0.3), ["base"]),
        (Config(memory=MemoryConfig(any_fraction=True)), ["above", "mixed", "small", "grown", "whole", "old", "base"]),
    ],
)
def test_a_search_sees_runs_of_its_fraction_and_what_rests_on_nothing_else(config: Config, seen: list[str]) -> None:
    history = build_history(RECORDS, TYPES, DATASETS, NAMED, config.scope)
    assert [trial.run_id for trial in history.scored] == seen
    assert {trial.run_id for trial in history} == set(seen)


@pytest.mark.parametrize(
    ("tag", "compared", "champion"),
    [("1.0", {"old", "whole"}, "whole"), ("0.1", {"small", "grown"}, "small"), ("", None, "above")],
)
def test_the_page_ranks_runs_of_the_fraction_only(tag: str, compared: set[str] | None, champion: str) -> None:
    tags = {"lamdagent.kind": "search", "lamdagent.scales": scales(NAMED), "lamdagent.data_fraction": tag}
    made = document(RunRecord("search", "1", "search", "FINISHED", 0, 9, "", {}, {}, tags), RECORDS)
    ranked = {node["id"] for node in made["nodes"] if node["rank"] is not None}
    assert ranked == {"base", *(compared or {r.run_id for r in RECORDS})} and made["champion"] == champion


def at(fraction: float, number: int, value: float) -> Trial:
    """An action that made weights of its own."""
    offered = space(data_fraction=fraction)
    made = trial_of(list(offered.actions(SFT))[number % 4], number, value)
    assert made.model
    return replace(made, model=replace(made.model, location=f"runs:/run{number}/model"))


def test_weights_of_the_best_of_each_fraction_stay() -> None:
    history = History((base_trial(), at(0.1, 1, 0.9), at(0.1, 2, 0.8), at(1.0, 3, 0.3), at(1.0, 4, 0.2)))
    kept = {v.trial.run_id: v.kept for v in decide(history, TASKS[:1], 1, {})}
    assert kept["run1"] == "number 1 of the best 1 at data_fraction=0.1" and not kept["run2"]
    assert kept["run3"] == "number 1 of the best 1 at data_fraction=1" and not kept["run4"]
