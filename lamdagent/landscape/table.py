"""The recorded landscape: every action of a space with the scores it got, as gzipped JSON lines.

The first line says how it was made and what the space is; each further line is one base model or one action, inputs
before their uses. Written by scripts/studies/record_landscape.py.
"""

import gzip
import hashlib
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

from lamdagent.actions.action import Action, ActionType, Slot
from lamdagent.errors import UserError
from lamdagent.evaluation.task import Score, Task, weighted_score
from lamdagent.memory.trial import ActionTrial, Trial, best_first, has_action
from lamdagent.objects.dataset import Dataset
from lamdagent.objects.model import Model
from lamdagent.objects.reference import ObjectRef

SHIPPED = "letters.jsonl.gz"
"""The table that comes with the package, see docs/policies.md."""
SLOT_FIELDS = {"mirror": "complement", "unlike": "distinct_from"}
"""A field of `Slot` in tables of older versions -> its name now."""


@dataclass(frozen=True)
class Landscape:
    """All trials that can be had with one training seed."""

    seed: int
    """Given to every action when it was recorded."""
    types: tuple[ActionType, ...]
    datasets: tuple[Dataset, ...]
    tasks: tuple[Task, ...]
    base: Trial
    trials: tuple[Trial, ...]
    """Actions, inputs before their uses unless shuffled; run id = model fingerprint = digest of seed and number."""

    @cached_property
    def best(self) -> float:
        """The highest score in it."""
        return max(t.score.value for t in best_first((self.base, *self.trials)))

    @cached_property
    def by_type(self) -> Mapping[str, tuple[ActionTrial, ...]]:
        """Type name -> its trials."""
        known = list(filter(has_action, self.trials))
        return {t.name: tuple(trial for trial in known if trial.action.type == t.name) for t in self.types}

    def shuffled(self, seed: int) -> "Landscape":
        """The same with types and actions in another order: no policy is to profit from the order of a file."""
        rng = random.Random(seed)
        return replace(
            self,
            types=tuple(rng.sample(self.types, len(self.types))),
            trials=tuple(rng.sample(self.trials, len(self.trials))),
        )

    def without(self, types: Sequence[str] = (), deeper_than: int | None = None) -> "Landscape":
        """The part without these action types and without pipelines of more than so many actions."""
        kept: list[Trial] = []
        known = {self.base.run_id}
        for trial in filter(has_action, self.trials):
            depth = 1 + max(m.depth for m in trial.action.models)
            fits = trial.action.type not in types and (deeper_than is None or depth <= deeper_than)
            if fits and all(parent in known for parent in trial.parents):
                kept.append(trial)
                known.add(trial.run_id)
        return replace(self, types=tuple(t for t in self.types if t.name not in types), trials=tuple(kept))


def write(path: Path, header: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a table; equal contents give equal bytes."""
    lines = [json.dumps(line, separators=(",", ":")) for line in (header, *rows)]
    path.write_bytes(gzip.compress(("\n".join(lines) + "\n").encode(), mtime=0))


def describe(types: Sequence[ActionType], datasets: Sequence[Dataset], tasks: Sequence[Task]) -> dict[str, Any]:
    """The space as the header keeps it."""
    return {
        "types": [{**asdict(t), "grid": {k: list(v) for k, v in t.grid.items()}} for t in types],
        "datasets": [{**asdict(d), "path": ""} for d in datasets],
        "tasks": [{"name": t.name, "task": t.task, "metric": t.metric, "weight": t.weight} for t in tasks],
    }


def load(path: Path | None = None) -> tuple[dict[str, Any], list[Landscape]]:
    """The header and one landscape per seed; without a path the shipped table.

    Raises:
        UserError: the file is not there or no such table.
    """
    source = path or Path(str(files("lamdagent.landscape") / SHIPPED))
    try:
        lines = gzip.decompress(source.read_bytes()).decode().splitlines()
        header, *rows = map(json.loads, lines)
        types = tuple(_type(t) for t in header["types"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{source} is no recorded landscape ({error}); scripts/studies/record_landscape.py makes one."
        ) from None
    datasets = tuple(Dataset(**d) for d in header["datasets"])
    tasks = tuple(Task(**t) for t in header["tasks"])
    seeds = sorted({row["seed"] for row in rows})
    return header, [_landscape(s, types, datasets, tasks, [r for r in rows if r["seed"] == s]) for s in seeds]


def _type(told: dict[str, Any]) -> ActionType:
    slots = tuple(_slot(slot) for slot in told["slots"])
    return ActionType(**{**told, "slots": slots, "grid": {k: tuple(v) for k, v in told["grid"].items()}})


def _slot(told: dict[str, Any]) -> Slot:
    """A slot as the header keeps it; tables of older versions have other words for two of its fields."""
    return Slot(**{SLOT_FIELDS.get(key, key): value for key, value in told.items()})


def _landscape(
    seed: int,
    types: tuple[ActionType, ...],
    datasets: tuple[Dataset, ...],
    tasks: tuple[Task, ...],
    rows: Sequence[Mapping[str, Any]],
) -> Landscape:
    by_name = {t.name: t for t in types}
    data = {d.name: d for d in datasets}
    models: dict[int, Model] = {}
    trials = []
    for row in rows:
        digest = hashlib.sha256(f"{seed} {row['id']}".encode()).hexdigest()[:32]
        action = _action(digest, row, by_name[row["type"]], models, data) if row["type"] else None
        root = next(iter(models.values())).base if models else digest
        model = Model(digest, "", digest, root, 1 + max(m.depth for m in action.models) if action else 0)
        models[row["id"]] = model
        trials.append(_trial(row, digest, action, model, tasks))
    return Landscape(seed, types, datasets, tasks, trials[0], tuple(trials[1:]))


def _action(
    digest: str,
    row: Mapping[str, Any],
    action_type: ActionType,
    models: Mapping[int, Model],
    data: Mapping[str, Dataset],
) -> Action:
    inputs = [models[i] for i in row["models"]]
    sets = [data[name] for name in row["datasets"]]
    slots: dict[str, tuple[ObjectRef, ...]] = {}
    left_models, left_sets = list(inputs), list(sets)
    for slot in action_type.slots:
        if slot.several:
            others = sum(s.holds_models and not s.several for s in action_type.slots)
            slots[slot.name] = tuple(left_models.pop(0).ref for _ in range(len(left_models) - others))
        elif slot.holds_models:
            slots[slot.name] = (left_models.pop(0).ref,)
        else:
            slots[slot.name] = (left_sets.pop(0).ref,)
    fixed = {key: values[0] for key, values in action_type.grid.items()}
    return Action(
        action_type.name,
        tuple(inputs),
        tuple(sets),
        {**fixed, **row["values"]},
        digest,
        slots,
        row["seed"],
        choices=action_type.choices,
    )


def _trial(row: Mapping[str, Any], digest: str, action: Action | None, model: Model, tasks: Sequence[Task]) -> Trial:
    scores = {name: Score(value, error) for name, (value, error) in row["scores"].items()}
    return Trial(
        run_id=digest,
        kind="action" if action else "base",
        status="failed" if row["failure"] else "finished",
        action=action,
        model=None if row["failure"] else model,
        scores=scores,
        score=weighted_score(tasks, scores),
        status_reason=row["failure"],
        parents=tuple(m.fingerprint for m in action.models) if action else (),
        seconds=row["seconds"],
        name=model.name,
    )
