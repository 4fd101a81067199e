"""A kind of object of a user's own goes the whole way: configuration, prompts, action, fingerprint, store, lineage."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lamdagent.champion.model_card import model_card
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
from tests.builders import base_trial, model, trial_of
from tests.searches import of_kind, runs_of, search, tag
from tests.test_config import composed
from tests.test_rebuild_command import Shelf

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


def test_the_model_card_lists_it_and_says_what_is_gone(judge: Path) -> None:
    made = plan(judge)
    trial = trial_of(next(space(made).actions(made.types[0])), 1, 0.5)
    card = model_card(trial, History((base_trial(), trial)), made, "")
    head = f"| input | kind | licence | source | what it is |\n| --- |{' --- |' * 4}"
    row = f"| helpful | reward model | Apache-2.0 | {judge} | Prefers replies that answer the question. |"
    assert f"## Other inputs\n\n{head}\n{row}\n" in card
    assert "| sft_judged | model-00000000 | pico_spell, helpful |" in card
    assert "A step used" not in card and "licence of the inputs" not in card and "Not for commercial use" not in card

    assert trial.action is not None
    (helpful,), (spell,) = trial.action.resources, trial.action.datasets
    sold = replace(trial.action, resources=(replace(helpful, license="cc-by-nc-4.0"),))
    assert "by the licences of helpful (cc-by-nc-4.0)" in model_card(replace(trial, action=sold), History(), made, "")
    silent = replace(trial.action, resources=(replace(helpful, license=""),))
    assert "the licence of the inputs helpful:" in model_card(replace(trial, action=silent), History(), made, "")

    gone = replace(trial.action, resources=(), datasets=())
    card = model_card(replace(trial, action=gone), History(), made, "")
    unknown = "but the configuration has it no more: its content and its licence are unknown."
    assert f"- A step used the dataset {spell.name}, {unknown}" in card
    assert f"- A step used the reward model {helpful.name}, {unknown}" in card
    assert "## Other inputs" not in card and "| pico_spell, helpful |" in card

    rows = (ObjectRef("dataset", "data-0a1b2c3d", "run9", "0a1b"),)
    lost = replace(gone, inputs={**gone.inputs, "dataset": rows})
    card = model_card(replace(trial, action=lost), History(), made, "")
    assert "- A step used the dataset data-0a1b2c3d, but the run run9 that made it is not known here:" in card


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (("resources.helpful.source=nowhere",), "resources.helpful.source: there is no file or folder 'nowhere'"),
        (("resources.helpful.kind=json:dumps",), "resources.helpful.kind: json:dumps is function, wanted what"),
        (("~resources.helpful",), "its slot 'judge' takes reward_model, but there is no such resource"),
        (
            ("actions.sft_judged.slots.judge.kind=no:KIND",),
            "slots.judge.kind: 'no:KIND' is no module:function on the Python path",
        ),
    ],
)
def test_faults_are_found_at_the_door(judge: Path, changes: tuple[str, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=words.replace("(", "[(]")):
        make_plan(read(composed(FOUND, *GIVEN, f"resources.helpful.source={judge}", *changes)))


@pytest.fixture(scope="module")
def searched(judge: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a search that has used it."""
    folder = tmp_path_factory.mktemp("judged")
    settings = ("tracking.experiment=judged", "execution=inline", "agent.kind=random", "budget.trials=2")
    source = f"resources.helpful.source={judge}"
    limits = ("+tasks.spell.limits={search: 2, test: 2}", "search.test_top=1")
    code, output = search(folder, *GIVEN, source, *settings, *limits)
    assert code == 0, output
    return folder


@pytest.mark.slow
def test_a_search_uses_it_and_its_runs_say_so(judge: Path, searched: Path) -> None:
    records = [record_of(run) for run in runs_of(searched, "judged")]
    made = plan(judge)
    (resource,) = made.resources
    first = next(record_of(run) for run in of_kind(runs_of(searched, "judged"), "action"))
    assert recorded_inputs(first)["judge"] == (ObjectRef("reward_model", "helpful", "", resource.fingerprint),)
    assert json.loads(first.tags["lamdagent.slots"])["judge"] == ["helpful"] and first.params["judge"] == "helpful"
    past = build_history(records, made.types, made.datasets, made.tasks, resources=made.resources)
    trial = past.by_run[first.run_id]
    assert trial.action is not None and trial.action.resources == (resource,) and not trial.action.missing
    assert trial.model is not None and "sft_judged(pico_spell, helpful, keep=" in lineage_string(trial.model, past)
    assert step(trial.action)["resources"] == {"helpful": resource.fingerprint}
    gone = build_history(records, made.types, made.datasets, made.tasks).by_run[first.run_id]
    assert gone.action is not None and [ref.name for ref in gone.action.missing] == ["helpful"]


@pytest.mark.slow
def test_a_rebuild_wants_it_as_it_was(judge: Path, searched: Path) -> None:
    shelf = Shelf(searched, "judged")
    run_id = shelf.actions[0].info.run_id
    shelf.prune(run_id)
    note = judge / "note.txt"
    note.write_text("another reward model")
    changed = shelf.lamdagent("rebuild", run_id, "execution=inline")
    note.unlink()
    assert changed.code == 2 and "Traceback" not in changed.output, changed.output
    assert "the reward_model helpful has changed since the run" in changed.output
    assert f"Bring back what {judge} held" in changed.output
    assert not shelf.weights(run_id).exists() and tag(shelf.run(run_id), "pruned")
    again = shelf.lamdagent("rebuild", run_id, "execution=inline")
    assert again.code == 0 and f"rebuilt {run_id}: the same weights, by checksum" in again.output, again.output
