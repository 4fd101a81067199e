"""STEP 1: (action types, pool) -> legal actions, lazily, each with its canonical fingerprint (paper, section 3.1).

Nothing here builds the whole space: a pool of 10,000 models has 10^8 pairs. Counting is arithmetic, iteration is lazy,
sampling draws objects directly.
"""

import itertools
import math
import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cached_property
from operator import attrgetter, itemgetter
from typing import Any

from lamdagent.actions.action import Action, ActionType, Scalar, Slot
from lamdagent.enumeration.fingerprint import Objects, canonical, check_values, fingerprint_of
from lamdagent.errors import IllegalAction
from lamdagent.objects.dataset import Dataset
from lamdagent.objects.model import Model
from lamdagent.objects.resource import Resource

SMALL = 512
"""Up to so many actions of a type, sampling enumerates them; beyond, it draws and rejects."""
COMPATIBILITY = ("vocabulary", "architecture", "frame", "base")
"""Fields of a model that decide which models fit together."""


def produced(action: Action, run_id: str) -> Model:
    """The model that `action` makes in `run_id`."""
    first = action.models[0]
    bases = {m.base for m in action.models}
    return Model(
        fingerprint=action.fingerprint,
        location=f"runs:/{run_id}/model",
        run_id=run_id,
        base=first.base if len(bases) == 1 else "",
        depth=1 + max(m.depth for m in action.models),
        architecture=first.architecture,
        vocabulary=first.vocabulary,
        frame=next((m.frame for m in action.models if m.frame), ""),
    )


class ActionSpace:
    """All legal actions over the current pool that are neither tried nor pending."""

    def __init__(
        self,
        types: Sequence[ActionType],
        models: Sequence[Model],
        datasets: Sequence[Dataset],
        *,
        tried: Collection[str] = (),
        seed: int = 0,
        data_fraction: float = 1.0,
        max_depth: int | None = None,
        resources: Sequence[Resource] = (),
    ) -> None:
        """`tried` holds fingerprints never to be offered; models of `max_depth` are no inputs any more."""
        self.types = tuple(types)
        self.models = tuple(m for m in models if max_depth is None or m.depth < max_depth)
        self.datasets = tuple(datasets)
        self.resources = tuple(resources)
        self.tried = frozenset(tried)
        self.seed = seed
        self.data_fraction = data_fraction
        self._groups_of: dict[str, list[dict[str, list[Any]]]] = {}
        self._compatible_of: dict[tuple[bool, bool, bool], list[list[Model]]] = {}
        self._every_of: dict[str, list[Action]] = {}

    @property
    def inputs(self) -> tuple[Dataset | Resource, ...]:
        """All that is no model: datasets, then resources."""
        return (*self.datasets, *self.resources)

    def among(self, models: Sequence[Model]) -> "ActionSpace":
        """The part of it with only these input models; initial ones should be among them, since they hold frames."""
        return ActionSpace(
            self.types,
            models,
            self.datasets,
            tried=self.tried,
            seed=self.seed,
            data_fraction=self.data_fraction,
            resources=self.resources,
        )

    def available(self) -> list[ActionType]:
        """Types with at least one legal untried action, in declared order."""
        # More actions than were ever tried: one is left, and no need to look for it.
        return [t for t in self.types if self._surely_left(t) or next(self.actions(t), None) is not None]

    def _surely_left(self, action_type: ActionType) -> bool:
        return self.size(action_type) > len(self.tried)

    def size(self, action_type: ActionType) -> int:
        """How many legal actions the type has; tried ones are not taken off."""
        mirrored = {slot.complement for slot in action_type.slots}
        grid = math.prod(len(values) for key, values in action_type.grid.items() if key not in mirrored)
        return grid * sum(self._choices(action_type, group) for group in self._compatibility_groups(action_type))

    def options(self, action_type: ActionType) -> dict[str, list[Any]]:
        """Slot name -> objects that fit it somewhere, in stable order."""
        groups = self._compatibility_groups(action_type)
        return {slot.name: _unique(o for group in groups for o in group[slot.name]) for slot in action_type.slots}

    def actions(self, action_type: ActionType) -> Iterator[Action]:
        """Every legal untried action of the type, lazily, in stable order."""
        for group in self._compatibility_groups(action_type):
            for objects in filter(action_type.holds_distinct, _assignments(action_type.slots, group)):
                for values in _grid(action_type, objects):
                    action = self._build(action_type, objects, values)
                    if action.fingerprint not in self.tried:
                        yield action

    def sample(self, action_type: ActionType, rng: random.Random) -> Action | None:
        """A uniform draw among the untried actions of the type; None when there is none."""
        if self.size(action_type) <= SMALL:
            every = self._every(action_type)
            return rng.choice(every) if every else None
        groups = self._compatibility_groups(action_type)
        weights = [self._choices(action_type, group) for group in groups]
        for _ in range(1000):
            group = rng.choices(groups, weights)[0]
            objects = {slot.name: _draw(slot, group[slot.name], rng) for slot in action_type.slots}
            values = {key: rng.choice(allowed) for key, allowed in action_type.grid.items()}
            if not action_type.holds_distinct(objects):
                continue
            action = self._build(action_type, objects, values)
            if action.fingerprint not in self.tried:
                return action
        return next(self.actions(action_type), None)

    def _every(self, action_type: ActionType) -> list[Action]:
        """All untried actions of a small type, listed once: a turn draws hundreds of times."""
        if action_type.name not in self._every_of:
            self._every_of[action_type.name] = list(self.actions(action_type))
        return self._every_of[action_type.name]

    def make(self, type_name: str, objects: Objects, hyperparameters: Mapping[str, Scalar]) -> Action:
        """The action of these objects.

        Raises:
            IllegalAction: with what is allowed, when an object does not fit, a value is not on the grid, or the action
                has been tried or is pending.
        """
        action_type = next((t for t in self.types if t.name == type_name), None)
        if action_type is None:
            raise IllegalAction(
                f"there is no action type {type_name!r}; allowed: {', '.join(t.name for t in self.types)}"
            )
        self._check_objects(action_type, objects)
        values = check_values(action_type, hyperparameters)
        action = self._build(action_type, objects, values)
        if action.fingerprint in self.tried:
            raise IllegalAction(f"{action.describe()} has been tried already or is running; choose another combination")
        return action

    def _build(self, action_type: ActionType, given: Objects, values: Mapping[str, Scalar]) -> Action:
        ordered, settled = canonical(action_type, given, values)
        objects = [o for slot in action_type.slots for o in ordered[slot.name]]
        return Action(
            type=action_type.name,
            models=tuple(o for o in objects if isinstance(o, Model)),
            datasets=tuple(o for o in objects if isinstance(o, Dataset)),
            resources=tuple(o for o in objects if isinstance(o, Resource)),
            hyperparameters=settled,
            fingerprint=fingerprint_of(action_type, ordered, settled, self.seed, self.data_fraction),
            inputs={name: tuple(o.ref for o in chosen) for name, chosen in ordered.items()},
            seed=self.seed,
            data_fraction=self.data_fraction,
            choices=action_type.choices,
            processes=action_type.processes,
        )

    def _compatibility_groups(self, action_type: ActionType) -> list[dict[str, list[Any]]]:
        """Groups of objects within which models fit together: those of a merge (and their base), teacher and student.

        Within a group every choice is legal but one model in two slots that must be unlike.
        """
        if action_type.name not in self._groups_of:  # a sample of a large pool asks hundreds of times
            self._groups_of[action_type.name] = self._grouped(action_type)
        return self._groups_of[action_type.name]

    def _grouped(self, action_type: ActionType) -> list[dict[str, list[Any]]]:
        merges = action_type.takes_several_models
        rebased = merges and any(slot.holds_models and not slot.several for slot in action_type.slots)
        paired = any(slot.distinct_from for slot in action_type.slots)
        compatible = self._compatible(merges, rebased, paired)
        groups = [{s.name: self._fitting(s, models) for s in action_type.slots} for models in compatible]
        return [group for group in groups if self._choices(action_type, group) > 0]

    def _compatible(self, merges: bool, rebased: bool, paired: bool) -> list[list[Model]]:
        """Models that fit together; most types ask for one of three ways, and a pool may be large."""
        wanted = [*(("vocabulary",) if paired or merges else ()), *(("architecture", "frame") if merges else ())]
        wanted += ["base"] if rebased else []
        if not wanted:
            return [list(self.models)] if self.models else []
        if (merges, rebased, paired) not in self._compatible_of:
            groups: dict[Any, list[Model]] = {}
            key_of = itemgetter(*(COMPATIBILITY.index(key) for key in wanted))
            for model, values in zip(self.models, self._compatibility, strict=True):
                groups.setdefault(key_of(values), []).append(model)
            self._compatible_of[merges, rebased, paired] = list(groups.values())
        return self._compatible_of[merges, rebased, paired]

    @cached_property
    def _compatibility(self) -> list[tuple[Any, ...]]:
        """`COMPATIBILITY` of each model."""
        frames = {model.fingerprint: model.frame for model in self.models if model.initial}
        return [(m.vocabulary, m.architecture, m.frame or frames.get(m.base, ""), m.base) for m in self.models]

    def _fitting(self, slot: Slot, models: Sequence[Model]) -> list[Any]:
        if not slot.holds_models:
            return [o for o in self.inputs if o.fits(slot.kind, slot.columns)]
        if slot.role == "any":
            return list(models)
        return [m for m in models if m.initial == (slot.role == "initial")]

    def _choices(self, action_type: ActionType, group: Mapping[str, Sequence[Any]]) -> int:
        counts = {slot.name: _count(action_type, slot, len(group[slot.name])) for slot in action_type.slots}
        total = math.prod(counts.values())
        for slot in action_type.slots:
            if slot.distinct_from:  # less those with one model in both places
                both = len({*group[slot.name]} & {*group[slot.distinct_from]})
                rest = math.prod(n for name, n in counts.items() if name not in (slot.name, slot.distinct_from))
                total -= both * rest
        return total

    def _check_objects(self, action_type: ActionType, objects: Objects) -> None:
        groups = self._compatibility_groups(action_type)
        for slot in action_type.slots:
            chosen = list(objects.get(slot.name, ()))
            if not slot.minimum <= len(chosen) <= slot.maximum or len(set(chosen)) != len(chosen):
                wanted = f"{slot.minimum}" if slot.minimum == slot.maximum else f"{slot.minimum} to {slot.maximum}"
                raise IllegalAction(
                    f"{action_type.name}.{slot.name} takes {wanted} different objects, not {len(chosen)}"
                )
            for thing in chosen:
                if not any(thing in group[slot.name] for group in groups):
                    raise IllegalAction(f"{action_type.name}.{slot.name} cannot take {thing.name}")
        if not any(all(o in group[s] for s in group for o in objects[s]) for group in groups):
            raise IllegalAction(
                f"these models do not fit together in {action_type.name}: architecture, tokenizer or base differ"
            )
        if not action_type.holds_distinct(objects):
            pair = next(f"{slot.name} and {slot.distinct_from}" for slot in action_type.slots if slot.distinct_from)
            raise IllegalAction(f"{action_type.name} takes different models as {pair}; choose another one for either")


def _count(action_type: ActionType, slot: Slot, n: int) -> int:
    shares = len(action_type.grid[slot.complement]) if slot.complement else 1
    return sum(_ways(slot)(n, k) * (shares if k == 2 else 1) for k in range(slot.minimum, slot.maximum + 1))


def _ways(slot: Slot) -> Callable[[int, int], int]:
    return math.perm if slot.ordered else math.comb


def _assignments(slots: Sequence[Slot], group: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    """Every way to fill the slots, without holding them (itertools.product would)."""
    if not slots:
        yield {}
        return
    for chosen in _picks(slots[0], group[slots[0].name]):
        for rest in _assignments(slots[1:], group):
            yield {slots[0].name: chosen, **rest}


def _picks(slot: Slot, things: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
    ordered = sorted(things, key=attrgetter("fingerprint")) if slot.several else things
    for k in range(slot.minimum, slot.maximum + 1):
        yield from itertools.permutations(ordered, k) if slot.ordered else itertools.combinations(ordered, k)


def _draw(slot: Slot, things: Sequence[Any], rng: random.Random) -> list[Any]:
    sizes = range(slot.minimum, slot.maximum + 1)
    k = rng.choices(sizes, [_ways(slot)(len(things), size) for size in sizes])[0]
    return rng.sample(things, k)


def _grid(action_type: ActionType, objects: Objects) -> Iterator[dict[str, Scalar]]:
    unused = {s.complement for s in action_type.slots if s.complement and len(objects[s.name]) != 2}
    axes = {key: values[:1] if key in unused else values for key, values in action_type.grid.items()}
    for values in itertools.product(*axes.values()):
        yield dict(zip(axes, values, strict=True))


def _unique(things: Iterator[Any]) -> list[Any]:
    return list(dict.fromkeys(things))
