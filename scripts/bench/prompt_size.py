#!/usr/bin/env python
"""Show that prompts do not grow with the history: tokens and time of a turn at 10, 1,000 and 100,000 trials.

    .venv/bin/python scripts/bench/prompt_size.py

Each history is made up: chains of trainings, merges and failures over a pool that grows with it. Tokens are counted as
for gpt-4o. The last line is one JSON object with the figures.
"""

import argparse
import json
import random
import time

from lamdagent.actions.action import ActionType, Slot
from lamdagent.enumeration.space import ActionSpace
from lamdagent.evaluation.task import Score, Task
from lamdagent.llm.client import Client, ClientSettings
from lamdagent.llm.templates import LLMSettings
from lamdagent.memory.reflection import reflection_messages
from lamdagent.memory.text import memory_text
from lamdagent.memory.trial import History, Trial
from lamdagent.objects.dataset import Dataset
from lamdagent.objects.model import Model
from lamdagent.selection import prompts
from lamdagent.selection.policy import Turn
from lamdagent.selection.surrogate import SurrogatePolicy

TASKS = (Task("calls", "calls", "acc,none", 0.7), Task("style", "style", "acc,none", 0.3))
DATASETS = tuple(Dataset(f"data{i}", "sft", f"Rows of kind {i}.", f"d{i}", 1000, "") for i in range(20))
TYPES = (
    ActionType("sft", "Fine-tunes.", "m:f", (Slot("model", "model"), Slot("data", "sft")), {"lr": (1e-5, 1e-4, 1e-3)}),
    ActionType(
        "merge", "Averages.", "m:f", (Slot("models", "models", 2, 2, complement="weight"),), {"weight": (0.3, 0.5, 0.7)}
    ),
)


def grow(trials: int) -> tuple[History, list[Model]]:
    """A history of so many actions, and its pool."""
    rng = random.Random(0)
    digest = f"{0:032x}"
    pool = [Model(digest, "", "base", digest, 0, "Llama", 512)]
    told = [Trial("base", "base", "finished", None, pool[0], {"calls": Score(0.2, 0.03)}, Score(0.2, 0.03))]
    for number in range(1, trials + 1):
        action_type = rng.choice(TYPES)
        recent = pool[-50:]
        objects = {"model": [rng.choice(recent)], "data": [rng.choice(DATASETS)]}
        if action_type.name == "merge":
            objects = {"models": rng.sample(recent, 2) if len(recent) > 1 else [pool[0]]}
        values = {key: rng.choice(allowed) for key, allowed in action_type.grid.items()}
        action = ActionSpace(TYPES, (), DATASETS, seed=number)._build(action_type, objects, values)
        made = Model(
            action.fingerprint, "", f"run{number}", digest, 1 + max(m.depth for m in action.models), "Llama", 512
        )
        score = Score(rng.uniform(0.1, 0.6), 0.03)
        failed = rng.random() < 0.1
        told.append(
            Trial(
                f"run{number}",
                "action",
                "failed" if failed else "finished",
                action,
                None if failed else made,
                {} if failed else {"calls": score, "style": score},
                None if failed else score,
                status_reason="CUDA out of memory" if failed else "",
                started=number,
            )
        )
        pool += [] if failed else [made]
    return History(tuple(told), "Training on data3 helps; merging two of its products helps more."), pool


def measure(trials: int, client: Client) -> dict[str, float]:
    """Tokens of each prompt of a turn, and the time to make them."""
    past, pool = grow(trials)
    settings = LLMSettings(goal="- calls: weight 0.7\n- style: weight 0.3")
    space = ActionSpace(TYPES, pool, DATASETS, tried=[t.action.fingerprint for t in past.actions if t.action])
    started = time.perf_counter()
    text = memory_text(past, space, TASKS, 2000)
    turn = Turn(past, space, trials, 0, lambda: text)
    messages = {"type": prompts.fitted(lambda s: prompts.type_messages(turn, s), settings, client.count)[0]}
    for action_type in TYPES:
        build = lambda s, t=action_type: prompts.object_messages(turn, t, s)  # noqa: E731
        messages[f"objects of {action_type.name}"] = prompts.fitted(build, settings, client.count)[0]
    messages["reflection"] = reflection_messages(past, past.reflection, space, settings)
    made = time.perf_counter()
    SurrogatePolicy()(turn)
    ended = time.perf_counter()
    sizes = {name: client.count(asked) for name, asked in messages.items()}
    return {**sizes, "prompts_ms": 1000 * (made - started), "surrogate_ms": 1000 * (ended - made), "models": len(pool)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[10, 1_000, 100_000])
    given = parser.parse_args()
    client = Client(ClientSettings("gpt-4o"))
    client.count([{"role": "user", "content": "once, so that the import is not timed"}])
    found = {}
    for trials in given.trials:
        found[trials] = measure(trials, client)
        print(
            f"{trials} trials: " + ", ".join(f"{key} {value:.0f}" for key, value in found[trials].items()), flush=True
        )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
