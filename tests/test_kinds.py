"""Kinds of data: the records of this package, and one of the user's in a module of its own."""

import dataclasses
import json
from pathlib import Path

import pytest

from lamdagent.actions.context import Context
from lamdagent.actions.methods import SFT
from lamdagent.actions.recipe import Recipe
from lamdagent.actions.training import Training
from lamdagent.config import ActionConfig, DatasetConfig, SlotConfig
from lamdagent.errors import UserError
from lamdagent.evaluation.contamination import leaks
from lamdagent.evaluation.task import Item
from lamdagent.objects.kinds import KINDS, DatasetKind, dataset_kind, is_kind
from lamdagent.objects.rows import load_dataset
from lamdagent.planning.actions import build_action_type


def as_pairs(rows: list[dict], seed: int) -> list[dict]:
    """The rows that the SFT trainer reads."""
    return [{"prompt": row["question"], "completion": " ".join(row["steps"])} for row in rows]


def unlike(row: dict) -> str:
    return "" if len(row["right"]) == len(row["steps"]) else "not every step is judged"


STEPS = DatasetKind(("question",), labels=("steps", "right"), fault=unlike, to_trl=as_pairs)
OWN = "tests.test_kinds:STEPS"
ROWS = [
    {"question": "How much is 2 + 2?", "steps": ["2 and 2", "are 4"], "right": [True, True], "from": "me"},
    {"question": "How much is 2 + 3?", "steps": ["6"], "right": []},
    {"question": "", "steps": ["6"], "right": [False]},
]


def settings(folder: Path, **more: str) -> DatasetConfig:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return DatasetConfig(kind=OWN, source=str(folder / "rows.jsonl"), **more)


def test_columns_faults_and_texts_of_a_kind_of_the_users(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="2 of 3 rows teach nothing: row 1 .not every step is judged., row 2 .empty qu"):
        load_dataset("steps", settings(tmp_path))
    data = load_dataset("steps", settings(tmp_path, bad_rows="drop"))
    assert (data.kind, data.rows, data.columns) == (OWN, 1, ("from", "question", "right", "steps"))
    [leak] = leaks([data], [Item("sums", "test", "0", "How much is 2 + 2?")])
    assert leak.row == 0 and leak.exact


def test_an_action_takes_data_of_that_kind_and_trl_gets_it_as_the_kind_says(tmp_path: Path, pico_folder: str) -> None:
    slots = {"model": SlotConfig(), "dataset": SlotConfig(OWN)}
    kind = build_action_type("mine", ActionConfig(function="lamdagent.actions.sft:sft", slots=slots))
    data = load_dataset("steps", settings(tmp_path, bad_rows="drop"))
    assert data.fits(kind.slots[1].kind)
    recipe = Recipe(1e-3, 1, 1.0, 1, 1, 64, 0.0, 0, 32, 0)
    method = dataclasses.replace(SFT, kind=OWN, function="")
    made, _ = Training(method, pico_folder, data.path, recipe, {"completion_only_loss": True}).run(Context(tmp_path))
    assert made.config.model_type == "llama"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("wrong", "kind: got 'wrong'; allowed: sft, preference, prompts, or module:NAME of a DatasetKind of your own"),
        ("no.such:KIND", "kind: 'no.such:KIND' is no module:function on the Python path"),
        ("tests.test_kinds:as_pairs", "kind: got 'tests.test_kinds:as_pairs', which is a function; allowed: sft,"),
    ],
)
def test_what_is_no_kind_is_refused_with_its_key(name: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load_dataset("mine", DatasetConfig(kind=name, source="rows.jsonl"))
    assert str(caught.value).startswith(f"datasets.mine.{said}")
    with pytest.raises(UserError) as caught:
        build_action_type("a", ActionConfig(function="lamdagent.actions.sft:sft", slots={"dataset": SlotConfig(name)}))
    assert str(caught.value).startswith("actions.a.slots.dataset.kind: ")


def test_a_name_from_a_store_imports_nothing() -> None:
    assert is_kind("no.such.module:KIND") and all(is_kind(name) for name in KINDS)
    assert not any(map(is_kind, ("wrong", "", None, 3, "a:b:c", "a; b:c")))
    assert dataset_kind("sft") is KINDS["sft"]
