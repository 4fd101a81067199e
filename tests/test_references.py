"""The tag that says what an action's slots hold, and runs of older versions that only name it."""

import dataclasses
import json

from lamdagent.enumeration.space import ActionSpace, produced
from lamdagent.memory.history import build_history
from lamdagent.memory.references import inputs_tag, recorded_inputs
from lamdagent.objects.dataset import Dataset
from lamdagent.objects.reference import ObjectRef
from lamdagent.tracking import schema
from lamdagent.tracking.runs import RunRecord
from tests.builders import DATASETS, SFT, TASKS, TIES, TYPES, model, pool, space

ROWS = Dataset("data-0a1b2c3d", "sft", "made", "0a1b2c3d" + "0" * 24, 5, "runs:/maker/dataset", run_id="maker")


def record(action, parents: list[str], tags: dict[str, str]) -> RunRecord:
    told = {
        schema.KIND: "action",
        schema.ACTION: action.type,
        schema.FINGERPRINT: action.fingerprint,
        schema.PARENTS: json.dumps(parents),
        schema.SLOTS: json.dumps({slot: list(names) for slot, names in action.slots.items()}),
    }
    params = {key: str(value) for key, value in action.params().items()}
    return RunRecord("run9", "1", "sft", "FINISHED", 9, 10, "", params, {}, told | tags)


def on_made_rows():
    of = ActionSpace(TYPES, pool(), [*DATASETS, ROWS])
    return of.make("sft", {"model": [model(0)], "dataset": [ROWS]}, {"lr": 0.001})


def test_what_is_written_is_what_is_read() -> None:
    action = on_made_rows()
    tag = inputs_tag(action, ["run0", "maker"])
    found = recorded_inputs(record(action, ["run0", "maker"], tag))
    assert found == {
        "model": (ObjectRef("model", "model-00000000", "run0", model(0).fingerprint),),
        "dataset": (ObjectRef("dataset", ROWS.name, "maker", ROWS.fingerprint),),
    }
    assert found == action.inputs


def test_a_run_that_only_names_its_inputs_is_read_with_its_parents() -> None:
    action = on_made_rows()
    found = recorded_inputs(record(action, ["run0", "maker"], {}))
    assert found == {
        "model": (ObjectRef("model", "model-00000000", "run0"),),
        "dataset": (ObjectRef("dataset", ROWS.name, "maker"),),
    }
    assert recorded_inputs(record(action, ["run0"], {}))["dataset"] == (ObjectRef("dataset", ROWS.name),)


def test_both_give_the_same_action() -> None:
    merge = next(space(pool(3)).actions(TIES))
    parents = [m.run_id for m in merge.models]
    bases = [
        RunRecord(
            m.run_id,
            "1",
            "m",
            "FINISHED",
            0,
            1,
            "",
            {},
            {},
            {schema.KIND: "base", schema.MODEL_FINGERPRINT: m.fingerprint},
        )
        for m in pool(3)
    ]
    old, new = (
        build_history([*bases, record(merge, parents, tags)], TYPES, DATASETS, TASKS).by_run["run9"].action
        for tags in ({}, inputs_tag(merge, parents))
    )
    assert old == new and old is not None and old.slots == merge.slots
    assert [m.fingerprint for m in old.models] == [m.fingerprint for m in merge.models]


def test_data_that_are_not_configured_any_more_are_missing_and_not_made_up() -> None:
    action = next(space().actions(SFT))
    for tags in ({}, inputs_tag(action, ["run0"])):
        found = build_history([record(action, ["run0"], tags)], TYPES, (), TASKS).by_run["run9"].action
        assert found is not None and found.datasets == () and [ref.name for ref in found.missing] == ["calls"]
        assert found.describe() == action.describe()


def test_a_tag_that_would_be_too_long_is_not_written() -> None:
    many = [
        produced(dataclasses.replace(next(space().actions(SFT)), fingerprint=f"{n:08x}" + "0" * 24), f"{n:032x}")
        for n in range(60)
    ]
    action = dataclasses.replace(
        next(space().actions(SFT)), models=tuple(many), inputs={"models": tuple(m.ref for m in many)}
    )
    parents = [str(m.run_id) for m in many]
    assert inputs_tag(action, parents) == {}
    told = recorded_inputs(record(action, parents, {}))["models"]
    assert [ref.run_id for ref in told] == parents and all(ref.is_model for ref in told)


def test_what_anybody_may_have_written_is_no_error() -> None:
    action = next(space().actions(SFT))
    named = recorded_inputs(record(action, ["run0"], {}))
    for text in (
        "[",
        "[1]",
        "7",
        '{"model": 3}',
        '{"model": [{"kind": "model"}]}',
        '{"model": ["model-1"]}',
        '{"model": [{}]}',
    ):
        assert recorded_inputs(record(action, ["run0"], {schema.INPUTS: text})) == named
    wrong = {"model": [{"kind": 1, "name": None, "run_id": [], "fingerprint": {}}]}
    assert recorded_inputs(record(action, ["run0"], {schema.INPUTS: json.dumps(wrong)})) == named
    assert recorded_inputs(record(action, ["run0"], {schema.SLOTS: "[]"})) == {}
