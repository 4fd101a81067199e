"""The folder of plain commands: every step of a model's past in order, its data, the versions."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

from lamdagent.actions.action import Action, inputs_of, local_rows
from lamdagent.actions.context import Context, Gathering, Loaded, Step, chosen_rows
from lamdagent.actions.merge_methods import merges
from lamdagent.actions.merging import Merging, stored_dtype
from lamdagent.actions.methods import method_of
from lamdagent.actions.training import Training
from lamdagent.enumeration.fingerprint import fingerprint_of
from lamdagent.errors import UserError
from lamdagent.export.initial import initial
from lamdagent.export.part import Part, place
from lamdagent.export.steps import merging, training
from lamdagent.functions import load_function
from lamdagent.memory.lineage import ancestors, lineage_string
from lamdagent.memory.trial import History, Trial
from lamdagent.objects.dataset import Dataset
from lamdagent.objects.kinds import dataset_kind
from lamdagent.objects.model import Model
from lamdagent.planning.plan import Plan

Rows = Callable[[Dataset], str]
"""Dataset -> its local file."""


@dataclass(frozen=True)
class RecordingContext(Context):
    """A context in which nothing runs: the step that an action would do comes back in the model's place."""

    def perform(self, step: Step) -> Loaded:
        """Only keep it."""
        return step, None

    def gather(self, step: Gathering) -> tuple[Context, str]:
        """This context, unchanged, and no remark: the rows that were gathered are there, data like any other now."""
        return self, ""


def write(trial: Trial, history: History, plan: Plan, folder: Path, rows: Rows = local_rows) -> None:
    """Write README.md, rebuild.sh, requirements.txt, scripts, merge settings and training rows into `folder`.

    `sh rebuild.sh` then leaves every model of the trial's past in `models/<name>`, its own last. Reads the datasets and
    the initial models' config.json; no weights are needed. `rows`: dataset -> its local file. What an action has drawn
    from a model stands there as rows.

    Raises:
        UserError: a step is no action of this package, or its dataset, action type or initial model is not at hand as
            it was.
    """
    if trial.model is None or trial.action is None:
        raise UserError(f"The run {trial.run_id} made no model, so there is nothing to rebuild.")
    parts = list(_parts(trial, history, plan, rows))
    commands = "".join(f"\n# {part.comment}\n" + "".join(f"{line}\n" for line in part.commands) for part in parts)
    packages = sorted({name for part in parts for name in part.packages})
    texts = {name: text for part in parts for name, text in part.files.items()}
    texts["rebuild.sh"] = f'#!/bin/sh\nset -eu\ncd "$(dirname "$0")"\nmkdir -p models\n{commands}'
    texts["requirements.txt"] = "".join(f"{name}{_version(name)}\n" for name in packages)
    texts["README.md"] = (
        f"# {trial.model.name}\n\n"
        f"Made by `{lineage_string(trial.model, history)}`; run `{trial.run_id}` has scores and lineage.\n"
        f"`pip install -r requirements.txt && sh rebuild.sh` makes it again in `models/{trial.model.name}`.\n"
        "On the machine and with the versions that made it (`requirements.txt`), the weights come out the same; "
        "another kind of device or number of processes rounds differently.\n"
    )
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def _parts(trial: Trial, history: History, plan: Plan, rows: Rows) -> Iterator[Part]:
    assert trial.model is not None
    steps = list(ancestors(trial, history).items())
    dtypes: dict[str, str | None] = {}
    for count, (model, made) in enumerate([*steps, (trial.model, trial)], 1):
        number, action = f"{count:02}", made.action if made else None
        if made is None or action is None:
            dtypes[place(model)] = _dtype(model)
            yield initial(model, number)
            continue
        step, data = _step(action, made.dataset, plan, rows)
        first = step.model if isinstance(step, Training) else step.folders[0]
        dtype = dtypes[place(model)] = dtypes[first]  # every action keeps the precision
        if isinstance(step, Training):
            yield training(step, action, model, number, data)
        else:
            yield merging(step, action, model, number, dtype)


def _step(
    action: Action, gathered: Dataset | None, plan: Plan, rows: Rows
) -> tuple[Training | Merging, dict[str, str]]:
    """The action's step, with the places of its inputs, and the files of its training rows; `gathered`: its own."""
    kind = next((t for t in plan.types if t.name == action.type), None)
    if kind is None or not (method_of(kind.function) or merges(kind.function)):
        why = "this configuration does not have" if kind is None else f"is code of your own ({kind.function})"
        raise UserError(f"{action.describe()} cannot be written as plain commands: its type {why}.")
    expected = fingerprint_of(kind, action.objects, action.hyperparameters, action.seed, action.data_fraction)
    if expected != action.fingerprint:
        why = "its data or its type have changed since, or an input is in another experiment"
        raise UserError(f"{action.describe()} cannot be written as plain commands: {why}.")
    step, _ = load_function(kind.function)(RecordingContext(Path()), **inputs_of(action, kind, place, rows))
    if not isinstance(step, Training):
        return step, {}
    dataset, share = (gathered, 1.0) if gathered else (action.datasets[0], action.share)
    file = _rows_file(dataset, share, step.columns)
    return replace(step, dataset=file), {file: _lines(rows(dataset), share, step.every_column)}


def _rows_file(dataset: Dataset, fraction: float, columns: tuple[str, ...]) -> str:
    """Another one for other columns: steps that train on the same dataset may read unlike parts of it."""
    share = "" if fraction == 1 else f"-{fraction:g}"
    further = "".join(f"-{column}" for column in columns if column not in dataset_kind(dataset.kind).columns)
    return f"data/{re.sub(r'[^A-Za-z0-9_.-]', '_', f'{dataset.name}{share}{further}')}.jsonl"


def _lines(path: str, fraction: float, columns: tuple[str, ...]) -> str:
    """The rows that are trained on, in the order in which the trainer gets them."""
    rows = chosen_rows(path, fraction, columns)
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _dtype(model: Model) -> str | None:
    try:
        return stored_dtype(model.location)
    except OSError:
        missing = f"the initial model {model.name} is not at {model.location or 'hand: another experiment has it'}"
        raise UserError(f"Plain commands cannot be written: {missing}.") from None


def _version(package: str) -> str:
    """`==` and the version without a build's local label such as `+cpu`, which PyPI has none of; empty if not here."""
    try:
        return f"=={metadata.version(package).partition('+')[0]}"
    except metadata.PackageNotFoundError:
        return ""
