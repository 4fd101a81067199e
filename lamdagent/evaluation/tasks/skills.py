"""What the YAML files of the paper's experiments refer to: items by split, judgement. lm-eval calls these functions.

`source` is a hub id or a local folder; set it with `tasks.NAME.options.dataset_kwargs.source`.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

from lamdagent.skills import commonsense_qa as commonsense
from lamdagent.skills import gsm8k as mathematics
from lamdagent.skills import trivia_qa as trivia
from lamdagent.skills.folding import fold
from lamdagent.skills.hub import load, split_of
from lamdagent.skills.skill import evaluation
from lamdagent.tooluse.prompt import EXAMPLES, SYSTEM

IFEVAL = ("key", "prompt", "instruction_id_list", "kwargs")


def gsm8k(source: str = mathematics.SKILL.source, **_: Any) -> Any:
    """GSM8K's official test items in two halves."""
    return evaluation(mathematics.SKILL, source)


def commonsense_qa(source: str = commonsense.SKILL.source, **_: Any) -> Any:
    """CommonsenseQA's official validation items in two halves."""
    return evaluation(commonsense.SKILL, source)


def trivia_qa(source: str = trivia.SKILL.source, **_: Any) -> Any:
    """TriviaQA's official validation items in two halves."""
    return evaluation(trivia.SKILL, source)


def ifeval(source: str = "google/IFEval", **_: Any) -> Any:
    """IFEval's items, which are all in one split called train, in two halves."""
    return _ifeval(source)


@cache
def _ifeval(source: str) -> Any:
    from datasets import Dataset

    rows = load(source, None, "train", IFEVAL)
    return {s: Dataset.from_list([r for r in rows if split_of(r["prompt"]) == s]) for s in ("search", "test")}


def judge_number(doc: dict[str, Any], results: Sequence[str]) -> dict[str, float | str]:
    """1 for the right number."""
    found = mathematics.number(results[0])
    right = found is not None and found == mathematics.number(doc["target"])
    return {"right": float(right), "reason": "right" if right else "no number" if found is None else "other number"}


def judge_trivia(doc: dict[str, Any], results: Sequence[str]) -> dict[str, float]:
    """1 for one of the answer's names."""
    return {"right": float(trivia.right(results[0], doc["answer"]))}


def judge_ifeval(doc: dict[str, Any], results: Sequence[str]) -> dict[str, float]:
    """1 for a reply that meets all instructions, by lm-eval's own checkers."""
    from lm_eval.tasks.ifeval.utils import process_results

    verdict = process_results(doc, results)
    return {name: float(verdict[name]) for name in ("prompt_level_strict_acc", "prompt_level_loose_acc")}


def folded_examples() -> list[dict[str, Any]]:
    """The worked examples of tool use, the system message at the top of the first."""
    asked = [fold([{"role": "system", "content": SYSTEM}, {"role": "user", "content": EXAMPLES[0][0]}])[0]["content"]]
    asked += [question for question, _ in EXAMPLES[1:]]
    return [{"id": "", "prompt": q, "target": a} for q, (_, a) in zip(asked, EXAMPLES, strict=True)]
