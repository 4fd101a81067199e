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
from lamdagent.actions.networks import QUANTIZATION, last_layers, linear_layers, restored
from lamdagent.actions.recipe import Device, adapter, arguments
from lamdagent.actions.training import Training
from lamdagent.export.part import Part, place, title
from lamdagent.export.rewards import imported, sources
from lamdagent.objects.model import Model

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
    packages = (*PACKAGES, "bitsandbytes") if step.method.quantized else PACKAGES
    return Part(comment, (f"python {name}",), {**data, **sources(step.rewards), name: script}, packages)


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
    name, lora = step.method.title, bool(step.recipe.lora_rank)
    helpers: list[Callable[..., Any]] = [linear_layers, last_layers, restored] if lora else [restored]
    helpers += [step.to_trl] if step.to_trl else []
    functions = "\n\n".join(inspect.getsource(helper) for helper in helpers)
    peft = f"from peft import LoraConfig{', PeftModel' if step.method.quantized else ''}\n" if lora else ""
    bits = ", BitsAndBytesConfig" if step.method.quantized else ""
    arguments_of = arguments(step.recipe, seed, target, ANY_MACHINE, least=step.method.least)
    rows = f"{step.to_trl.__name__}(rows, {seed})" if step.to_trl else "rows"
    further = "".join(f"    {key}={value},\n" for key, value in _further(step).items())
    return f"""import copy
import json
{"import random" + chr(10) if step.to_trl else ""}from typing import Any

import torch
from datasets import Dataset
{peft}from transformers import AutoModelForCausalLM, AutoTokenizer{bits}
from {step.method.home} import {name}Config, {name}Trainer
{imported(step.rewards)}

{functions}

gpu = torch.cuda.is_available()
with open({step.dataset!r}, encoding="utf-8") as file:
    rows = [json.loads(line) for line in file]
tokenizer = AutoTokenizer.from_pretrained({step.model!r})
model = {_loaded(step.model)}
config, generation_config, dtype = copy.deepcopy(model.config), copy.deepcopy(model.generation_config), model.dtype
{_held(step)}
trainer = {name}Trainer(
    model=model,
    args={_call(f"{name}Config", {**arguments_of, **step.options})},
    train_dataset=Dataset.from_list({rows}),
    processing_class=tokenizer,
{further})
trainer.train()
trainer.state.save_to_json({f"{target}-trainer_state.json"!r})

{_made(step, target)}
restored(made, config, generation_config, dtype).save_pretrained({target!r})
AutoTokenizer.from_pretrained({step.model!r}).save_pretrained({target!r})
"""


def _loaded(folder: str, more: str = "") -> str:
    return f'AutoModelForCausalLM.from_pretrained({folder!r}, dtype="auto", use_safetensors=True{more})'


def _held(step: Training) -> str:
    """In which precision the weights are held while they, or adapters beside them, are trained."""
    if step.method.quantized:
        settings = _call("BitsAndBytesConfig", QUANTIZATION)
        place = '{"": torch.cuda.current_device() if gpu else "cpu"}'
        return f"bits = {settings}\nmodel = {_loaded(step.model, f', quantization_config=bits, device_map={place}')}\n"
    if step.recipe.lora_rank:
        return ""
    return "model.float()  # steps of a small learning rate vanish in bf16 weights\n"


def _further(step: Training) -> dict[str, str]:
    """Arguments that only some trainers take: name -> Python expression."""
    reference = {"ref_model": f"{_loaded(step.model)}.float().eval()"} if step.needs_reference else {}
    teacher = {"teacher_model": f"{_loaded(step.teacher)}.eval()"} if step.teacher else {}
    names = ", ".join(f"reward_{number}" for number, _ in enumerate(step.rewards, 1))
    rewards = {"reward_funcs": f"[{names}]"} if step.rewards else {}
    lora = {"peft_config": _lora(step)} if step.recipe.lora_rank else {}
    return lora | reference | teacher | rewards


def _made(step: Training, target: str) -> str:
    """The trained model as plain weights; an adapter learnt beside 4 bits is merged into the weights as they were."""
    if not step.method.quantized:
        return f"made = trainer.model{'.merge_and_unload()' if step.recipe.lora_rank else ''}"
    adapter_folder = f"{target}-adapter"
    return f"""trainer.model.save_pretrained({adapter_folder!r})
whole = {_loaded(step.model)}
made = PeftModel.from_pretrained(whole, {adapter_folder!r}).merge_and_unload()"""


def _lora(step: Training) -> str:
    layers = Expression(f"last_layers(model, {step.recipe.lora_layers})")
    return _call("LoraConfig", adapter(step.recipe, Expression("linear_layers(model)"), layers))


def _call(name: str, values: Mapping[str, Any]) -> str:
    return f"{name}(\n" + "".join(f"        {key}={value!r},\n" for key, value in values.items()) + "    )"
