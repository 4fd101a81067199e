"""`lamdagent.prune`: which models keep their weights and why; the others' are deleted."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lamdagent.api.composing import Overrides, compose
from lamdagent.api.trials import Trials, existing_store, history_of
from lamdagent.config import Config, read
from lamdagent.errors import UserError
from lamdagent.memory.trial import Trial

if TYPE_CHECKING:
    from lamdagent.tracking.store import RunStore


@dataclass(frozen=True)
class Weights:
    """The weights of one model."""

    trial: Trial
    bytes: int
    kept: str
    """Why they stay; empty when they go."""


@dataclass(frozen=True)
class Pruned:
    """Result of pruning an experiment's weights, or of a dry run."""

    experiment: str
    """MLflow experiment."""
    weights: tuple[Weights, ...]
    """Weights of every model that had some, best first."""
    freed_bytes: int
    """Deleted now; 0 with `dry_run`."""
    history: Trials
    """The experiment as it was before."""

    @property
    def gone(self) -> tuple[Weights, ...]:
        """Weights that are deleted, or would be."""
        return tuple(one for one in self.weights if not one.kept)

    @property
    def kept(self) -> tuple[Weights, ...]:
        """Weights that stay."""
        return tuple(one for one in self.weights if one.kept)


def prune(
    experiment: str | None = None,
    overrides: Overrides = (),
    *,
    config_dir: str | Path | None = None,
    dry_run: bool = False,
) -> Pruned:
    """Which weights of an experiment stay and why, the others deleted; runs, scores, recipes and adapters all stay.

    Args:
        experiment: As for the search.
        overrides: As for the search; `retention.keep_best` says how many of the best models stay.
        config_dir: As for the search.
        dry_run: Delete nothing.

    Raises:
        UserError: the configuration is wrong or has no tasks, or there is no such store or experiment.
    """
    config = read(compose(experiment, overrides, config_dir).node)
    return pruned(config, dry_run or config.dry_run)


def pruned(config: Config, dry_run: bool) -> Pruned:
    """`prune` with a configuration that is composed already."""
    if not config.tasks:
        raise UserError(
            "prune: no tasks are given, so nobody can tell good models from others; use the overrides of the search, "
            "such as `python -m lamdagent prune +experiment=tooluse`"
        )
    from lamdagent.planning.plan import make_outline
    from lamdagent.weights import pruning

    outline = make_outline(config)
    store = existing_store(config, "prune", look=dry_run)
    history = history_of(store, outline)
    found = pruning.decisions(store, history, outline.tasks, config)
    weights = tuple(Weights(one.trial, pruning.size(store, one.trial), one.kept) for one in found)
    trials = Trials(history, outline.tasks)
    freed = 0 if dry_run else _delete(store, trials, [one.trial for one in weights if not one.kept])
    return Pruned(store.experiment, weights, freed, trials)


def _delete(store: "RunStore", trials: Trials, gone: list[Trial]) -> int:
    """The bytes that were freed; what an earlier prune that was cut off has left goes too."""
    from lamdagent.tracking.weights import delete_weights
    from lamdagent.weights import pruning

    for trial in trials.history.actions:
        if trial.pruned:
            delete_weights(store, trial.run_id)
    return pruning.prune(store, gone)
