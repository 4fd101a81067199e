"""The paper's baselines: what they pick, in which order, when they stop, what they need."""

import json
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run

from tests.searches import CONF, lamdagent, of_kind, runs_of, tag

SMALL = (*CONF, "+experiment=scaled", "+dataset=[pico_repeat]", "+action=[merge_ties]", "execution=inline")
DENSITY = "actions.merge_ties.hyperparameters.density=[0.3,0.8]"


def picked(folder: Path, agent: str, *more: str) -> tuple[list[Run], str]:
    """The actions of a search of the baseline, oldest first, and its output."""
    code, output = lamdagent(folder, *SMALL, DENSITY, f"agent={agent}", "budget.trials=20", *more)
    assert code == 0, output
    return of_kind(runs_of(folder, "scaled"), "action"), output


def told(run: Run) -> tuple[Any, ...]:
    params = run.data.params
    return tuple(params[key] for key in ("action", "dataset", "learning_rate", "density") if key in params)


@pytest.mark.slow
def test_a_ties_grid_is_a_model_for_each_dataset_and_then_every_merge(tmp_path: Path) -> None:
    runs, output = picked(tmp_path, "ties_grid")
    assert [told(run) for run in runs] == [
        ("sft_full", "pico_spell", "0.003"),
        ("sft_full", "pico_repeat", "0.003"),
        ("merge_ties", "0.3"),
        ("merge_ties", "0.8"),
    ]
    assert {tag(run, "policy") for run in runs} == {"ties_grid"}
    assert "the baseline is complete" in output
    again, _ = picked(tmp_path, "ties_grid")
    assert len(again) == len(runs), "a restart has nothing left to do"
    parents = [json.loads(tag(run, "parents")) for run in runs[2:]]
    assert all({runs[0].info.run_id, runs[1].info.run_id} < set(some) for some in parents)


@pytest.mark.slow
def test_all_data_sft_is_the_largest_dataset_with_each_setting(tmp_path: Path) -> None:
    runs, _ = picked(tmp_path, "all_data_sft", "+datasets.pico_spell.rows=6")
    assert [told(run) for run in runs] == [("sft_full", "pico_repeat", "0.003"), ("sft_full", "pico_repeat", "0.01")]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("agent=ties_grid", "~actions.merge_ties"), "ties_grid needs TIES merging"),
        (("agent=all_data_sft", "~actions.sft_full"), "all_data_sft needs an action of supervised fine-tuning"),
    ],
)
def test_what_a_baseline_lacks_is_said_at_the_door(words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    code, output = lamdagent(tmp_path, *SMALL, *words, "dry_run=true")
    assert code == 2 and said in output, output
