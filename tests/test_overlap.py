"""Training rows that hold evaluation items: what counts as one, and what a search does about it."""

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from hydra import compose, initialize_config_dir

from lamdagent.config import conf_folder, read
from lamdagent.errors import ConfigError, UserError
from lamdagent.evaluation import items as evaluation_items
from lamdagent.evaluation.harness import load_task
from lamdagent.evaluation.items import items
from lamdagent.evaluation.task import DataUnavailable, Task
from lamdagent.guards.preflight import Findings
from lamdagent.objects.ngram_overlap import COMMON, Questions, without
from lamdagent.planning.plan import Plan, make_plan
from lamdagent.tooluse import bfcl
from tests.searches import client_of, lamdagent, of_kind, runs_of, search, tag

LONG = "A farmer has seventeen sheep, all but nine run away; how many sheep does the farmer have left in the end?"
MIDDLE = "all but nine run away how many sheep does the farmer have left"
SHORT = "Who wrote the play Hamlet?"
AWAY = """
task: away
dataset_path: nobody-at-all/no-such-data
output_type: multiple_choice
test_split: test
doc_to_text: "{{ question }}"
doc_to_choice: ["a", "b"]
doc_to_target: 0
"""
QUESTIONS = [LONG, SHORT, "Yes?", "シェイクスピアが書いた悲劇の中で一番長いものはどれですか"]


def found(*texts: str) -> list[tuple[int, bool]]:
    return [(overlap.item, overlap.exact) for overlap in Questions(QUESTIONS).overlaps([texts])]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (LONG, [(0, True)]),
        (LONG.upper().replace(",", " -"), [(0, True)]),
        (f"Question: {LONG}\nAnswer: nine", [(0, True)]),
        (f"Think of this. {LONG} Now answer.", [(0, False)]),
        (f"He said {MIDDLE}.", [(0, False)]),
        (MIDDLE.removesuffix(" left"), []),  # 12 words
        (MIDDLE.replace("nine", "ten"), []),
        ("who wrote  the play hamlet", [(1, True)]),
        ("Functions:\nfind(name=<str>)\nQuestion: Who wrote the play Hamlet?", [(1, True)]),
        ("I know who wrote the play Hamlet, and so do you.", []),  # too short to tell inside a text
        ("Yes", []),
        ("昨日、シェイクスピアが書いた悲劇の中で一番長いものを読んだ。", [(3, False)]),
    ],
)
def test_what_holds_an_item(text: str, told: list[tuple[int, bool]]) -> None:
    assert found("Be brief.", text, "nine") == told


@pytest.mark.parametrize("before", range(14))
def test_thirteen_words_are_found_wherever_they_stand(before: int) -> None:
    assert found(" ".join(["so"] * before) + f" {MIDDLE} " + "then " * before) == [(0, False)]


def test_a_template_tells_nothing_but_a_whole_question_does() -> None:
    template = "Read the following problem with care and then give the one right answer as a number:"
    questions = [f"{template} what is {n} plus {n}?" for n in range(COMMON + 1)]
    rows = [[f"{template} what is 1 minus 1?"], [questions[3]], ["Something else."]]
    assert [(o.row, o.item) for o in Questions(questions).overlaps(rows)] == [(1, 3)]
    assert len(list(Questions(questions[:COMMON]).overlaps(rows))) == 2
    assert without("abc", rows, questions) == ["c"]


def test_questions_of_bfcl_are_compared_without_the_functions_on_offer() -> None:
    task = Task("bfcl", "bfcl", "", folder="builtin", splits={"search": "search", "test": "test"})
    cut = Task(**{**vars(task), "question": "{{ prompt.split('Question: ') | last }}"})
    whole, questions = items(task), items(cut)
    assert {item.split for item in questions} == {"search", "test"}
    assert {item.question for item in questions} <= {item.question.strip() for item in bfcl.by_id().values()}
    assert all(w.question.startswith("Functions:\n") and w.id == q.id for w, q in zip(whole, questions, strict=True))


def test_no_training_item_holds_a_held_out_question() -> None:
    held_out = [item.question for item in bfcl.by_id().values() if item.split != "train"]
    kept = [*bfcl.items("train", calls=True), *bfcl.items("train", calls=False)]
    every = [item for item in bfcl.by_id().values() if item.split == "train"]
    assert not list(Questions(held_out).overlaps([item.question] for item in kept))
    removed = [item for item in every if item not in kept]
    assert 50 < len(removed) < 70 < len(every) // 10


@pytest.fixture
def planted(tmp_path: Path) -> str:
    """A dataset of five rows of which two hold items of the smoke tasks, as an override."""
    prompts = ["Spell the word lemon.", "Repeat the word window.", "Say it.", "Now:\nspell the word PLANET", "Go on."]
    rows = [{"prompt": prompt, "completion": "x"} for prompt in prompts]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return "+datasets.mine={kind: sft, source: mine.jsonl}"


def planned(folder: Path, *overrides: str) -> Plan:
    (folder / "mine.jsonl").write_text(json.dumps({"prompt": "Repeat the word window.", "completion": "x"}) + "\n")
    (folder / "away.yaml").write_text(AWAY)
    data = f"+datasets.mine={{kind: sft, source: {folder}/mine.jsonl}}"
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return make_plan(read(compose("config", ["+experiment=smoke", data, *overrides])))


def test_nothing_is_compared_where_the_user_says_so(tmp_path: Path) -> None:
    assert planned(tmp_path, "evaluation.overlap=off").findings == Findings()
    with pytest.raises(ConfigError, match="evaluation.overlap: got 'maybe'; allowed: refuse, warn, off"):
        planned(tmp_path, "evaluation.overlap=maybe")


def test_data_that_cannot_be_had_is_told_and_a_wrong_task_refused(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # the items are read in another process
    away = f"+tasks.away={{task: %s, metric: 'acc,none', folder: {tmp_path}}}"
    found = planned(tmp_path, away % "away", "~datasets.mine").findings
    assert len(found.warnings) == 1 and not found.leaks
    assert found.warnings[0].startswith("tasks.away: no training data was compared with its items: ")
    with pytest.raises(ConfigError, match="there is no lm-eval task 'astray'") as caught:
        planned(tmp_path, away % "astray")
    assert len(caught.value.faults) == 2  # the row is still found


def test_what_is_not_cached_is_fetched_from_a_hub_that_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package's own tasks read hub data sets, and say with a UserError that they are not cached."""

    def load(task: Task, split: str) -> Any:
        if datasets.config.HF_HUB_OFFLINE:
            raise UserError("not in the cache")
        return load_task(task, split)

    repeat = Task("repeat", "pico_repeat", "", folder="builtin", splits={"search": "search", "test": "test"})
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(evaluation_items, "load_task", load)
    monkeypatch.setattr(evaluation_items, "hub_answers", lambda: True)
    assert len(items(repeat)) == 20
    monkeypatch.setattr(evaluation_items, "hub_answers", lambda: False)
    with pytest.raises(UserError, match="not in the cache"):
        items(repeat)


def test_questions_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    repeat = Task("repeat", "pico_repeat", "", folder="builtin", splits={"search": "search"}, question="{{ nothing }}")
    with pytest.raises(UserError, match="tasks.repeat.question: '{{ nothing }}' is neither a column .* choices, label"):
        items(repeat)
    (tmp_path / "items.jsonl").write_text('{"asked": "What is this?"}\n')
    text = AWAY.replace("nobody-at-all/no-such-data", f"json\ndataset_kwargs: {{data_files: {tmp_path}/items.jsonl}}")
    text = text.replace("test_split: test", "test_split: train")
    (tmp_path / "odd.yaml").write_text(text)
    with pytest.raises(DataUnavailable, match="'question' is undefined"):
        items(Task("odd", "away", "", folder=str(tmp_path), splits={"search": "train"}))
    (tmp_path / "odd.yaml").write_text(text.replace("{{ question }}", "Say: {{ asked }}"))
    for given, told in (
        ("asked", "What is this?"),
        ("{{ asked | upper }}", "WHAT IS THIS?"),
        ("", "Say: What is this?"),
    ):
        task = Task("odd", "away", "", folder=str(tmp_path), splits={"search": "train"}, question=given)
        assert [item.question for item in items(task)] == [told]


@pytest.mark.slow
def test_planted_items_are_refused_with_their_names(planted: str, tmp_path: Path) -> None:
    code, said = lamdagent(tmp_path, "+experiment=smoke", planted, "budget.trials=0")
    assert code == 2 and "Traceback" not in said, said
    assert "2 faults" in said and "budget.trials" in said  # all at once
    assert "datasets.mine: 2 of 5 rows hold evaluation items" in said
    assert "row 1 (the whole question of repeat's search item 0: 'Repeat the word window.')" in said
    assert "row 3 (the whole question of spell's test item 0: 'Spell the word planet.')" in said
    assert "evaluation.overlap=warn" in said and not (tmp_path / "mlflow.db").exists()


@pytest.mark.slow
def test_a_search_that_goes_on_with_them_says_so(planted: str, tmp_path: Path) -> None:
    code, said = search(tmp_path, "+experiment=smoke", planted, "budget.trials=1", "evaluation.overlap=warn")
    assert code == 0 and "datasets.mine: 2 of 5 rows hold evaluation items: row 1" in said, said
    [run] = of_kind(runs_of(tmp_path, "lamdagent-smoke"), "search")
    words = "2 of 5 rows of mine (in repeat, spell)"
    assert words in tag(run, "overlap")
    folder = Path(client_of(tmp_path).download_artifacts(run.info.run_id, "", str(tmp_path)))
    assert words in (folder / "report.html").read_text()
    rows = json.loads((folder / "overlap.json").read_text())["rows"]
    assert [(row["row"], row["task"], row["split"], row["exact"]) for row in rows] == [
        (1, "repeat", "search", True),
        (3, "spell", "test", True),
    ]
