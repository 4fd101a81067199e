"""The plan of a replay: which steps of earlier pipelines are made again at another scale, and which can start now.

The scale is the share of the data, the base, the seed or the settings. A step that several pipelines share is made
once.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal

from lamdagent.actions.action import Action, ActionType, Object, Scalar
from lamdagent.enumeration.fingerprint import canonical, fingerprint_of
from lamdagent.memory.lineage import ancestors
from lamdagent.memory.trial import MOST_LOST, RETRYABLE, History, Trial
from lamdagent.objects.dataset import Dataset
from lamdagent.objects.model import Model

State = Literal["made", "running", "failed", "due", "waits"]
"""The state of a step. `due`: it can start now. `waits`: an input is not made yet, or never will be."""


@dataclass(frozen=True)
class ReplayOverrides:
    """The values that differ from those of the earlier runs."""

    seed: int | None = None
    """The new seed; None: each step keeps its own.

    Where the steps had several seeds, the lowest becomes this one, the next lowest this one plus 1, and so on.
    """
    fraction: float | None = None
    """Share of the data for every step; None: each step keeps its own."""
    settings: Mapping[str, Mapping[str, Scalar]] = field(default_factory=dict)
    """Action type -> hyperparameters with their new values, for every step of the type."""
    one_seed: bool = False
    """Every step gets `seed` itself, also where the steps had several seeds."""


@dataclass(frozen=True)
class Replay:
    """Pipelines, and the scale at which they are made again."""

    trials: tuple[Trial, ...]
    """The last step of each pipeline; each has a model."""
    history: History
    """The trials that the pipelines consist of."""
    overrides: ReplayOverrides = field(default_factory=ReplayOverrides)
    bases: Mapping[str, str] = field(default_factory=dict)
    """Fingerprint of an earlier initial model -> name, under `models`, of the model that replaces it."""

    @property
    def title(self) -> str:
        """The name of the replay's search run."""
        one = self.trials[0]
        return f"replay of {one.name}" if len(self.trials) == 1 else f"replay of {len(self.trials)} pipelines"

    @property
    def content(self) -> list[Any]:
        """The JSON values that identify the replay, so that a restart goes on with the same one."""
        new = self.overrides
        return [[t.run_id for t in self.trials], new.seed, new.fraction, new.settings, sorted(self.bases.items())]

    def rebound(self, action: Action, models: Mapping[str, Model | Dataset], kind: ActionType) -> Action:
        """The same step at the new scale; `models`: fingerprint of an earlier input -> the input now."""
        new = self.overrides
        fraction = action.data_fraction if new.fraction is None else new.fraction
        return rebind(action, models, kind, self._seed(action.seed), fraction, new.settings.get(action.type, {}))

    def _seed(self, then: int) -> int:
        new = self.overrides
        if new.seed is None or new.one_seed:
            return then if new.seed is None else new.seed
        return new.seed + sorted({trial.action.seed for trial in self.sources if trial.action}).index(then)

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
    """One action of the pipelines, and how far its repetition is."""

    source: Trial
    """The earlier trial."""
    action: Action | None
    """The action at the new scale; None while its inputs are not made."""
    state: State
    trial: Trial | None = None
    """The trial at the new scale, once it has ended or runs."""
    why: str = ""
    """Why it failed, for a person; only of a failed step."""


def steps(
    replay: Replay,
    now: History,
    types: Sequence[ActionType],
    initial: Mapping[str, Model],
    since: int = 0,
    *,
    given: Mapping[str, Model | Dataset] = MappingProxyType({}),
    retry: bool = True,
) -> Mapping[str, Step]:
    """Every step by the run id of its source, inputs before their uses.

    Args:
        replay: The pipelines and the new scale.
        now: The history that the steps at the new scale are in.
        types: The action types that are configured.
        initial: Name under `models` -> initial model.
        since: Milliseconds since the epoch; a step that failed earlier is due again.
        given: Fingerprint -> model or data that no step of the pipelines makes and that is used as it is.
        retry: Whether a step is due again after a failure of its surroundings, and usable though its weights are gone.
    """
    trials: dict[str, list[Trial]] = {}
    for trial in now.actions:
        trials.setdefault(trial.action.fingerprint if trial.action else "", []).append(trial)
    found: dict[str, Step] = {}
    models: dict[str, Model | Dataset] = dict(given)
    at_hand = {model.fingerprint: model for model in initial.values()}
    at_hand |= {then: initial[name] for then, name in replay.bases.items()}
    for model, source in (pair for last in replay.trials for pair in _line(last, replay.history)):
        if source is None or source.action is None:
            models |= {model.fingerprint: at_hand[model.fingerprint]} if model.fingerprint in at_hand else {}
        elif source.run_id not in found:
            step = _step(replay, source, source.action, types, models)
            if isinstance(step, Action):
                step = _progress(source, step, trials.get(step.fingerprint, ()), since, retry)
            found[source.run_id] = step
            if step.state == "made" and step.trial and step.trial.model:
                models[model.fingerprint] = step.trial.model
                models |= made_again(source, step.trial)
    return found


def _line(last: Trial, history: History) -> Iterator[tuple[Model, Trial | None]]:
    """Every model that the pipeline makes or starts from with its trial, inputs before their uses."""
    yield from ancestors(last, history).items()
    assert last.model is not None
    yield last.model, last


def _step(
    replay: Replay,
    source: Trial,
    action: Action,
    types: Sequence[ActionType],
    models: Mapping[str, Model | Dataset],
) -> Step | Action:
    """The action at the new scale, or the step where there can be none (yet)."""
    kind = next((one for one in types if one.name == action.type), None)
    if kind is None or action.missing:
        return Step(source, None, "failed", why=f"{action.describe()} is of an action or data that is not configured")
    missing = [thing for thing in action.made if thing.fingerprint not in models]
    if gone := [thing.name for thing in missing if isinstance(thing, Model) and thing.initial]:
        return Step(source, None, "failed", why=f"the initial model {gone[0]} is not at hand, or not what it was")
    if missing:
        return Step(source, None, "waits")
    rebound = replay.rebound(action, models, kind)
    if len(set(rebound.models)) < len(set(action.models)):
        return Step(source, None, "failed", why=f"the inputs of {action.describe()} have become one and the same model")
    return rebound


def _progress(source: Trial, action: Action, trials: Sequence[Trial], since: int, retry: bool) -> Step:
    """The step of an action; `trials`: every trial of that action."""
    done = [trial for trial in trials if trial.score and trial.model]
    if done and (retry or not all(trial.pruned for trial in done)):
        return Step(source, action, "made", max(done, key=lambda trial: not trial.pruned))
    if running := [trial for trial in trials if trial.status == "running"]:
        return Step(source, action, "running", running[-1])
    failed = [trial for trial in trials if trial.status == "failed" and trial.started >= since]
    lost = [trial for trial in failed if trial.failure == "lost_worker"]
    final = [trial for trial in failed if trial.failure not in RETRYABLE or not retry] or lost[MOST_LOST - 1 :]
    if final:
        return Step(source, action, "failed", final[-1], final[-1].status_reason or "it failed without a reason")
    if done:
        return Step(source, action, "failed", done[-1], "its weights have been deleted")
    return Step(source, action, "due")


def made_again(then: Trial, now: Trial) -> dict[str, Dataset]:
    """Fingerprint of the data that the earlier trial made -> the data that the new one made; {} without such data."""
    return {then.dataset.fingerprint: now.dataset} if then.dataset and now.dataset else {}


def rebind(
    action: Action,
    models: Mapping[str, Model | Dataset],
    kind: ActionType,
    seed: int,
    fraction: float,
    settings: Mapping[str, Scalar] | None = None,
) -> Action:
    """The same step on other inputs.

    Args:
        action: The earlier step.
        models: Fingerprint of an earlier input -> the input now; data that is not in it stays as it was.
        kind: The type of the action.
        seed: The new seed.
        fraction: The new share of the data.
        settings: Hyperparameters with a new value.
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
