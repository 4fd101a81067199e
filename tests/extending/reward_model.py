"""An object kind of one's own, a reward model, and an action that takes one: the example of docs/extending.md."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from lamdagent.actions.context import Context, chosen_rows
from lamdagent.actions.sft import sft
from lamdagent.objects.object_kinds import resource_kind
from lamdagent.objects.sources import folder_faults

REWARD_MODEL = resource_kind("reward_model", folder_faults)
"""A folder in Hugging Face layout with a sequence classifier of one label."""


def sft_judged(
    context: Context, *, model: str, dataset: str, judge: str, keep: float = 0.5, learning_rate: float = 0.003
) -> Any:
    """Fine-tune on the share `keep` of the rows that the reward model likes best."""
    rows = chosen_rows(dataset, context.data_fraction)
    reward = _reward_of(context, judge)
    best = sorted(rows, key=lambda row: -reward([*row["prompt"], *row["completion"]]))
    file = context.output.parent / "judged.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in best[: max(1, round(keep * len(best)))]))
    chosen = replace(context, data_fraction=1.0)
    sizes: dict[str, Any] = {"steps": 4, "batch_size": 4, "micro_batch_size": 4, "max_length": 64}
    return sft(chosen, model=model, dataset=str(file), learning_rate=learning_rate, **sizes)


def _reward_of(context: Context, judge: str) -> Callable[[list[dict[str, str]]], float]:
    """Messages -> the reward model's opinion of the last one."""
    import torch
    from transformers import AutoModelForSequenceClassification

    classifier = AutoModelForSequenceClassification.from_pretrained(judge, local_files_only=True)
    tokenizer = context.tokenizer(judge)

    def reward(messages: list[dict[str, str]]) -> float:
        tokens = tokenizer(tokenizer.apply_chat_template(messages, tokenize=False), return_tensors="pt")
        with torch.no_grad():
            return float(classifier(input_ids=tokens["input_ids"]).logits.squeeze())

    return reward
