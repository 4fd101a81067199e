#!/usr/bin/env python
"""Our actions against plain TRL, mergekit and lm-eval on a randomly initialised model: tokens/s, peak memory, seconds.

    .venv/bin/python scripts/bench/bench_gpu.py                              # 1.1B on a GPU, pico where there is none
    .venv/bin/python scripts/bench/bench_gpu.py --size pico --device cpu --only sft merge

Each step runs twice per pair, once by the package's own action and once by a hand-written call with the library's
defaults: same model, rows, batch, rows at once, steps, learning rate and adapter. Every run is a process of its own
(its peak is its own), and pairs alternate who goes first. A ratio is ours / plain: the median over pairs, with the
lowest and the highest. `tokens/s`: training, all tokens of the rows (GRPO: generated ones) over the seconds inside
`train`; evaluation, tokens of the replies over all seconds. `seconds`: from the weights on disk to the new ones on
disk, or to the scores; imports are not in it. `peak GB`: torch's on a GPU, the whole process's on a CPU. A step that
fails says why and the others go on. The last line is one JSON object with the figures.
"""

import argparse
import importlib
import importlib.util
import json
import math
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lamdagent.actions.context import ignore_progress
from lamdagent.devices import gpu_memory

SHAPES: dict[str, dict[str, int]] = {
    "1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "vocab_size": 49152}
    | {"num_attention_heads": 32, "num_key_value_heads": 8},
    "pico": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "vocab_size": 2048}
    | {"num_attention_heads": 4, "num_key_value_heads": 2},
}
"""Arguments of LlamaConfig; the first has 1.07B parameters."""
DEFAULTS: dict[str, dict[str, int]] = {
    "1b": {"steps": 20, "batch": 16, "micro": 4, "tokens": 1024, "generations": 8, "reply": 128, "items": 64},
    "pico": {"steps": 4, "batch": 4, "micro": 2, "tokens": 64, "generations": 2, "reply": 8, "items": 8},
}
RATE, RANK, ALPHA = 1e-5, 16, 32
SIDES = ("ours", "plain")
FIGURES = ("tokens_per_second", "memory_gb", "seconds")
SPECIAL = ("<unk>", "<|endoftext|>", "<|im_start|>", "<|im_end|>")
TASKS = Path(__file__).parents[2] / "lamdagent" / "evaluation" / "tasks"
VLLM = {"gpu_memory_utilization": 0.8, "max_model_len": 2048}
HAS_VLLM = importlib.util.find_spec("vllm") is not None

generated = [0]
"""Tokens that `length` has seen."""


@dataclass(frozen=True)
class Setting:
    """What both sides are told."""

    folder: str
    """With the models `base` and `other` and a file of rows per kind of dataset."""
    shape: str
    cuda: bool
    steps: int
    batch: int
    """Rows per optimizer step."""
    micro: int
    """Rows at once."""
    tokens: int
    """Of the longest row."""
    generations: int
    """GRPO: answers to each prompt."""
    reply: int
    """Tokens of an answer."""
    items: int
    """Of the evaluation."""

    def place(self, name: str) -> Path:
        """A model or a file of rows."""
        return Path(self.folder) / name


@dataclass(frozen=True)
class Training:
    """One training, by the name of its action and by that of its trainer."""

    function: str
    method: str
    rows: str
    """Kind of its dataset."""
    rank: int = RANK


TRAININGS = {
    "sft": Training("lamdagent.actions.sft:sft", "SFT", "sft", 0),
    "sft_lora": Training("lamdagent.actions.sft:sft", "SFT", "sft"),
    "sft_packed": Training("lamdagent.actions.sft:sft_packed", "SFT", "sft"),
    "dpo": Training("lamdagent.actions.preference:dpo", "DPO", "preference"),
    "grpo": Training("lamdagent.actions.reinforcement:grpo", "GRPO", "prompts"),
}
STEPS = (*TRAININGS, "merge", "evaluation", *(["evaluation_vllm"] if HAS_VLLM else []))
LIBRARIES = {"merge": ("mergekit.merge",), "evaluation": (), "evaluation_vllm": ("lm_eval.models.vllm_causallms",)}
"""What a step imports, besides what all do."""
ALWAYS = (
    "lamdagent.worker.make",
    "lamdagent.evaluation.harness",
    "lamdagent.actions.merging",
    "lm_eval.evaluator",
    "lm_eval.models.huggingface",
)


# --- what is worked on -----------------------------------------------------------------------------------------------


def prepare(setting: Setting) -> dict[str, Any]:
    """Write models and rows; what the parent, which imports no torch, has to know."""
    import torch

    if setting.cuda and not torch.cuda.is_available():
        raise RuntimeError("torch finds no GPU here; is it the CPU build?")
    tokenizer = _tokenizer(SHAPES[setting.shape]["vocab_size"])
    parameters = [_model(tokenizer, setting, name, seed) for seed, name in enumerate(("base", "other"))][0]
    counts = {}
    for kind, rows in _rows(setting).items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        setting.place(kind).write_text(text, encoding="utf-8")
        counts[kind] = sum(_length(tokenizer, row) for row in rows)
    device = torch.cuda.get_device_name() if setting.cuda else f"CPU, {torch.get_num_threads()} threads"
    return {"device": device, "parameters": parameters, "tokens": counts, "versions": _versions()}


def _model(tokenizer: Any, setting: Setting, name: str, seed: int) -> int:
    """Write an untrained Llama in bf16; its number of parameters."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    special = {key: getattr(tokenizer, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    settings: dict[str, Any] = {**SHAPES[setting.shape], **special}
    torch.manual_seed(seed)
    config = LlamaConfig(max_position_embeddings=4096, tie_word_embeddings=True, **settings)
    model: Any = LlamaForCausalLM(config)
    model.to(torch.bfloat16).save_pretrained(setting.place(name))
    tokenizer.save_pretrained(setting.place(name))
    return int(model.num_parameters())


def _tokenizer(vocabulary: int) -> Any:
    """One token per word, as many words as the model has rows: texts and tokens say the same."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from lamdagent.pico import CHAT_TEMPLATE

    names = [*SPECIAL, "user", "assistant"]
    names += [f"w{number}" for number in range(vocabulary - len(names))]
    tokenizer = Tokenizer(models.WordLevel({name: number for number, name in enumerate(names)}, unk_token=SPECIAL[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    wrap: Any = PreTrainedTokenizerFast
    special = dict(zip(("unk_token", "pad_token", "bos_token", "eos_token"), SPECIAL, strict=True))
    return wrap(tokenizer_object=tokenizer, chat_template=CHAT_TEMPLATE, **special)


def _rows(setting: Setting) -> dict[str, list[dict[str, Any]]]:
    """Every kind of row, each read once in a training; lengths are spread evenly from a quarter of the most."""
    draw = random.Random(0)
    words = SHAPES[setting.shape]["vocab_size"] - 100

    def say(role: str, share: float) -> list[dict[str, str]]:
        length = max(1, round(share * (setting.tokens - 16)))  # the chat template takes the rest
        return [{"role": role, "content": " ".join(f"w{draw.randrange(words)}" for _ in range(length))}]

    count = setting.steps * setting.batch
    shares = [draw.uniform(0.25, 1.0) / 2 for _ in range(count)]
    prompts = [say("user", share) for share in shares]
    replies = [[say("assistant", share) for share in shares] for _ in range(2)]
    return {
        "sft": [{"prompt": p, "completion": c} for p, c in zip(prompts, replies[0], strict=True)],
        "preference": [{"prompt": p, "chosen": c, "rejected": r} for p, c, r in zip(prompts, *replies, strict=True)],
        "prompts": [{"prompt": p} for p in prompts[: count // setting.generations]],
    }


def _length(tokenizer: Any, row: Mapping[str, Any]) -> int:
    """Tokens that a trainer reads of a row: each of its answers behind the prompt."""
    answers = [row[key] for key in ("completion", "chosen", "rejected") if key in row]
    texts = [tokenizer.apply_chat_template(row["prompt"] + answer, tokenize=False) for answer in answers]
    return sum(len(tokenizer(text)["input_ids"]) for text in texts)


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "transformers", "trl", "peft", "mergekit", "lm-eval")}


def length(completion_ids: list[list[int]], **_: Any) -> list[float]:
    """GRPO's reward: few different tokens are better. Counts what was generated, on both sides."""
    generated[0] += sum(map(len, completion_ids))
    return [-float(len(set(ids))) for ids in completion_ids]


# --- ours ------------------------------------------------------------------------------------------------------------


def ours(name: str, setting: Setting, packs: int, output: Path) -> int:
    """One step by the package's own job; tokens of the replies of an evaluation."""
    if name in TRAININGS:
        step = TRAININGS[name]
        _make(step.function, _inputs(name, step, setting, packs), output)
    elif name == "merge":
        models = [str(setting.place(model)) for model in ("base", "other")]
        _make("lamdagent.actions.merging:merge", {"models": models, "method": "linear"}, output)
    else:
        return _ours_evaluated(setting, output, VLLM if name == "evaluation_vllm" else None)
    return 0


def _make(function: str, inputs: Mapping[str, Any], output: Path) -> None:
    from lamdagent.worker.make import make

    rest: dict[str, Any] = {"seed": 0, "data_fraction": 1.0, "tasks": (), "batch_size": 1, "output": str(output)}
    make(ignore_progress, run_id="bench", function=function, inputs=inputs, **rest)


def _inputs(name: str, step: Training, setting: Setting, packs: int) -> dict[str, Any]:
    found: dict[str, Any] = {
        "model": str(setting.place("base")),
        "dataset": str(setting.place(step.rows)),
        "learning_rate": RATE,
        "steps": setting.steps,
        "batch_size": setting.batch,
        "micro_batch_size": setting.micro,
        "lora_rank": step.rank,
        "lora_alpha": ALPHA,
    }
    if step.method == "GRPO":
        answers = {"generations": setting.generations, "completion_length": setting.reply}
        return found | answers | {"reward": "bench_gpu:length"}
    if name == "sft_packed":  # the same rows, however many steps they make
        found |= {"steps": 0, "batch_size": packs, "micro_batch_size": 1}
    return found | {"max_length": setting.tokens}


def _ours_evaluated(setting: Setting, output: Path, vllm: Mapping[str, Any] | None) -> int:
    from lamdagent.evaluation.task import Task
    from lamdagent.worker.make import score

    replies = {"generation_kwargs": {"until": ["\n\n\n"], "do_sample": False, **_longest(setting)}}
    told: dict[str, Any] = {"splits": {"search": ""}, "limits": {"search": setting.items}, "options": replies}
    backend: dict[str, Any] = {} if vllm is None else {"backend": "vllm", "backend_options": vllm}
    task = Task("instructions", "instructions", "followed,none", folder=str(TASKS), **backend, **told)
    rest: dict[str, Any] = {"tasks": (task,), "split": "search", "batch_size": setting.batch, "output": str(output)}
    score(ignore_progress, folder=str(setting.place("base")), **rest)
    lines = (output / "samples" / "instructions.jsonl").read_text(encoding="utf-8").splitlines()
    return _told(setting, [json.loads(line)["reply"] for line in lines])


def _longest(setting: Setting) -> dict[str, Any]:
    return {"max_gen_toks": setting.reply}


def _told(setting: Setting, replies: Sequence[str]) -> int:
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(setting.place("base"))
    return sum(len(tokenizer(reply)["input_ids"]) for reply in replies)


# --- plain -----------------------------------------------------------------------------------------------------------


def plain(name: str, setting: Setting, packs: int, output: Path) -> int:
    """The same as the libraries' own documentation has it; tokens of the replies of an evaluation."""
    if name in TRAININGS:
        _plain_trained(TRAININGS[name], setting, output)
    elif name == "merge":
        _plain_merged(setting, output)
    else:
        return _plain_evaluated(setting)
    return 0


def _plain_trained(step: Training, setting: Setting, output: Path) -> None:
    import trl
    from datasets import Dataset
    from peft import LoraConfig

    settings: dict[str, Any] = {"learning_rate": RATE, "max_steps": setting.steps, "max_length": setting.tokens}
    further: dict[str, Any] = {}
    if step.method == "GRPO":
        del settings["max_length"]
        settings |= {"num_generations": setting.generations, "max_completion_length": setting.reply}
        further = {"reward_funcs": importlib.import_module("bench_gpu").length}
    args = getattr(trl, f"{step.method}Config")(
        output_dir=str(output),
        per_device_train_batch_size=setting.micro,
        gradient_accumulation_steps=setting.batch // setting.micro,
        use_cpu=not setting.cuda,
        report_to="none",
        save_strategy="no",
        **settings,
    )
    lora = LoraConfig(r=step.rank, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM")
    with setting.place(step.rows).open(encoding="utf-8") as file:
        rows = Dataset.from_list([json.loads(line) for line in file])
    trainer = getattr(trl, f"{step.method}Trainer")(
        model=str(setting.place("base")),
        args=args,
        train_dataset=rows,
        peft_config=lora if step.rank else None,
        **further,
    )
    trainer.train()
    made = trainer.model.merge_and_unload() if step.rank else trainer.model
    made.save_pretrained(output / "model")
    trainer.processing_class.save_pretrained(output / "model")


def _plain_merged(setting: Setting, output: Path) -> None:
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    models = [{"model": str(setting.place(name)), "parameters": {"weight": 0.5}} for name in ("base", "other")]
    plan = {"merge_method": "linear", "models": models, "dtype": "bfloat16"}
    run_merge(MergeConfiguration.model_validate(plan), str(output), MergeOptions(device="auto"))


def _plain_evaluated(setting: Setting) -> int:
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    results: Any = simple_evaluate(
        model="hf",
        model_args={"pretrained": str(setting.place("base"))},
        tasks=["instructions"],
        gen_kwargs=_longest(setting),
        task_manager=TaskManager(include_path=str(TASKS), include_defaults=False),
        batch_size=setting.batch,
        device="cuda" if setting.cuda else "cpu",
        limit=setting.items,
        apply_chat_template=True,
    )
    return _told(setting, [sample["resps"][0][0] for rows in results["samples"].values() for sample in rows])


# --- one process -----------------------------------------------------------------------------------------------------


def child(given: Mapping[str, Any]) -> dict[str, Any]:
    """Prepare, or one run of one step on one side."""
    setting = Setting(**given["setting"])
    if given["step"] == "prepare":
        return prepare(setting)
    import torch

    name, side = given["step"], given["side"]
    _import_before(name)
    if setting.cuda and name != "evaluation_vllm":  # vLLM wants to be the first
        torch.zeros(1, device="cuda")  # the context, which either side would pay for
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir=setting.folder) as output, watched() as seen:
        counted = (ours if side == "ours" else plain)(name, setting, given["packs"], Path(output))
        seconds = time.monotonic() - started
    tokens = {"grpo": importlib.import_module("bench_gpu").generated[0]}.get(name, given["tokens"] or counted)
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak = torch.cuda.max_memory_allocated() if setting.cuda else kilobytes * 1024
    return {
        "tokens": tokens,
        "seconds": seconds,
        "tokens_per_second": tokens / seen.get("seconds", seconds) if tokens else None,
        # vLLM works in a process of its own and takes what it is given.
        "memory_gb": None if name == "evaluation_vllm" and side == "ours" else peak / 1e9,
        "active": seen.get("active"),
    }


def _import_before(name: str) -> None:
    """So that imports are not measured."""
    if name in TRAININGS:
        trl = importlib.import_module("trl")
        for kind in ("Config", "Trainer"):
            getattr(trl, f"{TRAININGS[name].method}{kind}")
    for library in (*LIBRARIES.get(name, ("peft", "datasets")), *ALWAYS):
        importlib.import_module(library)


@contextmanager
def watched() -> Iterator[dict[str, Any]]:
    """Seconds inside `train` of whatever trainer runs, and what it had switched on."""
    import torch
    from transformers import Trainer

    before, seen = Trainer.train, dict[str, Any]()

    def train(self: Any, *arguments: Any, **keywords: Any) -> Any:
        started = time.monotonic()
        result = before(self, *arguments, **keywords)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seen.update(seconds=time.monotonic() - started, active=_active(self))
        return result

    Trainer.train = train  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        Trainer.train = before  # type: ignore[method-assign]


def _active(trainer: Any) -> dict[str, Any]:
    args = trainer.args
    return {
        "weights": str(next(trainer.model.parameters()).dtype).removeprefix("torch."),
        "bf16": bool(args.bf16),
        "attention": trainer.model.config._attn_implementation,
        "packing": bool(getattr(args, "packing", False)),
        "checkpointing": bool(trainer.model.is_activation_checkpointing),
        "liger": bool(args.use_liger_kernel),
    }


def in_process(given: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """What `child` gives, in a process that cannot take this one along; a reason under `failed` where it failed."""
    hidden = {} if given["setting"]["cuda"] else {"CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, __file__, "--child", json.dumps(given)]
    try:
        done = subprocess.run(
            command, env=os.environ | hidden, capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"not done after {seconds:.0f} s (--timeout)"}
    if done.returncode < 0:
        return {"failed": f"killed by signal {-done.returncode}; 9 is often out of memory"}
    if done.returncode:
        return {"failed": (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1][:300]}
    return dict(json.loads(done.stdout.splitlines()[-1]))


# --- the table -------------------------------------------------------------------------------------------------------


def measured(name: str, setting: Setting, facts: Mapping[str, Any], pairs: int, timeout: float) -> dict[str, Any]:
    """All pairs of one step: per side the medians, and the ratios of the pairs."""
    kind = TRAININGS[name].rows if name in TRAININGS else ""
    given = {"setting": asdict(setting), "step": name, "packs": packs(setting, facts)}
    given["tokens"] = facts["tokens"].get(kind, 0)
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    failed: dict[str, str] = {}
    for number in range(pairs):
        for side in SIDES if number % 2 == 0 else SIDES[::-1]:
            if side in failed:
                continue
            found = in_process(given | {"side": side}, timeout)
            if "failed" in found:
                failed[side] = found["failed"]
            else:
                runs[side].append(found)
    sides = {side: _medians(found) | {"active": found[0]["active"]} for side, found in runs.items() if found}
    return {**sides, "failed": failed, "ratio": {} if failed else {key: _spread(key, runs) for key in FIGURES}}


def packs(setting: Setting, facts: Mapping[str, Any]) -> int:
    """Sequences that hold about as many tokens as the rows of one step."""
    tokens: int = facts["tokens"]["sft"]
    return max(1, math.ceil(tokens / (setting.steps * setting.tokens)))


def _medians(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {key: None if runs[0][key] is None else statistics.median(run[key] for run in runs) for key in FIGURES}


def _spread(key: str, runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, float] | None:
    """Ours / plain over the pairs."""
    pairs = list(zip(*(runs[side] for side in SIDES), strict=True))
    if any(run[key] is None for pair in pairs for run in pair):
        return None
    ratios = [mine[key] / theirs[key] for mine, theirs in pairs]
    return {"median": statistics.median(ratios), "low": min(ratios), "high": max(ratios)}


def shown(found: Mapping[str, Mapping[str, Any]]) -> Table:
    """The figures for a person."""
    table = Table("step", "tokens/s: ours, plain, ratio", "peak GB", "seconds", "on in ours", "on in plain")
    for name, step in found.items():
        cells = [_cell(step, key, digits) for key, digits in zip(FIGURES, (0, 2, 1), strict=True)]
        table.add_row(name, *cells, *(_on(step.get(side)) for side in SIDES))
    return table


def _cell(step: Mapping[str, Any], key: str, digits: int) -> str:
    values = [step.get(side, {}).get(key) for side in SIDES]
    text = ", ".join("-" if value is None else f"{value:,.{digits}f}" for value in values)
    if ratio := step["ratio"].get(key):
        text += f"\n{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"
    return text


def _on(side: Mapping[str, Any] | None) -> str:
    active = (side or {}).get("active") or {}
    return ", ".join(key if value is True else str(value) for key, value in active.items() if value)


def chosen(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line, what it leaves out filled in; exit code 2 for what makes no sense."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=list(SHAPES), help="1b on a GPU, pico on a CPU")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--only", nargs="+", choices=STEPS, default=list(STEPS), metavar="STEP", help=", ".join(STEPS))
    parser.add_argument("--pairs", type=int, help="3 on a GPU, 1 on a CPU")
    parser.add_argument("--timeout", type=float, default=1800.0, help="seconds of one run")
    parser.add_argument("--force", action="store_true", help="1b on a CPU all the same")
    for key in DEFAULTS["1b"]:
        both = ", ".join(f"{DEFAULTS[size][key]} for {size}" for size in DEFAULTS)
        parser.add_argument(f"--{key}", type=int, help=both)
    given = parser.parse_args(arguments)
    given.cuda = given.device == "cuda" or (given.device == "auto" and bool(gpu_memory()))
    given.size = given.size or ("1b" if given.cuda else "pico")
    if given.size == "1b" and not given.cuda and not given.force:
        parser.error("a 1B model on a CPU takes hours and 20 GB: take --size pico, or --force")
    given.pairs = given.pairs if given.pairs is not None else 3 if given.cuda else 1
    for key, value in DEFAULTS[given.size].items():
        if getattr(given, key) is None:
            setattr(given, key, value)
    if wrong := [key for key in ("pairs", *DEFAULTS["1b"]) if getattr(given, key) < 1]:
        parser.error(f"--{wrong[0]}: got {getattr(given, wrong[0])}, wanted at least 1")
    if given.batch % given.micro or given.batch % given.generations or given.generations < 2:
        parser.error(f"--batch {given.batch} must be a multiple of --micro and of --generations, which is 2 or more")
    if given.tokens < 32:
        parser.error(f"--tokens: got {given.tokens}, wanted at least 32")
    return given


def main() -> None:
    """Measure what --only names and print it."""
    if sys.argv[1:2] == ["--child"]:
        print("\n" + json.dumps(child(json.loads(sys.argv[2]))))
        return
    given = chosen(sys.argv[1:])
    console = Console(width=max(130, shutil.get_terminal_size().columns))
    with tempfile.TemporaryDirectory(prefix="bench-gpu-") as folder:
        told = {key: getattr(given, key) for key in ("cuda", *DEFAULTS[given.size])}
        setting = Setting(folder, given.size, **told)
        facts = in_process({"setting": asdict(setting), "step": "prepare"}, given.timeout)
        if "failed" in facts:
            raise SystemExit(f"no model could be made: {facts['failed']}")
        console.print(f"{facts['device']}; {facts['parameters']:,} parameters; {facts['versions']}", highlight=False)
        console.print(f"vLLM is {'installed' if HAS_VLLM else 'not installed: no row evaluation_vllm'}")
        found = {}
        for name in given.only:
            console.print(f"{name} ...")
            found[name] = measured(name, setting, facts, given.pairs, given.timeout)
    console.print(shown(found))
    for name, side, reason in [(n, *one) for n, step in found.items() for one in step["failed"].items()]:
        console.print(f"[red]{name}, {side}, failed:[/] {escape(reason)}")
    setup = {"size": given.size, "pairs": given.pairs, "vllm": HAS_VLLM, **told}
    print(json.dumps({**facts, "setting": setup, "steps": found}))


if __name__ == "__main__":
    main()
