"""Small values for tests: a pool, action types, a history."""

from lamdagent.actions.action import ActionType, Slot
from lamdagent.enumeration.space import ActionSpace
from lamdagent.evaluation.task import Score, Task
from lamdagent.memory.trial import History, Trial
from lamdagent.objects.dataset import Dataset
from lamdagent.objects.model import Model

TASKS = (Task("calls", "calls", "acc,none", 0.75), Task("style", "style", "acc,none", 0.25))
SFT = ActionType(
    "sft", "fine-tunes", "m:f", (Slot("model", "model"), Slot("dataset", "sft")), {"lr": (0.001, 0.002), "steps": (16,)}
)
DPO = ActionType("dpo", "prefers", "m:f", (Slot("model", "model"), Slot("dataset", "preference")), {"beta": (0.1,)})
LINEAR = ActionType(
    "linear", "averages", "m:f", (Slot("models", "models", 2, 2, complement="weight"),), {"weight": (0.3, 0.5, 0.7)}
)
TIES = ActionType(
    "ties",
    "merges",
    "m:f",
    (Slot("models", "models", 2, 3, role="produced"), Slot("base", "model", role="initial")),
    {"density": (0.5,)},
)
TYPES = (SFT, DPO, LINEAR, TIES)
DATASETS = (
    Dataset("calls", "sft", "calls", "d1", 10, ""),
    Dataset("mixed", "sft", "mixed", "d2", 10, ""),
    Dataset("pairs", "preference", "pairs", "d3", 10, ""),
)


def model(number: int, depth: int = 0, base: int = 0, **more) -> Model:
    values = {"architecture": "LlamaForCausalLM", "vocabulary": 512} | more
    return Model(
        f"{number:08x}" + "0" * 24, "", run_id=f"run{number}", base=f"{base:08x}" + "0" * 24, depth=depth, **values
    )


def pool(produced: int = 0) -> list[Model]:
    return [model(0), *(model(n, depth=1) for n in range(1, produced + 1))]


def space(models=None, tried=(), types=TYPES, **more) -> ActionSpace:
    return ActionSpace(types, models or pool(), DATASETS, tried=tried, **more)


def base_trial(value: float = 0.2) -> Trial:
    return Trial(
        "run0", "base", "finished", None, model(0), {"calls": Score(value, 0.05)}, Score(value, 0.05), seconds=3
    )


def trial_of(action, number: int, value: float | None, reason: str = "", failure: str = "") -> Trial:
    first = action.models[0]
    kind = {"base": first.base, "architecture": first.architecture, "vocabulary": first.vocabulary}
    made = Model(action.fingerprint, "", run_id=f"run{number}", depth=1 + max(m.depth for m in action.models), **kind)
    if value is None:
        return Trial(
            f"run{number}", "action", "failed", action, None, status_reason=reason, failure=failure, started=number
        )
    scores = {"calls": Score(value, 0.05), "style": Score(1 - value, 0.05)}
    return Trial(
        f"run{number}", "action", "finished", action, made, scores, Score(value, 0.05), started=number, seconds=5
    )


def history(count: int = 0) -> History:
    """A base and `count` actions, every fourth failed."""
    trials = [base_trial()]
    models = pool()
    for number in range(1, count + 1):
        options = [a for t in TYPES for a in space(models).actions(t)]
        action = options[(number * 7) % len(options)]
        trial = trial_of(action, number, None if number % 4 == 0 else 0.2 + (number % 10) / 20, "NaN loss", "nan_loss")
        trials.append(trial)
        if trial.model and len(models) < 6:
            models.append(trial.model)
    return History(tuple(trials))
