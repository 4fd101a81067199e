"""An experiment as the store knows it: its trials as values and as a data frame."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from lamdagent.api.composing import Overrides, compose
from lamdagent.config import Config, MemoryConfig, read
from lamdagent.errors import UserError
from lamdagent.evaluation.task import Task
from lamdagent.memory.lineage import lineage_string
from lamdagent.memory.trial import History, Trial
from lamdagent.report import leaderboard

if TYPE_CHECKING:
    from pandas import DataFrame

    from lamdagent.planning.plan import Plan
    from lamdagent.tracking.store import RunStore


@dataclass(frozen=True)
class Trials(Sequence[Trial]):
    """The base models and actions of an experiment, oldest first."""

    history: History
    """The same with what rests on what."""
    tasks: tuple[Task, ...]
    """Tasks that the scores are of."""

    def __getitem__(self, index: Any) -> Any:
        """One trial, or several for a slice."""
        return self.history.trials[index]

    def __len__(self) -> int:
        """The number of trials."""
        return len(self.history.trials)

    def __iter__(self) -> Iterator[Trial]:
        """Oldest first."""
        return iter(self.history.trials)

    @property
    def best(self) -> tuple[Trial, ...]:
        """The trials with a score, best first."""
        return self.history.scored

    @property
    def base(self) -> Trial | None:
        """The best initial model: what gains are over."""
        return self.history.base()

    def to_frame(self) -> "DataFrame":
        """A pandas frame with a row for each trial.

        Columns: run_id, kind, status, action, hyperparameters (those that were chosen), datasets, parents (run ids),
        model, pipeline, score, score_stderr, test.score, task.NAME and test.NAME with their _stderr, state (of a
        finalist), policy, reason, failure, status_reason, seconds, started (UTC), search_run_id, pruned. What a trial
        has not is None, NaN or empty.
        """
        from pandas import DataFrame, to_datetime

        frame = DataFrame([_row(trial, self.history) for trial in self])
        if len(frame):
            frame["started"] = to_datetime(frame["started"], unit="ms", utc=True)
        return frame

    def __repr__(self) -> str:
        """How many there are of each status."""
        count = {status: sum(trial.status == status for trial in self) for status in ("finished", "failed", "running")}
        return f"<{len(self)} trials: {', '.join(f'{n} {status}' for status, n in count.items() if n) or 'none'}>"

    def _repr_html_(self) -> str:
        """The leaderboard."""
        from lamdagent.api.html import leaderboard_html

        return leaderboard_html(self)


def history(
    experiment: str | None = None, overrides: Overrides = (), *, config_dir: str | Path | None = None
) -> Trials:
    """All trials of an experiment in the store, read anew; nothing is run and nothing is written.

    Without tasks in the configuration, those of the experiment's newest finished search are taken.

    Args:
        experiment: As for `search`.
        overrides: As for `search`; `{"tracking.experiment": NAME}` alone will do.
        config_dir: As for `search`.

    Raises:
        UserError: the configuration is wrong, or there is no such store or experiment.
    """
    node = compose(experiment, overrides, config_dir).node
    store = existing_store(read(node), "history")
    outline = _outline(store, node)
    return Trials(history_of(store, outline), outline.tasks)


def existing_store(config: Config, who: str, *, look: bool = True) -> "RunStore":
    """The store, opened at an experiment that is there; `who` asks, as the message says. `look`: as for `RunStore`.

    Raises:
        UserError: there is no store, or no such experiment in it.
    """
    from lamdagent.tracking.external import open_to_read
    from lamdagent.tracking.store import RunStore

    name = config.tracking.experiment
    if not open_to_read(config.tracking.uri).experiment_id(name):
        raise UserError(f"{who}: the store has no experiment {name!r}; set tracking.experiment")
    return RunStore(config.tracking.uri, name, look=look)


def history_of(store: "RunStore", outline: "Plan") -> History:
    """Everything in the experiment, scored on the outline's tasks."""
    from lamdagent.memory.history import build_history
    from lamdagent.tracking.reading import read_every_run

    return build_history(read_every_run(store), outline.types, outline.datasets, outline.tasks)


def _outline(store: "RunStore", node: DictConfig) -> "Plan":
    from lamdagent.planning.plan import make_outline

    config = read(node)
    if not config.tasks:
        from lamdagent.scaling.pipeline_records import last_search, settings_of

        config = read(OmegaConf.create(dict(settings_of(store, last_search(store).run_id))))
    return make_outline(replace(config, memory=MemoryConfig()))


def _row(trial: Trial, known: History) -> Mapping[str, Any]:
    action = trial.action
    return {
        "run_id": trial.run_id,
        "kind": trial.kind,
        "status": trial.status,
        "action": action.type if action else None,
        "hyperparameters": {key: action.hyperparameters[key] for key in action.choices} if action else {},
        "datasets": [dataset.name for dataset in action.datasets] if action else [],
        "parents": list(trial.parents),
        "model": trial.model.name if trial.model else None,
        "pipeline": lineage_string(trial.model, known) if trial.model else action.describe() if action else trial.name,
        "score": None,
        **leaderboard.metrics_of(trial),
        **{key: getattr(trial, key) for key in ("state", "policy", "reason", "failure", "status_reason")},
        **{key: getattr(trial, key) for key in ("seconds", "started", "search_run_id", "pruned")},
    }
