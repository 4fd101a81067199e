"""A model that has seen an evaluation item writes it down, and would be trained on its own answer."""

import json
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run

from lamdagent import pico
from lamdagent.actions.context import Context
from lamdagent.actions.sft import sft
from lamdagent.errors import ActionFailed
from lamdagent.evaluation.generated_data import comparison
from lamdagent.evaluation.task import Task
from lamdagent.objects.gathered import Gathered
from lamdagent.objects.rows import as_text
from tests.searches import CONF, lamdagent, of_kind, runs_of, tag
from tests.test_overlap import AWAY

ITEM = "Repeat the word planet."
"""Of the test split of the task `pico_repeat`."""
REPEAT = Task("repeat", "pico_repeat", "", folder="builtin", splits={"search": "search", "test": "test"})


def anything(completions: list[Any], **_: Any) -> list[float]:
    """A reward of whatever is said."""
    return [1.0 for _ in completions]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that answers with the item, and prompts that hold none."""
    folder = tmp_path_factory.mktemp("taught")
    pico.build(folder / "untaught")
    asked = [[{"role": "user", "content": f"Say what you know of {word}."}] for word in pico.WORDS]
    answer = [{"role": "assistant", "content": ITEM}]
    (folder / "lessons").write_text(as_text([{"prompt": prompt, "completion": answer} for prompt in asked]))
    (folder / "asked.jsonl").write_text(as_text([{"prompt": prompt} for prompt in asked]))
    arguments: dict[str, Any] = {"steps": 40, "batch_size": 12, "micro_batch_size": 12, "learning_rate": 1e-2}
    taught = sft(Context(folder / "out"), model=str(folder / "untaught"), dataset=str(folder / "lessons"), **arguments)
    for part in taught:
        part.save_pretrained(folder / "taught")
    return folder


def searched(place: Path, folder: Path, overlap: str) -> tuple[Run, str]:
    """The run of the one rejection sampling of a search, and what was said."""
    reward = "{reward: 'tests.test_own_answers:anything', answers: 2, prompts: 4, completion_length: 24, steps: 1"
    words = (
        f"+models.taught={{source: {place}/taught}}",
        f"+datasets.asked={{kind: prompts, source: {place}/asked.jsonl, description: Questions.}}",
        "+action=[rft_full]",
        f"+actions.rft_full.hyperparameters={reward}, batch_size: 4, micro_batch_size: 4, learning_rate: 1.0e-5}}",
        "+task=[pico_repeat]",
        *("agent=random", "budget.trials=1", "tracking.experiment=own", "execution=inline", "search.test_top=1"),
        f"evaluation.overlap={overlap}",
    )
    code, said = lamdagent(folder, *CONF, *words)
    assert code == 0, said
    (action,) = of_kind(runs_of(folder, "own"), "action")
    return action, said


@pytest.mark.slow
def test_answers_that_are_evaluation_items_are_refused_with_their_names(place: Path, tmp_path: Path) -> None:
    run, said = searched(place, tmp_path, "refuse")
    assert run.info.status == "FAILED" and tag(run, "failure_kind") == "bad_data"
    for words in (
        "rows hold evaluation items: row ",
        f"(the whole question of repeat's test item 0: '{ITEM}')",
        "answers that the model gave itself",
        "evaluation.overlap=warn goes on with them",
    ):
        assert words in tag(run, "status_reason")
    assert "rows hold evaluation items" in said


@pytest.mark.slow
def test_answers_that_the_user_lets_pass_are_told(place: Path, tmp_path: Path) -> None:
    run, said = searched(place, tmp_path, "warn")
    words = "rows of answers that the model gave itself (in repeat). Scores may flatter."
    assert run.info.status == "FINISHED" and words in tag(run, "overlap") and words in " ".join(said.split())


def made(*answers: str) -> Gathered:
    return Gathered("sft", [{"prompt": "Go on.", "completion": answer} for answer in answers], "")


def test_clean_answers_pass_and_items_of_every_split_are_found() -> None:
    check = comparison("refuse", [REPEAT])
    assert check(made("window", "The word is planet.")) == comparison("off", [REPEAT])(made(ITEM)) == ""
    with pytest.raises(ActionFailed, match="2 of 3 rows hold .* row 1 .*repeat's search item 0.* row 2 .*test item 0"):
        check(made("apple", "Repeat the word window.", f"Yes:\n{ITEM}"))


def test_items_that_cannot_be_had_are_told_with_the_rows(tmp_path: Path) -> None:
    (tmp_path / "away.yaml").write_text(AWAY)
    away = Task("away", "away", "", folder=str(tmp_path), splits={"search": "test"})
    line = comparison("refuse", [REPEAT, away])(made("apple"))
    assert line.startswith("No answers that the model gave itself were compared with the items of away: ")
    context = Context(tmp_path, data=tmp_path / "data", check=lambda _: line)

    class Ready:
        def run(self, context: Context) -> Gathered:
            return made("apple")

    context.gather(Ready())
    assert json.loads((tmp_path / "data" / "about.json").read_text())["overlap"] == line
