"""A search's disk: room for the next action's weights, and none for those that nothing needs any more."""

import logging
import tempfile
from collections.abc import Callable
from pathlib import Path

from lamdagent.actions.action import Action
from lamdagent.execution.disk import Need, in_words, shortage
from lamdagent.files import cache_folder
from lamdagent.memory.trial import History, Trial
from lamdagent.objects.checksum import size_of
from lamdagent.objects.model import Model
from lamdagent.planning.plan import Plan
from lamdagent.tracking.outage import STORE_FAULTS
from lamdagent.tracking.reading import artifact_folder, experiment_folder
from lamdagent.tracking.store import RunStore
from lamdagent.tracking.weights import cached_model
from lamdagent.weights import pruning

log = logging.getLogger(__name__)


class DiskManager:
    """The disk of one search, looked at before and after each action."""

    def __init__(self, store: RunStore, plan: Plan) -> None:
        """Ask the store where weights go, waiting for its answer."""
        self._store = store
        self._plan = plan
        self._workplace = experiment_folder(store) or Path(tempfile.gettempdir())
        """Where weights are written first: among local artifacts, else in the temporary folder."""

    def disk_full_reason(self, action: Action, history: History, search_run_id: str) -> str:
        """Why the action cannot start, and what may be deleted; empty where it fits on the disks here.

        That is its new weights, those of the search's running actions, and inputs that have to be fetched.
        """
        running = [t.action for t in history.actions if t.status == "running" and t.search_run_id == search_run_id]
        new = sum(max(map(_bytes, a.models)) for a in (action, *running) if a.models)
        needs = [Need(self._workplace, new, "new weights")]
        needs += [Need(cache_folder(), m.bytes, f"fetching {m.name}") for m in action.models if self._is_away(m)]
        if problem := shortage(needs):
            reason = f"there is no room for {action.describe()}: {problem}. Make space; then the same command goes on."
            return f"{reason} {self._what_may_go(history)}".rstrip()
        return ""

    def after(self, history: History, say: Callable[[str], None]) -> None:
        """Delete the weights that nothing needs, where the user wants that after each action.

        What goes wrong with it is logged and hurts nothing: the next time makes up for it.
        """
        if not self._plan.config.retention.automatic or not self._store.available:
            return
        try:
            gone = self._needless(history)
            freed = pruning.prune(self._store, gone)
        except STORE_FAULTS:
            log.warning("Weights that nothing needs could not be deleted.", exc_info=log.isEnabledFor(logging.DEBUG))
            return
        if gone:
            names = ", ".join(trial.model.name for trial in gone if trial.model)
            say(f"weights deleted: {names} ({in_words(freed)})")

    def _needless(self, history: History) -> list[Trial]:
        found = pruning.decisions(self._store, history, self._plan.tasks, self._plan.config)
        return [decision.trial for decision in found if not decision.kept]

    def _what_may_go(self, history: History) -> str:
        """Advice on what could be deleted to make room; empty in an outage."""
        if not self._store.available:
            return ""
        try:
            gone = self._needless(history)
            freed = in_words(sum(pruning.size(self._store, trial) for trial in gone))
        except STORE_FAULTS:
            return ""
        if not gone:
            return "All weights of the experiment are needed; with a smaller retention.keep_best fewer are."
        return (
            f"`python -m lamdagent prune` with the same overrides deletes the weights of {len(gone)} models that "
            f"nothing needs ({freed}); dry_run=true only lists them."
        )

    def _is_away(self, model: Model) -> bool:
        """Whether its weights have to be downloaded."""
        if not model.run_id or not model.location.startswith(f"runs:/{model.run_id}/"):
            return False
        return artifact_folder(self._store, model.run_id) is None and not cached_model(model.run_id).is_dir()


def _bytes(model: Model) -> int:
    """Size of its files, and of what an action makes from it: shape and precision stay. 0 when it cannot be told."""
    return model.bytes or (size_of(Path(model.location)) if Path(model.location).is_dir() else 0)
