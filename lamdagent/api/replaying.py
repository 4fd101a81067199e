"""`lamdagent.replay`: the pipeline that made a run, made again at another scale."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lamdagent.api.composing import Composed, Overrides, compose
from lamdagent.api.searching import terminal
from lamdagent.config import read
from lamdagent.libraries import quiet_libraries
from lamdagent.memory.trial import History, Trial

if TYPE_CHECKING:
    from lamdagent.api.result import Result
    from lamdagent.api.session import Conclude, Ended
    from lamdagent.loop.terminal import Terminal
    from lamdagent.planning.plan import Plan
    from lamdagent.scaling.replay_plan import Replay, Step
    from lamdagent.scaling.replay_setup import ReplaySetup


@dataclass(frozen=True)
class Pair:
    """One pipeline at the two scales."""

    then: Trial
    now: Trial


@dataclass(frozen=True)
class Replayed:
    """Pipelines that were made again, or would be."""

    plan: "Plan"
    """Plan that was, or would be, carried out."""
    replay: "Replay"
    """The old pipelines, and the scale at which they are made again."""
    pairs: tuple[Pair, ...] = ()
    """The pipelines that could be made; none with `dry_run`."""
    result: "Result | None" = None
    """Result of the search run that holds them; None with `dry_run`."""

    @property
    def steps(self) -> tuple[Trial, ...]:
        """Every step that is repeated once, as it was, inputs before their uses."""
        return tuple(self.replay.sources)

    @property
    def past(self) -> History:
        """The old pipelines with all that they rest on."""
        return self.replay.history

    @property
    def changes(self) -> Mapping[str, object]:
        """Key -> value, of what is other than it was."""
        new, bases = self.replay.overrides, ", ".join(self.replay.bases.values())
        said = {"data_fraction": new.fraction, "search.seed": new.seed, "base": bases}
        known: dict[str, object] = {key: value for key, value in said.items() if value not in (None, "")}
        steps = new.settings.items()
        return known | {f"{name}.{key}": value for name, values in steps for key, value in values.items()}


def replay(
    run_id: str,
    overrides: Overrides = (),
    *,
    experiment: str | None = None,
    config_dir: str | Path | None = None,
    dry_run: bool = False,
    progress: bool = True,
) -> Replayed:
    """The pipeline of a run, made again as new runs under a search run of its own; what the store has is not repeated.

    Call it in the folder that the search was started in, so that its datasets and functions are found.

    Args:
        run_id: MLflow run of an action.
        overrides: What is other than it was: `data_fraction`, `base`, `search.seed`, `actions.NAME.hyperparameters.KEY`
            and the like; the rest is as the run was found with.
        experiment: As for `search`; only for what the overrides name.
        config_dir: As for `search`.
        dry_run: Only list the steps.
        progress: As for `search`.

    Raises:
        UserError: there is nothing to replay, or something that it needs is not there.
        NotReplayed: a step failed; what was made before it stays.
        KeyboardInterrupt: as for `search`.
    """
    composed = compose(experiment, overrides, config_dir)
    view = terminal(progress)
    return carried_out(replay_setup(composed, run_id), view, dry_run or read(composed.node).dry_run)[0]


def replay_setup(composed: Composed, run_id: str) -> "ReplaySetup":
    """The replay of one run, checked.

    Raises:
        UserError: there is nothing to replay, or something that it needs is not there.
    """
    quiet_libraries()
    from lamdagent.scaling.pipeline_records import read_pipelines
    from lamdagent.scaling.replay_setup import make_replay_setup
    from lamdagent.tracking.reading import open_store_of

    store = open_store_of(read(composed.node).tracking.uri, run_id)
    return make_replay_setup(read_pipelines(store, [run_id]), 1, composed.node, composed.overrides, store.experiment)


def carried_out(
    setup: "ReplaySetup", view: "Terminal", dry_run: bool, conclude: "Conclude | None" = None
) -> "tuple[Replayed, Ended | None]":
    """The replay, done unless `dry_run`, and the search that did it.

    Raises:
        NotReplayed: no pipeline could be made.
    """
    for warning in setup.warnings:
        view.say(warning, "yellow")
    if dry_run:
        return Replayed(setup.plan, setup.replay), None
    from lamdagent.api.session import carry_out

    ended = carry_out(setup.plan, setup.config_yaml, view, setup.replay, conclude)
    return Replayed(setup.plan, setup.replay, pairs_of(ended.steps), ended.result), ended


def pairs_of(steps: "tuple[Step, ...]") -> tuple[Pair, ...]:
    """The pipelines that were made."""
    return tuple(Pair(step.source, step.trial) for step in steps if step.state == "made" and step.trial)
