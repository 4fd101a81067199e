"""A folder of weights -> scores, by vLLM through lm-eval's own class for it: faster than transformers on a GPU."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lamdagent.evaluation.harness import run_with, scored
from lamdagent.evaluation.task import Score, Split, Task
from lamdagent.progress import Progress, Report


def evaluate_folder(
    folder: str, options: Mapping[str, Any], tasks: Sequence[Task], split: Split, report: Report, samples: Path
) -> dict[str, Score]:
    """Like `harness.evaluate`, of the model in `folder`; `options` go to vLLM as they are. It loads the model itself.

    Raises:
        ActionFailed: as `harness.evaluate` says, but NaN shows only in replies and scores.
        UserError: lm-eval has no such task, metric or split.
    """
    from lm_eval.models.vllm_causallms import VLLM

    found = {}
    lm = VLLM(pretrained=folder, **{"dtype": "auto", "batch_size": "auto", "trust_remote_code": False, **options})
    for task in tasks:
        say = partial(_say, report, task)
        say(0)
        chat = bool(getattr(lm.tokenizer, "chat_template", None))
        found[task.name] = scored(run_with(lm, task, split, chat), task, samples)
        say(1)
    return found


def _say(report: Report, task: Task, done: int) -> None:
    report(Progress(f"evaluate {task.name}", done, 1))
