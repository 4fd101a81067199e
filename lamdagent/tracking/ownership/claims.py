"""Leader election by smallest run id: of all runs that would do the same action at the same time, one does it.

MLflow offers no lock, but each process reads what any other has written before. A run is its own claim:

1. Write: create the run with the tag CLAIM = `asked` (requested).
2. Read: list the rivals, which are the other live runs of the same fingerprint, and those FINISHED on the same tasks.
3. No rival: write CLAIM = `held` and do the work.
4. A rival that holds or has finished, or one that requests with a smaller run id: yield, which deletes this run.
5. Only rivals that request with larger run ids: wait `PAUSE_S` and go to 2. They have yet to yield, or hold already
   because they had listed their rivals before this run was written. After `UNDECIDED_S` they count as stopped: hold.

Invariant: of two runs, the one that reads later sees the other, so they never both find no rival.

| crash | what follows |
|---|---|
| while it requests | known to be dead (orphans.py), it is no rival; until then larger ids yield, smaller ones wait |
| while it holds | rivals yield until it is known to be dead; then the next to request gets the action |
| between 4 and its deletion | the run stays `asked`, hidden by `is_undecided`, and is closed as an orphan |
| the winner of 4 dies at that moment | nobody does the action now; the next to request gets it |
| the store is away | nobody can be asked: the action is done, at worst twice, which harms nothing |
"""

import time
from collections.abc import Callable

from mlflow import MlflowClient

from lamdagent.tracking.runs import RunRecord, record_of
from lamdagent.tracking.schema import CLAIM, FINGERPRINT, TASKS

REQUESTED = "asked"
HELD = "held"
UNDECIDED_S = 30.0
"""Seconds that a rival may stay undecided; then it counts as stopped."""
PAUSE_S = 0.1
"""Seconds between two looks at the rivals."""


def is_undecided(record: RunRecord) -> bool:
    """Whether the run may still yield and be deleted: only `acquire` should count with it."""
    return record.status == "RUNNING" and record.tags.get(CLAIM) == REQUESTED


def claim(client: MlflowClient, run_id: str, known: RunRecord | None, dead: Callable[[RunRecord], bool]) -> str:
    """As `acquire`, for a run that is read unless it is `known`; one that has to yield is deleted."""
    winner = acquire(client, known or record_of(client.get_run(run_id)), dead)
    if winner != run_id:
        client.set_terminated(run_id, "KILLED")
        client.delete_run(run_id)
    return winner


def acquire(client: MlflowClient, run: RunRecord, dead: Callable[[RunRecord], bool]) -> str:
    """Id of the run that does, or has done, the action of the open `run`: its own, or a rival's.

    `run` was created with the tag CLAIM = REQUESTED. `dead` tells whether the process behind a RUNNING run is gone.
    """
    until = time.monotonic() + UNDECIDED_S
    while rivals := _rivals(client, run, dead):
        for rival in rivals:
            if rival.tags.get(CLAIM) != REQUESTED or rival.run_id < run.run_id:
                return rival.run_id
        if time.monotonic() > until:
            break
        time.sleep(PAUSE_S)
    client.set_tag(run.run_id, CLAIM, HELD)
    return run.run_id


def _rivals(client: MlflowClient, run: RunRecord, dead: Callable[[RunRecord], bool]) -> list[RunRecord]:
    """Other runs of the experiment that do or have done the same action; failed and orphaned ones are none."""
    where = f"tags.`{FINGERPRINT}` = '{run.tags[FINGERPRINT]}'"
    found = [record_of(other) for other in client.search_runs([run.experiment_id], where, 1, 100)]
    return [r for r in found if r.run_id != run.run_id and (_done(r, run) or (r.status == "RUNNING" and not dead(r)))]


def _done(other: RunRecord, run: RunRecord) -> bool:
    return other.status == "FINISHED" and other.tags.get(TASKS) == run.tags.get(TASKS)
