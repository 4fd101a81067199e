"""Greedy generation in stages: after each, rows that have said all they will leave the batch.

The cache is made anew for each stage, with the rows that go on and room for the stage's tokens: transformers' growing
cache would be copied for every token.
"""

from collections.abc import Callable, Sequence
from typing import Any

STAGE = 16
"""Tokens of a stage: what a row may say in vain, against the copy of the cache that starts a stage."""

Layers = list[tuple[Any, Any]]
"""Keys and values of each layer, (batch, heads, tokens, size of a head)."""


def in_stages(
    model: Any,
    context: Any,
    attention_mask: Any,
    cache: Layers | None,
    most: int,
    padding: int,
    generate: Callable[..., Any],
    ended: Callable[[Sequence[int]], bool],
) -> Any:
    """Prompts with replies (batch, length + longest reply), as `model.generate` gives them; short ones are padded.

    Args:
        model: takes a `StaticCache`; all its layers look at all tokens.
        context: prompts, left-padded, (batch, length).
        attention_mask: of the same shape.
        cache: what has been read of the beginning that all prompts share, see prefix.py; None for nothing.
        most: tokens that prompt and reply have together at most.
        padding: the token that stands behind the end of a reply.
        generate: `generate(tokens, max_length, attention_mask=..., past_key_values=...)`, without drawing.
        ended: whether a reply, in tokens, goes on in vain.
    """
    import torch

    start = context.shape[1]
    whole = torch.full((len(context), most), padding, dtype=context.dtype, device=context.device)
    going = torch.arange(len(context), device=context.device)
    tokens, mask, longest = context, attention_mask, start
    while True:
        until = min(tokens.shape[1] + STAGE, most)
        cache = _with_room(model, cache, len(tokens), until)
        tokens = generate(tokens, until, attention_mask=mask, past_key_values=cache)
        longest = tokens.shape[1]
        whole[going, :longest] = tokens
        on = [row for row, reply in enumerate(tokens[:, start:].tolist()) if not ended(reply)]
        if not on or longest >= most:
            return whole[:, :longest]
        kept = torch.tensor(on, device=context.device)
        going, tokens = going[kept], tokens[kept]
        mask = torch.nn.functional.pad(mask[kept], (0, longest - mask.shape[1]), value=1)
        cache = kept_of(cache, kept)


def kept_of(cache: Any, rows: Any) -> Layers:
    """Keys and values that a cache holds of some rows, by layer."""
    read = int(cache.get_seq_length())
    return [(layer.keys[rows, :, :read], layer.values[rows, :, :read]) for layer in cache.layers]


def can_stage(model: Any) -> bool:
    """True for a model that caches the keys and values of all tokens, and of those alone."""
    kinds = set(getattr(model.config, "layer_types", None) or ["full_attention"])
    return kinds == {"full_attention"} and not getattr(model.config, "sliding_window", None)


def _with_room(model: Any, layers: Layers | None, batch: int, most: int) -> Any:
    """A cache for so many tokens that holds `layers`, whose one row stands for all where it is one."""
    from transformers import StaticCache

    cache = StaticCache(config=model.config, max_cache_len=most)
    for number, (keys, values) in enumerate(layers or ()):
        cache.update(keys.expand(batch, -1, -1, -1), values.expand(batch, -1, -1, -1), number)
    return cache
