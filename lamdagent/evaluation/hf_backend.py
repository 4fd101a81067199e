"""The backend `hf`: lm-eval on transformers, with the model that is in memory already where there is one."""

from lamdagent.actions.context import Context
from lamdagent.errors import ActionFailed
from lamdagent.evaluation.backends import Evaluation, ScoredModel
from lamdagent.evaluation.task import Item, Score, Task
from lamdagent.execution.call import explain


class HF:
    """See `backends.Backend`."""

    def evaluate(self, model: ScoredModel, asked: Evaluation) -> dict[str, Score]:
        """See `harness.evaluate`."""
        from lamdagent.evaluation.harness import evaluate

        loaded = model.loaded or Context(output=model.folder).load(str(model.folder))
        try:
            return evaluate(*loaded, asked.tasks, asked.split, asked.report, asked.samples, asked.batch_size)
        except Exception as error:
            reason, kind = explain(error)
            if kind != "out_of_memory":
                raise
            advice = f"use a smaller evaluation.batch_size than {asked.batch_size}"
            raise ActionFailed(f"the evaluation ran out of memory: {advice} ({reason})", kind) from error

    def items(self, task: Task) -> list[Item]:
        """See `items.items`."""
        from lamdagent.evaluation.items import items

        return items(task)
