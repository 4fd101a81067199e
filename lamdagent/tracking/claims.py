"""Nobody does what somebody does already: a run is its own claim, settled among processes through the store alone.

MLflow offers no lock, but what one process has written every other reads. That is enough (Lamport's bakery algorithm,
https://doi.org/10.1145/361082.361093): ask, look, hold, look again; the smaller run id goes first. Whoever died while
it asked or held counts no more, as soon as it is known to be dead.
"""

import time
from collections.abc import Callable

from mlflow import MlflowClient

from lamdagent.tracking.records import RunRecord, record_of
from lamdagent.tracking.schema import CLAIM, FINGERPRINT, TASKS

ASKED = "asked"
HELD = "held"
UNDECIDED_S = 30.0
"""How long a rival may think; then it is taken for stopped."""


def settle(client: MlflowClient, run: RunRecord, dead: Callable[[RunRecord], bool]) -> bool:
    """Whether the open `run`, created with the tag CLAIM = ASKED, is the one to do what its fingerprint names.

    At most one of all runs that ask at the same time gets True; it may be none, and then nobody has lost but time.
    False also when a finished run has done it and was scored on the same tasks.
    """
    rivals = _rivals(client, run, dead)
    if any(rival.tags.get(CLAIM) != ASKED or rival.run_id < run.run_id for rival in rivals):
        return False
    client.set_tag(run.run_id, CLAIM, HELD)
    until = time.monotonic() + UNDECIDED_S
    while time.monotonic() < until:
        # Those that came after the tag was set see it and yield; those before it have the smaller id or yield to ours.
        first = [rival for rival in _rivals(client, run, dead) if rival.run_id < run.run_id]
        if any(rival.tags.get(CLAIM) != ASKED for rival in first):
            return False
        if not first:
            return True
        time.sleep(0.1)
    return True


def _rivals(client: MlflowClient, run: RunRecord, dead: Callable[[RunRecord], bool]) -> list[RunRecord]:
    """Other runs of the experiment that do or have done the same; failed and deserted ones are none."""
    where = f"tags.`{FINGERPRINT}` = '{run.tags[FINGERPRINT]}'"
    found = [record_of(other) for other in client.search_runs([run.experiment_id], where, 1, 100)]
    return [r for r in found if r.run_id != run.run_id and (_done(r, run) or (r.status == "RUNNING" and not dead(r)))]


def _done(other: RunRecord, run: RunRecord) -> bool:
    return other.status == "FINISHED" and other.tags.get(TASKS) == run.tags.get(TASKS)
