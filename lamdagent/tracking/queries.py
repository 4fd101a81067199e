"""Bounded questions to the store: the best, the newest, the failed, the running, never all."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from lamdagent.libraries import uncollected
from lamdagent.tracking.runs import RunRecord, is_ours, record_of
from lamdagent.tracking.schema import (
    KIND,
    SCHEMA,
    SCHEMA_TAG,
    SCORE,
)

if TYPE_CHECKING:  # a plan needs records, but no MLflow, whose import takes seconds
    from mlflow import MlflowClient


OURS = f"tags.`{SCHEMA_TAG}` = '{SCHEMA}'"
"""Filter for runs that this package wrote."""


BEST, NEWEST, FAILED, BASES = 300, 500, 100, 100
"""Runs of each sort that are read: all of an experiment of up to `NEWEST` runs, the telling ones of a larger one."""


ANCESTORS = 500
"""Most ancestors that are read besides."""


PAGE = 500
"""Runs asked for at once; the time per run does not depend on it."""


def telling(
    client: "MlflowClient", experiment_id: str, *, best: int = BEST, newest: int = NEWEST, failed: int = FAILED
) -> list[RunRecord]:
    """Our runs that tell the most, oldest first; of an experiment with fewer than `newest` runs: all of ours.

    These are the newest, the best actions by the logged score, the latest failures, the bases, all that is running, and
    the ancestors of all these within the experiment. The time depends on these numbers and hardly on the experiment.
    """
    asked = partial(ask, client, experiment_id)
    with uncollected():  # it would walk the ORM's objects: off, a scan takes 2.6 times less
        found = asked("", newest, "attributes.start_time DESC")
        if len(found) >= newest:
            kind = f"tags.`{KIND}` = "
            found += asked(f"{kind}'action'", best, f"metrics.{SCORE} DESC")
            found += asked("attributes.status = 'FAILED'", failed, "attributes.start_time DESC")
            found += asked("attributes.status = 'RUNNING'", newest, "attributes.start_time DESC")
            found += asked(f"{kind}'base'", BASES, "attributes.start_time DESC")
            found += _ancestors(asked, found)
    return in_order(record for record in found if is_ours(record))


def most_telling(runs: Mapping[str, RunRecord]) -> list[RunRecord]:
    """Of what is known, what `telling` would read."""
    newest = sorted(runs.values(), key=lambda r: (r.start_ms, r.run_id), reverse=True)
    scored = [r for r in newest if r.kind == "action" and r.status == "FINISHED" and SCORE in r.metrics]
    found = sorted(scored, key=lambda r: -r.metrics[SCORE])[:BEST]
    found += [r for r in newest if r.kind == "base"][:BASES]
    found += [r for r in newest if r.status == "FAILED"][:FAILED]
    found += [r for r in newest if r.status == "RUNNING"] + newest[:NEWEST]
    kept = {record.run_id: record for record in found}
    most = len(kept) + ANCESTORS
    for record in found:  # grows while it is gone through: parents, then their parents
        for parent in record.parents:
            if parent in runs and parent not in kept and len(kept) < most:
                kept[parent] = runs[parent]
                found.append(runs[parent])
    return list(kept.values())


def ask(client: "MlflowClient", experiment_id: str, where: str, most: int, order: str) -> list[RunRecord]:
    """The first `most` runs of anyone that fit a filter, in MLflow's order, such as `attributes.start_time DESC`.

    Pages are offsets, so a run that others add meanwhile may repeat one.
    """
    found: list[RunRecord] = []
    token = None
    while len(found) < most:
        size = min(PAGE, most - len(found))
        page = client.search_runs([experiment_id], where, 1, size, [order], token)
        found += [record_of(run) for run in page]
        token = page.token
        if not token:
            break
    return found


def _ancestors(asked: "partial[list[RunRecord]]", records: Sequence[RunRecord]) -> list[RunRecord]:
    """Parents, their parents and so on, of this experiment, that are not among `records`."""
    known = {record.run_id for record in records}
    found: list[RunRecord] = []
    latest = records
    while len(found) < ANCESTORS:
        wanted = list(dict.fromkeys(p for r in latest for p in r.parents if p not in known))[: ANCESTORS - len(found)]
        if not wanted:
            break
        known.update(wanted)
        latest = [r for some in range(0, len(wanted), 100) for r in by_id(asked, wanted[some : some + 100])]
        found += latest
    return found


def by_id(asked: "partial[list[RunRecord]]", run_ids: Sequence[str]) -> list[RunRecord]:
    """The runs of these ids; ids that cannot be ids are left out."""
    plain = [run_id for run_id in run_ids if run_id.isalnum()]  # they come from a tag
    listed = ", ".join(f"'{run_id}'" for run_id in plain)
    return asked(f"attributes.run_id IN ({listed})", len(plain), "attributes.start_time DESC") if plain else []


def in_order(records: Iterable[RunRecord]) -> list[RunRecord]:
    """The records once each, oldest first."""
    """Each once, oldest first."""
    unique = {record.run_id: record for record in records}
    return sorted(unique.values(), key=lambda record: (record.start_ms, record.run_id))
