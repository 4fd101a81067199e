"""A kind of object of a user's own goes the whole way: configuration, prompts, action, fingerprint, store, lineage."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamdagent.config import read
from lamdagent.enumeration.space import ActionSpace
from lamdagent.errors import ConfigError
from lamdagent.llm.templates import LLMSettings
from lamdagent.memory.history import build_history
from lamdagent.memory.lineage import lineage_string, step
from lamdagent.memory.references import recorded_inputs
from lamdagent.memory.text import memory_text
from lamdagent.memory.trial import History
from lamdagent.objects.reference import ObjectRef
from lamdagent.pico import build
from lamdagent.planning.plan import Plan, make_plan
from lamdagent.selection.policy import Turn
from lamdagent.selection.prompts import object_messages, type_messages
from lamdagent.tracking.runs import record_of
from tests.builders import model
from tests.searches import of_kind, runs_of, search
from tests.test_config import composed

FOUND = f"hydra.searchpath=[file://{Path(__file__).parents[1] / 'conf'}]"
GIVEN = ("+model=pico", "+task=pico_spell", "+dataset=[pico_spell]", "+action=[sft_judged]", "+resource=[helpful]")


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A reward model: a pico model with a head of one label."""
    from transformers import AutoModelForSequenceClassification

    folder = tmp_path_factory.mktemp("judge")
    build(folder)
    AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1).save_pretrained(folder)
    yield folder


def plan(judge: Path) -> Plan:
    return make_plan(read(composed(FOUND, *GIVEN, f"resources.helpful.source={judge}")))


def space(plan: Plan) -> ActionSpace:
    return ActionSpace(plan.types, [model(0)], plan.datasets, resources=plan.resources)


def test_what_it_is_decides_the_fingerprint_of_an_action(judge: Path) -> None:
    (action, other) = space(plan(judge)).actions(plan(judge).types[0])
    assert action.describe() == "sft_judged(model=model-00000000, dataset=pico_spell, judge=helpful, keep=0.25)"
    assert other.fingerprint != action.fingerprint
    assert [ref.kind for ref in action.data] == ["dataset", "reward_model"]
    (judge / "note.txt").write_text("another reward model")
    changed = next(space(plan(judge)).actions(plan(judge).types[0]))
    (judge / "note.txt").unlink()
    assert changed.fingerprint != action.fingerprint
    assert next(space(plan(judge)).actions(plan(judge).types[0])).fingerprint == action.fingerprint


def test_the_agent_reads_of_it(judge: Path) -> None:
    made = plan(judge)
    memory = memory_text(History(), space(made), made.tasks, 500)
    turn = Turn(History(), space(made), 0, 0, lambda: memory)
    assert "judge: one reward model;" in type_messages(turn, LLMSettings())[-1]["content"]
    asked = object_messages(turn, made.types[0], LLMSettings())[-1]["content"]
    assert '### judge (choose one reward model)\n1. helpful: "Prefers replies that answer the question."\n' in asked
    assert "reward_model helpful" in memory


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (("resources.helpful.source=nowhere",), "resources.helpful.source: there is no file or folder 'nowhere'"),
        (("resources.helpful.kind=json:dumps",), "resources.helpful.kind: json:dumps is function, wanted what"),
        (("~resources.helpful",), "its slot 'judge' takes reward_model, but there is no such resource"),
        (("actions.sft_judged.slots.judge.kind=no:KIND",), "slots.judge.kind: 'no:KIND' is no module:function on"),
    ],
)
def test_faults_are_found_at_the_door(judge: Path, changes: tuple[str, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=words.replace("(", "[(]")):
        make_plan(read(composed(FOUND, *GIVEN, f"resources.helpful.source={judge}", *changes)))


@pytest.mark.slow
def test_a_search_uses_it_and_its_runs_say_so(judge: Path, tmp_path: Path) -> None:
    settings = ("tracking.experiment=judged", "execution=inline", "agent.kind=random", "budget.trials=2")
    source = f"resources.helpful.source={judge}"
    limits = ("+tasks.spell.limits={search: 2, test: 2}", "search.test_top=1")
    code, output = search(tmp_path, *GIVEN, source, *settings, *limits)
    assert code == 0, output
    records = [record_of(run) for run in runs_of(tmp_path, "judged")]
    made = plan(judge)
    (resource,) = made.resources
    first = next(record_of(run) for run in of_kind(runs_of(tmp_path, "judged"), "action"))
    assert recorded_inputs(first)["judge"] == (ObjectRef("reward_model", "helpful", "", resource.fingerprint),)
    assert json.loads(first.tags["lamdagent.slots"])["judge"] == ["helpful"] and first.params["judge"] == "helpful"
    past = build_history(records, made.types, made.datasets, made.tasks, resources=made.resources)
    trial = past.by_run[first.run_id]
    assert trial.action is not None and trial.action.resources == (resource,) and not trial.action.missing
    assert trial.model is not None and "sft_judged(pico_spell, helpful, keep=" in lineage_string(trial.model, past)
    assert step(trial.action)["resources"] == {"helpful": resource.fingerprint}
    gone = build_history(records, made.types, made.datasets, made.tasks).by_run[first.run_id]
    assert gone.action is not None and [ref.name for ref in gone.action.missing] == ["helpful"]
