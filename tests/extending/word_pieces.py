"""An evaluation backend that is not lm-eval: items of its own, and a score that a program gives."""

from collections.abc import Sequence
from typing import Any

from lamdagent.evaluation.backends import Evaluation, ScoredModel
from lamdagent.evaluation.task import Item, Score, Task
from lamdagent.execution.progress import Progress

WORDS = {"search": ("apple", "pear", "plum"), "test": ("cherry", "fig", "lime")}


class Known:
    """The share of words that the tokenizer needs fewer tokens for than letters: no lm-eval task behind it."""

    version = "1"

    def evaluate(self, model: ScoredModel, asked: Evaluation) -> dict[str, Score]:
        """One score for each task; none of them asks lm-eval."""
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(model.folder)
        found = [len(tokenizer(word)["input_ids"]) < len(word) for word in self._words(asked.split)]
        asked.report(Progress("evaluate", len(found), len(found)))
        mean = sum(found) / len(found)
        stderr = (mean * (1 - mean) / (len(found) - 1)) ** 0.5
        return {task.name: Score(mean, stderr) for task in asked.tasks}

    def items(self, task: Task) -> list[Item]:
        """What training rows are compared with."""
        return [Item(task.name, split, str(i), word) for split in WORDS for i, word in enumerate(WORDS[split])]

    def _words(self, split: Any) -> Sequence[str]:
        return WORDS[split]
