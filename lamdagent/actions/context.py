"""Context that every action function is given: where to write, how to load, which rows, which seed."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from lamdagent.errors import ActionFailed
from lamdagent.execution.progress import Progress, Report
from lamdagent.libraries import quiet
from lamdagent.objects.gathered import ABOUT, ROWS, Gathered, unchecked
from lamdagent.objects.rows import as_text, store_rows

Loaded = tuple[Any, Any]
"""(model, tokenizer), the transformers objects: what an action function returns."""

SUBSET = "lamdagent-subset-1"
"""Salt of the order that `data_fraction` cuts; another one would draw other subsets."""


def ignore_progress(progress: Progress) -> None:
    """The report of a caller who does not care."""


class Step(Protocol):
    """An action's work as a value: it can be run here, or written down as plain commands (see rebuild/)."""

    def run(self, context: "Context") -> Loaded:
        """Do it."""
        ...


class Gathering(Protocol):
    """Work that makes a dataset, as a value."""

    def run(self, context: "Context") -> Gathered:
        """Do it."""
        ...


@dataclass(frozen=True)
class Context:
    """The first argument of every action function; the rest are the action's slots and hyperparameters."""

    output: Path
    """Folder of the new model. An action may write it itself; else what it returns is saved there after it."""
    seed: int = 0
    """For every random choice of the action."""
    data_fraction: float = 1.0
    """Share of each dataset to use, (0, 1]."""
    report: Report = ignore_progress
    """Called with a `Progress` as often as the action likes."""
    adapter: Path | None = None
    """Folder where a LoRA training leaves its adapter besides the merged weights; None = nowhere."""
    data: Path | None = None
    """Folder where an action leaves a dataset that it has made besides the model; None = nowhere."""
    accelerate: Mapping[str, Any] = field(default_factory=dict)
    """accelerate's launch configuration, complete, for trainings over several processes; empty = in this one."""
    processes: int = 1
    """How many processes run this same step together; this is one of them."""
    check: Callable[[Gathered], str] = unchecked
    """Asked about rows that an action has made before they are used: a line that stays with them, or ActionFailed."""

    def perform(self, step: Step) -> Loaded:
        """Run `step` now. A context that only takes notes would keep it instead."""
        return step.run(self)

    def gather(self, step: "Gathering") -> tuple["Context", str]:
        """Make a dataset now: the context in which all of it is used, whatever `data_fraction`, and its file.

        A context that only takes notes has the dataset already.

        Raises:
            ActionFailed: as `step.run` and `check` say.
        """
        made = step.run(self)
        overlap = self.check(made)
        text = as_text(made.rows)
        if self.data:
            self.data.mkdir(parents=True, exist_ok=True)
            (self.data / ROWS).write_text(text, encoding="utf-8")
            (self.data / ABOUT).write_text(json.dumps(made.about() | {"overlap": overlap}), encoding="utf-8")
        return replace(self, data_fraction=1.0), str(store_rows(text))

    def load(self, folder: str) -> Loaded:
        """Model (weights in the precision in which they are stored) and tokenizer of a local folder.

        Raises:
            ActionFailed: there is no readable safetensors model in it.
        """
        from transformers import AutoModelForCausalLM

        quiet()
        safely: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False, "use_safetensors": True}
        try:
            return AutoModelForCausalLM.from_pretrained(folder, dtype="auto", **safely), self.tokenizer(folder)
        except (OSError, ValueError) as error:
            raise ActionFailed(f"The model in {folder} cannot be loaded: {error}", kind="bad_model") from error

    def tokenizer(self, folder: str) -> Any:
        """The tokenizer of a local folder, chat template included."""
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)

    def rows(self, path: str, columns: Sequence[str] = ()) -> Any:
        """A `datasets.Dataset` of what `chosen_rows` gives for this context's `data_fraction`."""
        from datasets import Dataset

        return Dataset.from_list(chosen_rows(path, self.data_fraction, columns))


def chosen_rows(path: str, fraction: float, columns: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The JSONL file's rows in training order, cut to `fraction`, at least 1; with `columns` only those.

    The subset is stable and nested: the rows of 10 % are among those of 20 %, whatever the order of the file.

    Raises:
        ActionFailed: the file has no rows.
    """
    with Path(path).open(encoding="utf-8") as file:
        found = [json.loads(line) for line in file if line.strip()]
    if not found:
        raise ActionFailed(f"The dataset {path} has no rows.", kind="bad_data")
    kept = sorted(found, key=_rank)[: max(1, round(fraction * len(found)))]
    return [{k: row[k] for k in columns if k in row} for row in kept] if columns else kept


def _rank(row: dict[str, Any]) -> str:
    return hashlib.sha256((SUBSET + json.dumps(row, sort_keys=True)).encode()).hexdigest()
