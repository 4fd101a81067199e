"""Generation that reads the beginning that all prompts of a batch share (system message, worked examples) only once."""

from typing import Any

WORTHWHILE = 16
"""Shared tokens from which on the copying costs less than the reading."""


def shared_prefix(context: Any, attention_mask: Any) -> int:
    """How many first tokens the left-padded prompts (batch, length) share, at least one less than the shortest has."""
    lengths = attention_mask.sum(dim=1).tolist()
    rows = [row[-length:].tolist() for row, length in zip(context, lengths, strict=True)]
    first, count = rows[0], 0
    while count < min(lengths) - 1 and all(row[count] == first[count] for row in rows):
        count += 1
    return count


def can_share(model: Any, context: Any, attention_mask: Any) -> bool:
    """True for prompts with a long common beginning and a model that caches the keys and values of all tokens."""
    kinds = set(getattr(model.config, "layer_types", None) or ["full_attention"])
    simple = kinds == {"full_attention"} and not getattr(model.config, "sliding_window", None)
    return simple and len(context) > 1 and shared_prefix(context, attention_mask) >= WORTHWHILE


def with_prefix(model: Any, context: Any, attention_mask: Any) -> dict[str, Any]:
    """Arguments for `model.generate`: the same prompts, as (prefix, padding, rest), and the cache of the prefix.

    The tokens keep their positions, and the length stays the same, so that the reply starts where it did.
    """
    import torch
    from transformers import DynamicCache

    size = shared_prefix(context, attention_mask)
    batch, length = context.shape
    ids, mask = context.clone(), attention_mask.clone()
    for row in range(batch):
        padding = length - int(attention_mask[row].sum())
        ids[row, :size] = context[row, padding : padding + size]
        ids[row, size : size + padding] = context[row, :padding]
        mask[row] = 1
        mask[row, size : size + padding] = 0
    cache = DynamicCache(config=model.config)
    with torch.inference_mode():
        model(input_ids=ids[:1, :size], past_key_values=cache, use_cache=True, logits_to_keep=1)
    cache.batch_repeat_interleave(batch)
    return {"input_ids": ids, "attention_mask": mask, "past_key_values": cache}
