"""Pipelines of earlier runs made again at another scale: other data, base, seed or settings; steps they share once."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from lamdagent.actions.action import Action, ActionType, Object, Scalar
from lamdagent.enumeration.fingerprint import canonical, fingerprint_of
from lamdagent.memory.lineage import ancestors
from lamdagent.memory.trial import MOST_LOST, RETRYABLE, History, Trial
from lamdagent.objects.dataset import Dataset
from lamdagent.objects.model import Model

State = Literal["made", "running", "failed", "due", "waits"]
"""Of a step: `due` can start now, `waits` needs a model that is not there yet, or never will be."""


@dataclass(frozen=True)
class Scale:
    """What is other than it was."""

    seed: int | None = None
    """Of every step, and where they had several, of the lowest: the next ones follow it. None: each keeps its own."""
    fraction: float | None = None
    """Share of the data for every step; None: each keeps its own."""
    settings: Mapping[str, Mapping[str, Scalar]] = field(default_factory=dict)
    """Action type -> hyperparameters with their values for every step of the type."""


@dataclass(frozen=True)
class Replay:
    """Pipelines, and at what scale they are made again."""

    trials: tuple[Trial, ...]
    """Their last steps; each has a model."""
    history: History
    """Where their pasts are."""
    scale: Scale = field(default_factory=Scale)
    bases: Mapping[str, str] = field(default_factory=dict)
    """Fingerprint of an initial model then -> name, under `models`, of the one that takes its place."""

    @property
    def title(self) -> str:
        """Of its search run."""
        one = self.trials[0]
        return f"replay of {one.name}" if len(self.trials) == 1 else f"replay of {len(self.trials)} pipelines"

    @property
    def content(self) -> list[Any]:
        """What tells it from another one, as JSON: so a restart goes on with the same."""
        scale = self.scale
        return [[t.run_id for t in self.trials], scale.seed, scale.fraction, scale.settings, sorted(self.bases.items())]

    def moved(self, action: Action, models: Mapping[str, Model | Dataset], kind: ActionType) -> Action:
        """The same step at the new scale, on `models`: fingerprint of an input then -> what it is now."""
        own = sorted({trial.action.seed for trial in self.sources if trial.action})
        seed = action.seed if self.scale.seed is None else self.scale.seed + own.index(action.seed)
        fraction = action.data_fraction if self.scale.fraction is None else self.scale.fraction
        return transplanted(action, models, kind, seed, fraction, self.scale.settings.get(action.type, {}))

    @cached_property
    def sources(self) -> list[Trial]:
        """Every step of the pipelines once, inputs before their uses."""
        found = {trial.run_id: trial for last in self.trials for trial in self.line(last)}
        return list(found.values())

    def line(self, last: Trial) -> list[Trial]:
        """The steps of one pipeline, inputs before their uses."""
        return [trial for _, trial in _line(last, self.history) if trial and trial.action]


@dataclass(frozen=True)
class Step:
    """One action of the pipelines."""

    source: Trial
    """Which one of the past."""
    action: Action | None
    """The same at the new scale; None while its inputs are not made."""
    state: State
    trial: Trial | None = None
    """At the new scale, once it is made or has failed."""
    why: str = ""
    """Why it failed, for a person."""


def steps(
    replay: Replay, now: History, types: Sequence[ActionType], initial: Mapping[str, Model], since: int = 0
) -> Mapping[str, Step]:
    """Every step by the run id of its source, inputs before their uses.

    `now` has what has been made at the new scale, `initial` the models under `models`. What failed before `since`
    (milliseconds since the epoch) is due again.
    """
    trials: dict[str, list[Trial]] = {}
    for trial in now.actions:
        trials.setdefault(trial.action.fingerprint if trial.action else "", []).append(trial)
    found: dict[str, Step] = {}
    models: dict[str, Model | Dataset] = {}
    at_hand = {model.fingerprint: model for model in initial.values()}
    at_hand |= {then: initial[name] for then, name in replay.bases.items()}
    for model, source in (pair for last in replay.trials for pair in _line(last, replay.history)):
        if source is None or source.action is None:
            models |= {model.fingerprint: at_hand[model.fingerprint]} if model.fingerprint in at_hand else {}
        elif source.run_id not in found:
            found[source.run_id] = step = _step(replay, source, source.action, types, models, trials, since)
            if step.state == "made" and step.trial and step.trial.model:
                models[model.fingerprint] = step.trial.model
                models |= made_again(source, step.trial)
    return found


def _line(last: Trial, history: History) -> Iterator[tuple[Model, Trial | None]]:
    """Every model that the pipeline makes or starts from, inputs before their uses, with its trial."""
    yield from ancestors(last, history).items()
    assert last.model is not None
    yield last.model, last


def _step(
    replay: Replay,
    source: Trial,
    action: Action,
    types: Sequence[ActionType],
    models: Mapping[str, Model | Dataset],
    trials: Mapping[str, Sequence[Trial]],
    since: int,
) -> Step:
    kind = next((one for one in types if one.name == action.type), None)
    if kind is None or action.missing:
        return Step(source, None, "failed", why=f"{action.describe()} is of an action or data that is not configured")
    missing = [thing for thing in action.made if thing.fingerprint not in models]
    if gone := [thing.name for thing in missing if isinstance(thing, Model) and thing.initial]:
        return Step(source, None, "failed", why=f"the initial model {gone[0]} is not at hand, or not what it was")
    if missing:
        return Step(source, None, "waits")
    moved = replay.moved(action, models, kind)
    if len(set(moved.models)) < len(set(action.models)):
        return Step(source, None, "failed", why=f"the inputs of {action.describe()} have become one and the same model")
    return _standing(source, moved, trials.get(moved.fingerprint, ()), since)


def _standing(source: Trial, action: Action, trials: Sequence[Trial], since: int) -> Step:
    """What has become of an action; `trials` are all of it."""
    done = [trial for trial in trials if trial.score and trial.model]
    if done:
        return Step(source, action, "made", max(done, key=lambda trial: not trial.pruned))
    if running := [trial for trial in trials if trial.status == "running"]:
        return Step(source, action, "running", running[-1])
    failed = [trial for trial in trials if trial.status == "failed" and trial.started >= since]
    lost = [trial for trial in failed if trial.failure == "lost_worker"]
    final = [trial for trial in failed if trial.failure not in RETRYABLE] or lost[MOST_LOST - 1 :]
    if final:
        return Step(source, action, "failed", final[-1], final[-1].status_reason or "it failed without a reason")
    return Step(source, action, "due")


def made_again(then: Trial, now: Trial) -> dict[str, Dataset]:
    """Fingerprint of the data that an action made then -> what it has made now; empty where it makes none."""
    return {then.dataset.fingerprint: now.dataset} if then.dataset and now.dataset else {}


def transplanted(
    action: Action,
    models: Mapping[str, Model | Dataset],
    kind: ActionType,
    seed: int,
    fraction: float,
    settings: Mapping[str, Scalar] | None = None,
) -> Action:
    """The same step on other inputs; `models`: fingerprint of one then -> what it is now, declared data as it was.

    `settings` are hyperparameters that have another value now.
    """
    objects = {slot: [_now(thing, models) for thing in things] for slot, things in action.objects.items()}
    ordered, values = canonical(kind, objects, {**action.hyperparameters, **(settings or {})})
    return replace(
        action,
        models=tuple(o for slot in kind.slots for o in ordered[slot.name] if isinstance(o, Model)),
        datasets=tuple(o for slot in kind.slots for o in ordered[slot.name] if isinstance(o, Dataset)),
        hyperparameters=values,
        inputs={name: tuple(o.ref for o in chosen) for name, chosen in ordered.items()},
        fingerprint=fingerprint_of(kind, ordered, values, seed, fraction),
        seed=seed,
        data_fraction=fraction,
        processes=kind.processes,
    )


def _now(thing: Object, models: Mapping[str, Model | Dataset]) -> Object:
    return models[thing.fingerprint] if isinstance(thing, Model) else models.get(thing.fingerprint, thing)
