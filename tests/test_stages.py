"""Replies in stages are those of lm-eval's own wrapper: rows that end early, late and never, by words and by tokens."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lamdagent.evaluation import staged_decoding
from lamdagent.evaluation.task import Task

TASK = """
task: say
custom_dataset: !function items.load
test_split: test
output_type: generate_until
doc_to_text: "{{prompt}}"
doc_to_target: ""
generation_kwargs: {until: %s, max_gen_toks: %d, do_sample: false}
process_results: !function items.judge
metric_list:
  - {metric: long, aggregation: mean, higher_is_better: true}
"""
ITEMS = """
from datasets import Dataset

def load(**_):
    shared = "Repeat the word apple. Spell the word bridge. What is the first letter of cloud? "
    words = ["kettle", "pond", "a lamp and a harbour", "zebra", "ink", "the long road", "umbrella", "fog"]
    return {"test": Dataset.from_list([{"id": word, "prompt": %s + word} for word in words])}

def judge(doc, results):
    return {"long": float(len(results[0]))}
"""
MOST = 3 * staged_decoding.STAGE - 5


@pytest.fixture(scope="module")
def loaded(pico_folder: str) -> tuple[Any, Any]:
    """A pico model that says many different things."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(pico_folder, dtype="float32")
    torch.manual_seed(3)
    with torch.no_grad():
        for name, values in model.named_parameters():
            if values.ndim == 2:
                values.normal_(std=0.3 if "proj" in name else 1.0)
    return model.eval(), AutoTokenizer.from_pretrained(pico_folder)


@pytest.fixture
def ending(loaded: tuple[Any, Any]) -> Iterator[Any]:
    """The model's generation settings, as they were afterwards."""
    config = loaded[0].generation_config
    before = config.eos_token_id
    yield config
    config.eos_token_id = before


def task(folder: Path, stop: list[str], shared: str = "shared", most: int = MOST) -> Task:
    folder.mkdir()
    (folder / "say.yaml").write_text(TASK % (stop, most))
    (folder / "items.py").write_text(ITEMS % shared)
    return Task("say", "say", "long,none", folder=str(folder), splits={"test": ""})


def replies(results: Any) -> list[str]:
    return [sample["resps"][0][0] for sample in results["samples"]["say"]]


def both(loaded: tuple[Any, Any], asked: Task, batch_size: int = 8) -> tuple[list[str], list[str]]:
    """What lm-eval's own wrapper gives, and ours."""
    from lm_eval.models.huggingface import HFLM

    from lamdagent.evaluation.harness import run_task, run_with

    plain = HFLM(pretrained=loaded[0], tokenizer=loaded[1], batch_size=batch_size)
    theirs = run_with(plain, asked, "test", chat=True)
    return replies(theirs), replies(run_task(*loaded, asked, "test", lambda progress: None, batch_size))


def said(loaded: tuple[Any, Any], folder: Path) -> list[str]:
    """The replies where nothing stops them; so different that they end at different steps."""
    theirs, ours = both(loaded, task(folder, []))
    assert theirs == ours and len(set(theirs)) == len(theirs)
    return theirs


@pytest.mark.parametrize("shared", ["shared", "''"])
@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_nothing_stops_them(loaded: tuple[Any, Any], tmp_path: Path, batch_size: int, shared: str) -> None:
    theirs, ours = both(loaded, task(tmp_path / "task", [], shared), batch_size)
    assert ours == theirs and all(theirs)


def test_words_stop_them_at_different_steps(loaded: tuple[Any, Any], tmp_path: Path) -> None:
    free = said(loaded, tmp_path / "free")
    stop = [free[0][5:7], free[1][len(free[1]) // 2 :][:3], free[2][-2:]]
    theirs, ours = both(loaded, task(tmp_path / "task", stop))
    assert ours == theirs
    assert len({len(reply) for reply in theirs}) > 3 and theirs != free


def test_tokens_end_them_at_different_steps(loaded: tuple[Any, Any], tmp_path: Path, ending: Any) -> None:
    free = [loaded[1](reply)["input_ids"] for reply in said(loaded, tmp_path / "free")]
    ending.eos_token_id = [loaded[1].eos_token_id, free[0][4], free[1][len(free[1]) // 2], free[2][-3]]
    theirs, ours = both(loaded, task(tmp_path / "task", []))
    assert ours == theirs and len({len(reply) for reply in theirs}) > 3


def test_rows_leave_the_batch(loaded: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of a batch at the first token of each stage; those that have ended are not there any more."""
    free = said(loaded, tmp_path / "free")
    counts: list[int] = []
    make = staged_decoding._with_room

    def counted(model: Any, cache: Any, batch: int, most: int) -> Any:
        counts.append(batch)
        return make(model, cache, batch, most)

    monkeypatch.setattr(staged_decoding, "_with_room", counted)
    theirs, ours = both(loaded, task(tmp_path / "task", [free[0][3:5], free[1][3:5], free[2][3:5]]))
    assert ours == theirs
    assert counts[0] == 8 and len(counts) == 3 and counts[0] > counts[1] >= counts[2] > 0


def test_a_drawn_reply_is_left_to_lm_eval(loaded: tuple[Any, Any], tmp_path: Path) -> None:
    asked = dataclasses.replace(
        task(tmp_path / "task", []), options={"generation_kwargs": {"do_sample": True, "temperature": 1.0, "until": []}}
    )
    theirs, ours = both(loaded, asked)
    assert ours == theirs, "the same seed draws the same"
