"""Trainings as Python scripts, merges as mergekit's YAML.

They say what the actions do with the actions' own words: arguments, merge settings and small functions come from
`actions/`, as values or as source text, never from a second copy.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import yaml

from lamdagent.actions.action import Action
from lamdagent.actions.merging import NOT_WEIGHTS, OPTIONS, Merging
from lamdagent.actions.training import Device, Training, adapter, arguments, last_layers, linear_layers, restored
from lamdagent.objects.model import Model
from lamdagent.rebuild.part import Part, place, title

PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets")


class Expression(str):
    """Python source that stands in a script where the action has a value."""

    __repr__ = str.__str__


ANY_MACHINE = Device(Expression("gpu"), Expression("not gpu"), Expression("gpu and torch.cuda.is_bf16_supported()"))


def training(step: Training, action: Action, model: Model, number: str, data: Mapping[str, str]) -> Part:
    """A script that does what `Training.run` does; `data` are the files of its rows."""
    name = f"{number}_{action.type}.py"
    comment = title(model, action.describe())
    if action.processes > 1:
        comment += f", made by {action.processes} processes; one takes the same rows per step and rounds differently"
    script = f"# {comment}\n{_script(step, place(model), action.seed)}"
    return Part(comment, (f"python {name}",), {**data, name: script}, PACKAGES)


def merging(step: Merging, action: Action, model: Model, number: str, dtype: str | None) -> Part:
    """Mergekit's own command, then what stands beside the weights: mergekit would take it from any of the models."""
    name = f"{number}_{action.type}.yaml"
    comment, target = title(model, action.describe()), place(model)
    options = " ".join(["--random-seed", str(action.seed), *(_option(key, value) for key, value in OPTIONS.items())])
    endings = " -o ".join(f"-name '*{ending}'" for ending in NOT_WEIGHTS)
    found = f"find {step.folders[0]} -maxdepth 1 -type f ! -name '*.index.json' \\( {endings} \\)"
    commands = (f"mergekit-yaml {name} {target} {options}", f"{found} -exec cp {{}} {target}/ \\;")
    settings = f"# {comment}\n{yaml.safe_dump(step.configuration(dtype), sort_keys=False)}"
    return Part(comment, commands, {name: settings}, ("torch", "transformers", "mergekit"))


def _option(key: str, value: Any) -> str:
    """One of mergekit's options as it stands on a command line."""
    flag = key.replace("_", "-")
    if isinstance(value, bool):
        return f"--{flag}" if value else f"--no-{flag}"
    return f"--{flag} {value}"


def _script(step: Training, target: str, seed: int) -> str:
    lora = bool(step.recipe.lora_rank)
    helpers: list[Callable[..., Any]] = [linear_layers, last_layers, restored] if lora else [restored]
    functions = "\n\n".join(inspect.getsource(helper) for helper in helpers)
    load = f'AutoModelForCausalLM.from_pretrained({step.model!r}, dtype="auto", use_safetensors=True)'
    raised = "" if lora else "model.float()  # steps of a small learning rate vanish in bf16 weights\n"
    peft = "from peft import LoraConfig\n" if lora else ""
    adapted = f"    peft_config={_lora(step)},\n" if lora else ""
    reference = f"    ref_model={load}.float().eval(),\n" if step.needs_reference else ""
    return f"""import copy
import json
from typing import Any

import torch
from datasets import Dataset
{peft}from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import {step.method}Config, {step.method}Trainer


{functions}

gpu = torch.cuda.is_available()
with open({step.dataset!r}, encoding="utf-8") as file:
    rows = [json.loads(line) for line in file]
tokenizer = AutoTokenizer.from_pretrained({step.model!r})
model = {load}
config, generation_config, dtype = copy.deepcopy(model.config), copy.deepcopy(model.generation_config), model.dtype
{raised}
trainer = {step.method}Trainer(
    model=model,
    args={_call(f"{step.method}Config", {**arguments(step.recipe, seed, target, ANY_MACHINE), **step.options})},
    train_dataset=Dataset.from_list(rows),
    processing_class=tokenizer,
{adapted}{reference})
trainer.train()

made = trainer.model{".merge_and_unload()" if lora else ""}
restored(made, config, generation_config, dtype).save_pretrained({target!r})
AutoTokenizer.from_pretrained({step.model!r}).save_pretrained({target!r})
"""


def _lora(step: Training) -> str:
    layers = Expression(f"last_layers(model, {step.recipe.lora_layers})")
    return _call("LoraConfig", adapter(step.recipe, Expression("linear_layers(model)"), layers))


def _call(name: str, values: Mapping[str, Any]) -> str:
    return f"{name}(\n" + "".join(f"        {key}={value!r},\n" for key, value in values.items()) + "    )"
