"""The backend `vllm`: vLLM through lm-eval's own class for it, faster than transformers on a GPU."""

from functools import partial

from lamdagent.evaluation.backends import Evaluation, ScoredModel
from lamdagent.evaluation.harness import run_with, scored
from lamdagent.evaluation.task import Item, Score, Task
from lamdagent.execution.progress import Progress, Report


class VLLM:
    """See `backends.Backend`."""

    def evaluate(self, model: ScoredModel, asked: Evaluation) -> dict[str, Score]:
        """Like `harness.evaluate`, of the weights in the model's folder; `asked.options` go to vLLM as they are.

        Raises:
            ActionFailed: as `harness.evaluate` says, but NaN shows only in replies and scores.
            UserError: lm-eval has no such task, metric or split.
        """
        from lm_eval.models.vllm_causallms import VLLM as LanguageModel

        _make_room(model)
        usual = {"dtype": "auto", "batch_size": "auto", "trust_remote_code": False}
        lm = LanguageModel(pretrained=str(model.folder), **(usual | dict(asked.options)))
        chat = bool(getattr(lm.tokenizer, "chat_template", None))
        found = {}
        for task in asked.tasks:
            say = partial(_say, asked.report, task)
            say(0)
            found[task.name] = scored(run_with(lm, task, asked.split, chat), task, asked.samples)
            say(1)
        return found

    def items(self, task: Task) -> list[Item]:
        """See `items.items`."""
        from lamdagent.evaluation.items import items

        return items(task)


def _make_room(model: ScoredModel) -> None:
    """Take the model off the GPU: vLLM reserves its share at once."""
    if model.loaded is None:
        return
    import torch

    model.loaded[0].cpu()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _say(report: Report, task: Task, done: int) -> None:
    report(Progress(f"evaluate {task.name}", done, 1))
