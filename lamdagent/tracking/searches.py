"""Search runs in a store: opened, found, reopened, ended, and the runs below them that nobody runs any more."""

from collections.abc import Mapping, Sequence
from typing import Any

from lamdagent.text import cut
from lamdagent.tracking import schema
from lamdagent.tracking.leaderboard import leaderboard_path
from lamdagent.tracking.owner import this_process
from lamdagent.tracking.patch import RunCreation, RunPatch, cut_params, now_ms, owned, provisional_id
from lamdagent.tracking.queries import OURS, quoted
from lamdagent.tracking.runs import RunRecord
from lamdagent.tracking.store import RunStore

MAX_TRIALS = 10_000
"""Most trials of one search that are read."""


def start_search(
    store: RunStore,
    search_id: str,
    name: str,
    params: Mapping[str, Any],
    config_yaml: str,
    text: str = "",
    tasks: Sequence[str] = (),
) -> str:
    """Open the search run, parent of all others; its id.

    `text`: its description, Markdown; links to leaderboard and report come before it, since MLflow's UI folds long
    ones. `tasks`: columns of the leaderboard.
    """
    run_id = provisional_id()
    described = _described(store, run_id, text)
    tags = {schema.SEARCH_ID: search_id, schema.HEARTBEAT: str(now_ms()), schema.DESCRIPTION: described}
    new = RunCreation(name, cut_params(params), leaderboard=list(tasks))
    store.queue.write(owned("search", RunPatch(run_id, now_ms(), new, tags, texts={schema.CONFIG: config_yaml})))
    return store.resolve_run_id(run_id)


def find_search(store: RunStore, search_id: str) -> RunRecord | None:
    """The newest search run of that id, in whatever state."""
    where = f"{OURS} AND tags.`{schema.KIND}` = 'search' AND tags.`{schema.SEARCH_ID}` = {quoted(search_id)}"
    return next(iter(store.connection.ask(lambda: store.query(where, 1))), None)


def was_cut_off(store: RunStore, search: RunRecord) -> bool:
    """Whether it ended before its end, or is left RUNNING by a dead process that nobody could close it for yet."""
    orphaned = search.status == "RUNNING" and store.connection.ask(lambda: store.orphans.is_orphaned(search))
    return orphaned or search.status in ("FAILED", "KILLED")


def reopen_search(store: RunStore, run_id: str) -> None:
    """Make this process the owner of a search run that ended or was left behind; it is RUNNING again."""
    owner = {schema.OWNER: this_process().dump(), schema.HEARTBEAT: str(now_ms()), schema.STATUS_REASON: ""}
    store.update(run_id, tags=owner, status="RUNNING")


def end_search(store: RunStore, run_id: str, status: str, reason: str = "") -> None:
    """Close the search run as FINISHED, FAILED or KILLED; `reason` says why it did not finish."""
    store.update(run_id, tags={schema.STATUS_REASON: reason} if reason else {}, status=status)


def trials_of(store: RunStore, search_run_id: str) -> list[RunRecord]:
    """The base and action runs of one search, newest first."""
    where = f"tags.`{schema.PARENT_RUN}` = '{store.resolve_run_id(search_run_id)}'"
    return store.connection.ask(lambda: store.query(where, MAX_TRIALS))


def recover_writes(store: RunStore) -> int:
    """The number of writes that dead processes of this machine could not make; they are made first."""
    return store.queue.recover()


def close_orphans(store: RunStore) -> list[str]:
    """Close as FAILED what dead processes left RUNNING, and return the ids. Asks nothing where all runs are ours.

    What those processes could not write is written first. Nothing is done in an outage: the next call will.
    """
    reason = "The process that ran it is gone (killed, or the machine restarted)."
    orphans = store.orphans.find()
    for run_id in orphans:
        store.fail(run_id, reason, kind="orphan")
    return orphans


def close_own(store: RunStore, search_run_id: str, reason: str) -> list[str]:
    """Close as FAILED what this process has left RUNNING under a search, wherever it was cut off; the ids."""
    search = store.resolve_run_id(search_run_id)
    where = f"attributes.status = 'RUNNING' AND tags.`{schema.PARENT_RUN}` = '{search}'"
    found = store.connection.attempt(lambda: store.query(where, MAX_TRIALS)) if store.available else None
    if found is None:
        found = [run for run in store.runs() if run.status == "RUNNING" and run.search_run_id == search]
    own = [run.run_id for run in found if run.tags.get(schema.OWNER) == this_process().dump()]
    for run_id in own:
        store.fail(run_id, reason, kind="interrupted")
    return own


def _described(store: RunStore, run_id: str, text: str) -> str:
    board = f"[Leaderboard]({leaderboard_path(store.experiment_id, run_id)})"
    report = f"[Report](#/experiments/{store.experiment_id}/runs/{run_id}/artifacts/{schema.REPORT})"
    return cut(f"{board} · {report}\n\n{text}".strip(), schema.MAX_TAG)
