"""Five small skills for a pico model: which letter of a word is the first, last, second, top or low one?

Words are random letters, so that there are always new ones; no split shares a word with another. The base knows the
first skill and a little of the others. Learning one skill more costs some of the rest, merging brings some of it back:
the questions of post-training, at a second an action. For `+experiment=letters` and the recorded landscape.
"""

import hashlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lamdagent.pico import build

LETTERS = "abcdefgh"
LENGTH = 5
SKILLS: dict[str, Callable[[str], str]] = {
    "first": lambda word: word[0],
    "last": lambda word: word[-1],
    "second": lambda word: word[1],
    "top": max,
    "low": min,
}
"""Skill -> right answer; `top` is the last letter in alphabetical order, `low` the first."""
PRETRAINING = {"first": 10, "last": 1, "second": 1, "top": 1, "low": 1}
"""Parts of each skill in the base's training."""


def question(skill: str, word: str) -> str:
    """The prompt for `skill` on `word`, its letters spaced."""
    return f"{skill} {' '.join(word)}"


def words(split: str, count: int, salt: str = "") -> list[str]:
    """`count` words of `train`, `search` or `test`, by a hash; `salt` draws others of the same split."""
    return list(dict.fromkeys(word for word, _ in zip(_words(split, salt), range(count), strict=False)))


def _words(split: str, salt: str) -> Iterator[str]:
    rng = random.Random(f"{split} {salt}")
    while True:
        word = "".join(rng.choice(LETTERS) for _ in range(LENGTH))
        bucket = int(hashlib.sha256(word.encode()).hexdigest(), 16) % 5
        if split == ("search" if bucket == 3 else "test" if bucket == 4 else "train"):
            yield word


def rows(skill: str, count: int = 400) -> list[dict[str, Any]]:
    """`sft` rows of a skill."""
    return [
        {"prompt": _ask(skill, word), "completion": _say(SKILLS[skill](word))} for word in words("train", count, skill)
    ]


def pairs(skills: tuple[str, ...] | list[str] = ("last", "top"), count: int = 400) -> list[dict[str, Any]]:
    """`preference` rows: the right letter against another letter of the word, the skills in turn."""
    found = []
    rng = random.Random(0)
    for index, word in enumerate(words("train", count, "pairs")):
        skill = skills[index % len(skills)]
        right = SKILLS[skill](word)
        wrong = [letter for letter in word if letter != right]
        if wrong:
            found.append({"prompt": _ask(skill, word), "chosen": _say(right), "rejected": _say(rng.choice(wrong))})
    return found


def base(folder: Path, steps: int = 75) -> None:
    """Write the base model: `pico.build`, then `steps` steps of plain training on PRETRAINING. A few seconds."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    build(folder, dtype="float32")
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    rng = random.Random(0)
    skills, shares = list(PRETRAINING), list(PRETRAINING.values())
    stream = _words("train", "base")
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for _ in range(steps):
            batch = [(rng.choices(skills, shares)[0], next(stream)) for _ in range(64)]
            prompts = [
                tokenizer.apply_chat_template(_ask(skill, word), add_generation_prompt=True, tokenize=False)
                for skill, word in batch
            ]
            inputs = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left")
            right = torch.tensor([tokenizer.convert_tokens_to_ids(SKILLS[skill](word)) for skill, word in batch])
            logits = model(**inputs).logits[:, -1]
            loss = torch.nn.functional.cross_entropy(logits, right)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    model.save_pretrained(folder)


def _ask(skill: str, word: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question(skill, word)}]


def _say(answer: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": answer}]
