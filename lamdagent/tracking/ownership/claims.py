"""Nobody does what somebody does already: a run is its own claim, settled among processes through the store alone.

MLflow offers no lock, but what one process has written every other reads, and that is enough: ask, look, hold. Who sees
nobody else has asked before all others, since of two that ask one looks after the other has asked. Who sees somebody
yields; only the smallest run id of all that ask stays, until those that it sees have yielded or hold (for they may have
looked before it asked). Whoever died while it asked or held counts no more, as soon as it is known to be dead.
"""

import time
from collections.abc import Callable

from mlflow import MlflowClient

from lamdagent.tracking.runs import RunRecord, record_of
from lamdagent.tracking.schema import CLAIM, FINGERPRINT, TASKS

ASKED = "asked"
HELD = "held"
UNDECIDED_S = 30.0
"""How long a rival may think; then it is taken for stopped."""
PAUSE_S = 0.1
"""Between two looks."""


def undecided(record: RunRecord) -> bool:
    """Whether the run may still yield and be deleted: nobody but `settle` should count with it."""
    return record.status == "RUNNING" and record.tags.get(CLAIM) == ASKED


def settle(client: MlflowClient, run: RunRecord, dead: Callable[[RunRecord], bool]) -> str:
    """Id of the run that does, or has done, what the fingerprint of the open `run` names: its own, or a rival's.

    `run` was created with the tag CLAIM = ASKED. One of all runs that ask at the same time gets its own id; none where
    a rival dies at that moment, and then nobody has lost but time. A finished run counts if it was scored on the same
    tasks.
    """
    until = time.monotonic() + UNDECIDED_S
    while rivals := _rivals(client, run, dead):
        for rival in rivals:
            if rival.tags.get(CLAIM) != ASKED or rival.run_id < run.run_id:
                return rival.run_id
        if time.monotonic() > until:
            break
        time.sleep(PAUSE_S)
    client.set_tag(run.run_id, CLAIM, HELD)
    return run.run_id


def _rivals(client: MlflowClient, run: RunRecord, dead: Callable[[RunRecord], bool]) -> list[RunRecord]:
    """Other runs of the experiment that do or have done the same; failed and deserted ones are none."""
    where = f"tags.`{FINGERPRINT}` = '{run.tags[FINGERPRINT]}'"
    found = [record_of(other) for other in client.search_runs([run.experiment_id], where, 1, 100)]
    return [r for r in found if r.run_id != run.run_id and (_done(r, run) or (r.status == "RUNNING" and not dead(r)))]


def _done(other: RunRecord, run: RunRecord) -> bool:
    return other.status == "FINISHED" and other.tags.get(TASKS) == run.tags.get(TASKS)
