"""`mlflow.models.evaluate(..., evaluators="lm-eval")`: lm-eval's figures, on run, model and dataset.

    data = mlflow.data.from_lm_eval(["arc_easy", "piqa"], limit=200)
    mlflow.models.evaluate("models:/mine@champion", data, model_type="lm-eval", evaluators="lm-eval")

Scores are those of a search: the same code measures them, with the chat template where the tokenizer has one.
MLflow imports this module with `mlflow.models`, so that nothing heavy may be imported here.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
from mlflow.models.evaluation.base import EvaluationResult, ModelEvaluator

MODEL_TYPE = "lm-eval"
BATCH_SIZE = 32


class LmEvalEvaluator(ModelEvaluator):  # type: ignore[misc]
    """Answers only to `model_type="lm-eval"`: MLflow asks every evaluator about every evaluation.

    `evaluator_config`, all optional: `tasks`, `folder`, `split`, `limit` as in `mlflow.data.from_lm_eval`, for data
    that does not come from there; `model`, a local folder in Hugging Face layout or an MLflow URI, where no `model` is
    given to `evaluate` (with `model_id` its scores hang on that model); `batch_size`.
    """

    @classmethod
    def can_evaluate(cls, *, model_type: str, evaluator_config: Mapping[str, Any], **kwargs: Any) -> bool:
        """True for `lm-eval` and nothing else."""
        return model_type == MODEL_TYPE

    def evaluate(
        self,
        *,
        model_type: str,
        dataset: Any,
        run_id: str,
        evaluator_config: Mapping[str, Any] | None,
        model: Any = None,
        model_id: str | None = None,
        **kwargs: Any,
    ) -> EvaluationResult:
        """Every metric of every task as `<task>.<metric>`, with `.<filter>` where there is one, and `_stderr`.

        Raises:
            UserError: no task or no model is named, or lm-eval has no such task or split.
            ActionFailed: the model cannot be loaded, or yields no numbers.
        """
        from lamdagent.actions.context import ignore_progress
        from lamdagent.evaluation.harness import run_task
        from lamdagent.libraries import known_warnings_ignored

        config = dict(evaluator_config or {})
        tasks = _tasks(dataset, config)
        with known_warnings_ignored():
            loaded, tokenizer = _load(model, model_id, config)
            loaded.eval()
            metrics: dict[str, float] = {}
            for task in tasks:
                size = int(config.get("batch_size", BATCH_SIZE))
                found = run_task(loaded, tokenizer, task, "test", ignore_progress, size)["results"]
                for name, figures in found.items():
                    metrics |= named(name, figures) if name != "lamdagent" else {}
        if model_id is None:  # with one, MLflow does it; a model loaded through an alias has one that MLflow misses
            measured = dataset if dataset.digest else None
            mlflow.log_metrics(metrics, run_id=run_id, model_id=getattr(model, "model_id", None), dataset=measured)
        return EvaluationResult(metrics=metrics, artifacts={}, run_id=run_id)


def named(task: str, figures: Mapping[str, Any]) -> dict[str, float]:
    """lm-eval's `metric,filter` and `metric_stderr,filter` under names that MLflow allows."""
    found = {}
    for key, value in figures.items():
        metric, comma, kind = key.partition(",")
        if not comma or not isinstance(value, int | float):
            continue
        plain, stderr, _ = metric.partition("_stderr")
        parts = [task, plain] if kind == "none" else [task, plain, kind]
        found[re.sub(r"[^\w./ -]", "_", ".".join(parts) + stderr)] = float(value)
    return found


def _tasks(dataset: Any, config: Mapping[str, Any]) -> Any:
    from lamdagent.errors import UserError
    from mlflow_plugin.evaluation_data import make_tasks, tasks_of_table

    names = config.get("tasks") or []
    given = {key: config[key] for key in ("folder", "split", "limit") if key in config}
    tasks = make_tasks([names] if isinstance(names, str) else names, **given)
    tasks = tasks or tasks_of_table(dataset.features_data)
    if not tasks:
        raise UserError(
            "No task was named for the evaluator `lm-eval`. Give data=mlflow.data.from_lm_eval([...]), "
            'or evaluator_config={"tasks": [...]} with names from `lm_eval ls tasks`.'
        )
    return tasks


def _load(model: Any, model_id: str | None, config: Mapping[str, Any]) -> tuple[Any, Any]:
    """The transformers model and its tokenizer: the given pyfunc's own, or those that `model` or `model_id` names."""
    from lamdagent.actions.context import Context
    from lamdagent.errors import UserError
    from lamdagent.tracking.schema import WEIGHTS
    from lamdagent.tracking.weights import download_model

    pipeline = model.get_raw_model() if hasattr(model, "get_raw_model") else None
    if hasattr(pipeline, "tokenizer") and hasattr(pipeline, "model"):
        return pipeline.model, pipeline.tokenizer
    source = str(config.get("model", ""))
    if not source and model_id:
        source = mlflow.get_logged_model(model_id).tags.get(WEIGHTS, "")
    if model is not None or not source:
        raise UserError(
            "The evaluator `lm-eval` needs a model of the transformers flavour with its tokenizer, the `model_id` of a "
            'model that a search made, or model=None with evaluator_config={"model": <local folder or MLflow URI>}.'
        )
    folder = download_model(source, mlflow.get_tracking_uri()) if re.match("(runs|models):/", source) else source
    return Context(output=Path(folder)).load(folder)
