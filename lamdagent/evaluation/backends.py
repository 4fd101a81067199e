"""Backends that score models: those of this package, and what one of your own has to have.

A backend need not be lm-eval: it may have items and scores of its own. See `Backend`.
"""

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from lamdagent.errors import UserError
from lamdagent.evaluation.task import Item, Score, Split, Task
from lamdagent.execution.progress import Report
from lamdagent.functions import check_call, load_function

KEY = "evaluation.backend"


@dataclass(frozen=True)
class ScoredModel:
    """The model that is scored."""

    folder: Path
    """Its weights, configuration and tokenizer, in Hugging Face layout."""
    loaded: tuple[Any, Any] | None = None
    """Model and tokenizer of transformers, where an action has just made them; None = nothing is in memory."""


@dataclass(frozen=True)
class Evaluation:
    """A request to a backend to score a model."""

    tasks: Sequence[Task]
    """At least one."""
    split: Split
    report: Report
    """Called with a `Progress` as often as the backend likes."""
    samples: Path
    """Folder for a file `<task>.jsonl` each, a line per item with its `id`, `prompt`, `reply` and `score`."""
    batch_size: int = 32
    """Sequences at once, as the user says."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the backend itself."""


class Backend(Protocol):
    """Scores models on tasks. One of your own is a class: `evaluation.backend=my_module:MyBackend`.

    An attribute `version` (a text, "1" if it is missing) is part of every task's fingerprint: change it when equal
    weights would get other scores, so that old and new ones are not compared.
    """

    def evaluate(self, model: ScoredModel, asked: Evaluation) -> dict[str, Score]:
        """The score of each task by its name, on the task's own scale.

        Raises:
            ActionFailed: kind `bad_model`: the model yields nothing that can be scored.
            UserError: a task is none that the backend has.
        """
        ...

    def items(self, task: Task) -> list[Item]:
        """The items of all of the task's splits, which training data is compared with; none = it is not compared.

        Raises:
            DataUnavailable: they cannot be had now.
            UserError: the task is none that the backend has.
        """
        ...


@dataclass(frozen=True)
class _Known:
    path: str
    """`module:Name` of its class."""
    package: str = ""
    """Package that must be installed for it."""
    advice: str = ""


BACKENDS: Mapping[str, _Known] = {
    "hf": _Known("lamdagent.evaluation.hf_backend:HF"),
    "vllm": _Known(
        "lamdagent.evaluation.vllm_backend:VLLM",
        "vllm",
        "vllm is not installed here; `pip install vllm` on a machine with a GPU, or take hf",
    ),
}
"""By what stands at `evaluation.backend`."""


def load_backend(name: str) -> Backend:
    """The backend of that name, or the one at `module:Name`.

    Raises:
        UserError: there is none, or it lacks a method.
    """
    if name in BACKENDS:
        return load_function(BACKENDS[name].path)()  # type: ignore[no-any-return]
    if ":" not in name:
        raise UserError(f"{KEY}: got {name!r}; allowed: {', '.join(BACKENDS)}, or module:Name of one of yours")
    found = load_function(name, KEY)
    for method, arguments in (("evaluate", ("model", "asked")), ("items", ("task",))):
        if not callable(getattr(found, method, None)):
            raise UserError(f"{KEY}: {name} has no method {method}({', '.join(arguments)})")
        check_call(getattr(found, method), KEY, "self", *arguments)
    check_call(found, KEY)
    return found()  # type: ignore[no-any-return]


def backend_faults(name: str) -> Iterator[str]:
    """Faults that keep the backend from being used here."""
    known = BACKENDS.get(name)
    if known and known.package and importlib.util.find_spec(known.package) is None:
        yield f"{KEY}: {known.advice}"
        return
    try:
        load_backend(name)
    except UserError as error:
        yield str(error)


def backend_version(name: str) -> str:
    """`version` of the user's backend; empty where it cannot be loaded, which `backend_faults` tells."""
    try:
        return str(getattr(load_backend(name), "version", "1"))
    except UserError:
        return ""
