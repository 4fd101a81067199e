"""Do models fit together in a merge? Told from their config.json and tokenizer files, before any weights are read."""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lamdagent.objects import tokenizer_vocab

NAMES = {
    "hidden_size": ("n_embd",),
    "num_hidden_layers": ("n_layer",),
    "num_attention_heads": ("n_head",),
    "intermediate_size": ("n_inner",),
}
"""Setting -> its other names in some families."""
EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_intermediate_size")


@dataclass(frozen=True)
class MergeSignature:
    """Settings and tokens that must be equal, so that each number of one model has its counterpart in the other."""

    settings: Mapping[str, Any]
    """From config.json: the architecture and the sizes of its matrices; `vocab_size` are the rows of the embedding."""
    tokens: dict[str, int] = field(repr=False)
    """Token -> row of the embedding; empty when the files do not say."""

    @property
    def digest(self) -> str:
        """Equal for models that fit together: 16 hex digits."""
        content = [sorted(self.settings.items()), tokenizer_vocab.digest(self.tokens)]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def signature_of(folder: Path) -> MergeSignature:
    """The frame of the model in `folder`.

    Raises:
        ValueError, OSError: a file is missing or not what it should be.
    """
    return MergeSignature(dict(_settings(config_of(folder))), tokenizer_vocab.vocabulary(folder))


def known_signatures(folders: Mapping[str, Path]) -> dict[str, MergeSignature]:
    """Signatures of the models in `folders` that can be read here, by name."""
    found = {}
    for name, folder in folders.items():
        with contextlib.suppress(OSError, ValueError):
            found[name] = signature_of(folder)
    return found


def config_of(folder: Path) -> dict[str, Any]:
    """config.json with the language model's own part, if there is one, on top."""
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return {**config, **(config.get("text_config") or {}), "architectures": config.get("architectures")}


def differences(first: MergeSignature, second: MergeSignature) -> list[str]:
    """Differences that keep two models from being merged, each with both values; empty when they fit."""
    keys = dict.fromkeys((*first.settings, *second.settings))
    pairs = [(key, first.settings.get(key), second.settings.get(key)) for key in keys]
    found = [f"{key} is {one} and {other}" for key, one, other in pairs if one != other]
    tokens = tokenizer_vocab.difference(first.tokens, second.tokens)
    return [*found, *([tokens] if tokens else [])]


def incompatibilities(frames: Mapping[str, MergeSignature]) -> Iterator[str]:
    """A sentence for each model that does not fit the first of its kind; `frames`: name -> frame."""
    names: Sequence[str] = list(frames)
    for name in names[1:]:
        if found := differences(frames[names[0]], frames[name]):
            yield f"{names[0]} and {name} cannot be merged: {'; '.join(found)}"


def _settings(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    yield "architectures", config.get("architectures")
    for key in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"):
        yield key, next((config[name] for name in (key, *NAMES.get(key, ())) if config.get(name)), None)
    heads = config.get("num_attention_heads") or config.get("n_head")
    hidden = config.get("hidden_size") or config.get("n_embd")
    yield "num_key_value_heads", config.get("num_key_value_heads") or heads
    yield "head_dim", config.get("head_dim") or (hidden // heads if hidden and heads else None)
    yield from ((key, config[key]) for key in EXPERTS if config.get(key))
