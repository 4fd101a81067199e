"""Generation that reads the beginning that all prompts of a batch share (system message, worked examples) only once."""

from typing import Any

from lamdagent.evaluation.staged_decoding import Layers, kept_of

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


def read_prefix(model: Any, context: Any, attention_mask: Any) -> tuple[Any, Any, Layers | None]:
    """The same prompts as (prefix, padding, rest), their mask, and what has been read of the prefix, as one row.

    The tokens keep their positions, and the length stays the same, so that the reply starts where it did. Where little
    is shared, prompts and mask come back as they are, with nothing read.
    """
    import torch
    from transformers import DynamicCache

    size = shared_prefix(context, attention_mask)
    if len(context) == 1 or size < WORTHWHILE:
        return context, attention_mask, None
    length = context.shape[1]
    ids, mask = context.clone(), attention_mask.clone()
    for row in range(len(context)):
        padding = length - int(attention_mask[row].sum())
        ids[row, :size] = context[row, padding : padding + size]
        ids[row, size : size + padding] = context[row, :padding]
        mask[row] = 1
        mask[row, size : size + padding] = 0
    cache = DynamicCache(config=model.config)
    with torch.inference_mode():
        model(input_ids=ids[:1, :size], past_key_values=cache, use_cache=True, logits_to_keep=1)
    return ids, mask, kept_of(cache, slice(None))
