"""`mlflow.data.from_lm_eval`: lm-eval tasks as a dataset of MLflow, so that scores say what they were measured on."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import pandas as pd
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.dataset import Dataset
from mlflow.data.evaluation_dataset import EvaluationDataset
from mlflow.data.pyfunc_dataset_mixin import PyFuncConvertibleDatasetMixin, PyFuncInputsOutputs

from lamdagent.evaluation.fingerprint import task_fingerprint
from lamdagent.evaluation.task import Task

COLUMNS = ("task", "folder", "split", "limit")
"""Of the table that stands for the tasks: one row each."""


class LmEvalDataset(Dataset, PyFuncConvertibleDatasetMixin):  # type: ignore[misc]
    """Some lm-eval tasks, of one split, cut to the first `limit` items. Its digest changes with tasks and lm-eval."""

    def __init__(self, tasks: Sequence[Task], name: str | None = None, digest: str | None = None) -> None:
        """`tasks` as `make_tasks` gives them."""
        self.tasks = tuple(tasks)
        names = ", ".join(task.task for task in tasks)
        source = CodeDatasetSource({"mlflow.source.name": "lm-eval", "mlflow.source.type": "LOCAL"})
        super().__init__(source, name or names[:200], digest)

    def _compute_digest(self) -> str:
        parts = [task_fingerprint(task) for task in self.tasks]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    @property
    def profile(self) -> dict[str, Any]:
        """One row for each task."""
        return {"tasks": self.table().to_dict(orient="records")}

    @property
    def schema(self) -> None:
        """None: lm-eval's tasks have no common columns."""
        return None

    def to_dict(self) -> dict[str, str]:
        """As MLflow stores it."""
        return {**super().to_dict(), "schema": "", "profile": json.dumps(self.profile)}

    def table(self) -> "pd.DataFrame":
        """The tasks as rows of COLUMNS; `tasks_of_table` reads them."""
        rows = [(task.task, task.folder, task.splits["test"], task.limits.get("test", 0)) for task in self.tasks]
        return pd.DataFrame(rows, columns=list(COLUMNS))

    def to_pyfunc(self) -> PyFuncInputsOutputs:
        """The table: lm-eval makes the prompts, no row is a model's input."""
        return PyFuncInputsOutputs(inputs=[self.table()])

    def to_evaluation_dataset(self, path: Any = None, feature_names: Any = None) -> EvaluationDataset:
        """What `mlflow.models.evaluate` hands to its evaluators."""
        table = self.table()
        return EvaluationDataset(table, path=path, feature_names=feature_names, name=self.name, digest=self.digest)


def from_lm_eval(
    tasks: Sequence[str] | str,
    *,
    folder: str = "",
    split: str = "",
    limit: int | None = None,
    name: str | None = None,
    digest: str | None = None,
) -> LmEvalDataset:
    """A dataset for `mlflow.models.evaluate(data=..., model_type="lm-eval", evaluators="lm-eval")`.

    Args:
        tasks: lm-eval's task names.
        folder: Where their YAML is: a folder, `builtin` for the tasks of this package, empty for lm-eval's own.
        split: The dataset split to score; empty: the one that each task names.
        limit: Most items of each task; always the same ones.
        name: Shown in MLflow; by default the names of the tasks.
        digest: By default of the tasks' files and settings and of lm-eval's version.

    Raises:
        UserError: the folder does not exist.
    """
    return LmEvalDataset(make_tasks([tasks] if isinstance(tasks, str) else tasks, folder, split, limit), name, digest)


def make_tasks(names: Sequence[str], folder: str = "", split: str = "", limit: int | None = None) -> list[Task]:
    """Tasks without metric or weight: everything that lm-eval measures is wanted."""
    limits = {"test": int(limit)} if limit else {}
    return [Task(name, name, "", folder=folder, splits={"test": split}, limits=limits) for name in names]


def tasks_of_table(table: "pd.DataFrame") -> list[Task]:
    """The tasks of `LmEvalDataset.table`; none for any other table."""
    if tuple(table.columns) != COLUMNS:
        return []
    return [task for row in table.itertuples() for task in make_tasks([row.task], row.folder, row.split, row.limit)]
