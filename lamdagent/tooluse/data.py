"""Training sets from the train split, as functions for `datasets: {name: {function: lamdagent.tooluse.data:calls}}`.

Each returns rows in the canonical columns (objects/dataset.py), conversational form, in a fixed order.
"""

import json
import random
from collections.abc import Iterable, Iterator
from typing import Any

from lamdagent.tooluse.bfcl import Item, items
from lamdagent.tooluse.call import Call
from lamdagent.tooluse.checker import judge
from lamdagent.tooluse.constraints import Writing, writings
from lamdagent.tooluse.prompt import NONE, Message, messages

Rows = list[dict[str, Any]]


def calls() -> Rows:
    """Every item with one right call."""
    return [_row(item) for item in items("train", calls=True)]


def simple_calls() -> Rows:
    """Items where one function is on offer and has to be called."""
    return [_row(item) for item in items("train", calls=True) if len(item.functions) == 1]


def choices() -> Rows:
    """Items where one of several functions has to be called."""
    return [_row(item) for item in items("train", calls=True) if len(item.functions) > 1]


def restraint() -> Rows:
    """Items where no function fits and the answer is `none`."""
    return [_row(item) for item in items("train", calls=False)]


def mixed(none_share: float = 0.25, writing_share: float = 0.0) -> Rows:
    """Calls, and rows of `restraint` and `writing` up to their shares of the whole, evenly spread."""
    call_rows = calls()
    total = len(call_rows) / (1 - none_share - writing_share)
    parts = [call_rows, restraint()[: round(none_share * total)], writing()[: round(writing_share * total)]]
    return [row for _, row in sorted(_spread(parts), key=lambda pair: pair[0])]


def writing() -> Rows:
    """Short writing tasks with a constraint, each with a reply that meets it: keeps a model following instructions."""
    rows = [(task, _written(task)) for task in writings("train")]
    return [_turn([{"role": "user", "content": task.prompt}], reply) for task, reply in rows if task.followed(reply)]


def preferences(seed: int = 0, none_share: float = 0.25) -> Rows:
    """Pairs of the right reply and a wrong one: a wrong value, a missing argument, another function, or no call.

    `none_share` of the pairs prefer `none` to a call where no function fits.
    """
    source = random.Random(seed)
    wanted = [_pair(item, str(item.gold), _corrupted(item, source)) for item in items("train", calls=True)]
    spare = items("train", calls=False)[: round(none_share / (1 - none_share) * len(wanted))]
    unwanted = [_pair(item, NONE, _needless(item, source)) for item in spare]
    return [row for _, row in sorted(_spread([wanted, unwanted]), key=lambda pair: pair[0])]


def questions(none_share: float = 0.25) -> Rows:
    """Prompts without answers; the column `call` (JSON) is what rewards/calls.py judges by.

    At `none_share` of them no function fits.
    """
    wanted = items("train", calls=True)
    spare = items("train", calls=False)[: round(none_share / (1 - none_share) * len(wanted))]
    parts = [[_question(item) for item in part] for part in (wanted, spare)]
    return [row for _, row in sorted(_spread(parts), key=lambda pair: pair[0])]


def _question(item: Item) -> dict[str, Any]:
    right = {"functions": item.functions, "function": item.function, "answers": item.answers}
    return {"prompt": _asked(item), "call": json.dumps(right, ensure_ascii=False)}


def _row(item: Item) -> dict[str, Any]:
    return _turn(_asked(item), str(item.gold) if item.gold else NONE)


def _asked(item: Item) -> list[Message]:
    return messages(item.functions, item.question, examples=False)


def _turn(prompt: list[Message], reply: str) -> dict[str, Any]:
    return {"prompt": prompt, "completion": [{"role": "assistant", "content": reply}]}


def _pair(item: Item, right: str, wrong: str) -> dict[str, Any]:
    replies = {"chosen": right, "rejected": wrong}
    columns = {name: [{"role": "assistant", "content": reply}] for name, reply in replies.items()}
    return {"prompt": _asked(item), **columns}


def _spread(parts: Iterable[Rows]) -> Iterator[tuple[float, dict[str, Any]]]:
    """Each row with its place in [0, 1), so that any prefix of the whole has about the same shares."""
    for part in parts:
        yield from (((index + 0.5) / len(part), row) for index, row in enumerate(part))


def _corrupted(item: Item, source: random.Random) -> str:
    """A wrong reply near the right one, surely judged wrong."""
    ways = [_wrong_value, _missing_argument, _other_function, _no_call]
    source.shuffle(ways)
    replies = (way(item, source) for way in [*ways, _no_call])
    return next(r for r in replies if r and judge(r, item.functions, item.function, item.answers) != "right")


def _wrong_value(item: Item, source: random.Random) -> str:
    gold = _gold(item)
    if not gold.arguments:
        return ""
    name = source.choice(list(gold.arguments))
    return str(Call(gold.function, {**gold.arguments, name: _changed(gold.arguments[name], source)}))


def _changed(value: Any, source: random.Random) -> Any:
    match value:
        case bool():
            return not value
        case int() | float():
            return value + source.choice((1, 10)) if source.random() < 0.5 else value * 2 + 1
        case str():
            return value.split()[0] if " " in value else f"{value} {source.choice(('info', 'default', 'type'))}"
        case list() if value:
            return value[:-1] if len(value) > 1 else [_changed(value[0], source)]
    return None


def _missing_argument(item: Item, source: random.Random) -> str:
    gold = _gold(item)
    if not gold.arguments:
        return ""
    left_out = source.choice(list(gold.arguments))
    return str(Call(gold.function, {name: value for name, value in gold.arguments.items() if name != left_out}))


def _other_function(item: Item, source: random.Random) -> str:
    others = [function["name"] for function in item.functions if function["name"] != item.function]
    return str(Call(source.choice(others), _gold(item).arguments)) if others else ""


def _no_call(item: Item, source: random.Random) -> str:
    return NONE


def _gold(item: Item) -> Call:
    assert item.gold is not None
    return item.gold


FILLERS = {"string": "default", "integer": 1, "float": 1.0, "boolean": True, "array": [], "tuple": [], "dict": {}}


def _needless(item: Item, source: random.Random) -> str:
    """A call of an offered function with words of the question as its values."""
    function = source.choice(item.functions)
    words = item.question.split()
    fillers = {**FILLERS, "string": " ".join(words[-2:]).strip("?.!"), "any": words[-1]}
    schema = function["parameters"]
    types = {name: schema["properties"][name]["type"] for name in schema.get("required", ())}
    return str(Call(function["name"], {name: fillers[kind] for name, kind in types.items()}))


def _written(task: Writing) -> str:
    """A reply that meets the constraint."""
    thing = task.topic
    sentence = f"{thing[0].upper()}{thing[1:]} can make a day better."
    match task.family:
        case "lower_case":
            return sentence.lower()
        case "upper_case":
            return sentence.upper()
        case "bullets":
            return "\n".join(f"- {part}" for part in ("colour", "shape", "place", "people")[: task.number])
        case "keyword":
            return f"{sentence[:-1]} and the {task.word} part is the best."
        case "ends_with":
            return f"{sentence} That is {task.word}."
        case "starts_with":
            return f"{task.word.capitalize()} is the word for {thing}."
        case "quoted":
            return f'"{sentence}"'
        case "question":
            return f"What do you like most about {thing}?"
    return sentence
