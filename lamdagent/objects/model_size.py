"""The size of a model before any of its weights is read: from config.json, or from the head of a GGUF file."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamdagent.objects.sources import WHEELS, Spec, hub_answers, kind_of, local_path

UNGATED = ("gpt2", "gpt_neo", "gpt_neox", "opt", "bloom", "falcon", "phi")
"""`model_type`s whose feed-forward part has two matrices a layer; all others here have three."""
BF16 = 2
BYTES = {"float32": 4, "float64": 8}
"""Bytes of a stored number; 2 for every other type, since what is quantised is loaded in bf16."""


@dataclass(frozen=True)
class ModelSize:
    """Figures that decide how much memory a model takes."""

    parameters: int
    stored: int
    """Bytes of one parameter as it is stored and loaded."""
    layers: int
    hidden: int
    intermediate: int
    """Width of the feed-forward part; of all experts that one token goes through."""
    vocabulary: int
    cached: int
    """Numbers that each layer keeps of a token while text is generated: its keys and values."""

    def adapter(self, rank: int, layers: int) -> int:
        """About how many parameters a LoRA adapter of all linear layers has; `layers`: only so many, 0 = all."""
        wide = 4 * 2 * self.hidden + 3 * (self.hidden + self.intermediate)
        return rank * wide * (min(layers, self.layers) or self.layers)


def size_of_source(spec: Spec) -> ModelSize | None:
    """The size of a model source; None where its configuration is not at hand or not understood."""
    kind = kind_of(spec)
    try:
        if kind == "folder":
            return of_folder(local_path(spec))
        if kind == "gguf":
            return of_gguf(local_path(spec))
        if kind == "wheel":
            return of_config(WHEELS[str(spec["source"]).removeprefix("pypi:")].config)
        if kind == "hub" and not spec.get("file"):
            return _of_hub(str(spec["source"]), spec.get("revision"))
    except Exception:  # a file that is not what it should be, a hub that is away: others say so, with more to say
        return None
    return None


def _of_hub(source: str, revision: str | None) -> ModelSize | None:
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    file = try_to_load_from_cache(source, "config.json", revision=revision)
    if not isinstance(file, str) and hub_answers():
        file = hf_hub_download(source, "config.json", revision=revision)
    return of_config(_json(Path(file))) if isinstance(file, str) else None


def of_folder(folder: Path) -> ModelSize | None:
    """Size of a model in Hugging Face layout; its weights need not be there. None when a figure is missing."""
    config = _json(folder / "config.json")
    return of_config(config, _counted(folder))


def of_config(config: Mapping[str, Any], counted: int = 0) -> ModelSize | None:
    """Size by a config.json; `counted`: its parameters, where they are known. None when a figure is missing."""
    text: Mapping[str, Any] = {**config, **(config.get("text_config") or {})}
    hidden = text.get("hidden_size") or text.get("n_embd")
    layers = text.get("num_hidden_layers") or text.get("n_layer")
    vocabulary = text.get("vocab_size")
    if not (hidden and layers and vocabulary):
        return None
    heads = text.get("num_attention_heads") or text.get("n_head") or 1
    head = text.get("head_dim") or hidden // heads
    shared = text.get("num_key_value_heads") or heads
    attention = hidden * head * 2 * (heads + shared)
    wide = text.get("intermediate_size") or text.get("n_inner") or 4 * hidden
    experts = text.get("num_local_experts") or text.get("num_experts") or text.get("n_routed_experts") or 1
    if experts > 1:
        wide = text.get("moe_intermediate_size") or wide
    active = text.get("num_experts_per_tok") or 1 if experts > 1 else 1
    matrices = 2 if text.get("model_type") in UNGATED else 3
    tied = config.get("tie_word_embeddings", True)
    computed = layers * (attention + matrices * hidden * wide * experts + 2 * hidden)
    computed += vocabulary * hidden * (1 if tied else 2) + hidden
    stored = BYTES.get(str(text.get("dtype") or text.get("torch_dtype") or config.get("dtype")), 2)
    return ModelSize(counted or computed, stored, layers, hidden, wide * active, vocabulary, 2 * shared * head)


def of_gguf(path: Path) -> ModelSize | None:
    """Size by the head of a GGUF file; it is loaded in bf16 whatever it stores."""
    from gguf import GGUFReader

    reader = GGUFReader(path)
    named = {key.split(".", 1)[-1]: field for key, field in reader.fields.items()}
    keys = ("embedding_length", "block_count", "feed_forward_length", "attention.head_count")
    hidden, layers, wide, heads = (int(named[key].contents()) for key in keys)
    shared = int(named["attention.head_count_kv"].contents()) if "attention.head_count_kv" in named else heads
    embedding = next(tensor for tensor in reader.tensors if tensor.name == "token_embd.weight")
    parameters = sum(int(tensor.n_elements) for tensor in reader.tensors)
    vocabulary = int(embedding.n_elements) // hidden
    return ModelSize(parameters, BF16, layers, hidden, wide, vocabulary, 2 * shared * hidden // heads)


def _counted(folder: Path) -> int:
    """The number of parameters in the heads of the safetensors files; 0 where there are none."""
    from huggingface_hub import get_local_safetensors_metadata
    from huggingface_hub.errors import NotASafetensorsRepoError

    try:
        return sum(get_local_safetensors_metadata(folder).parameter_count.values())
    except NotASafetensorsRepoError:
        return 0


def _json(path: Path) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found
