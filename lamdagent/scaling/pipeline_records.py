"""The records that a replay reads: runs with all their inputs, and the settings of their searches."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from lamdagent.errors import UserError
from lamdagent.memory.trial import POLICY
from lamdagent.tracking import schema
from lamdagent.tracking.reading import read_run, read_text
from lamdagent.tracking.runs import RunRecord, is_ours
from lamdagent.tracking.searches import trials_of
from lamdagent.tracking.store import RunStore

SEARCHES = 100
"""The number of newest searches of an experiment that `last_search` looks at."""


@dataclass(frozen=True)
class PipelineRecords:
    """Pipelines as the store has them."""

    records: tuple[RunRecord, ...]
    """The requested runs in their order, then the runs that made their inputs."""
    settings: Mapping[str, Mapping[str, Any]]
    """Search run id -> the configuration that the search was started with."""


def read_pipelines(store: RunStore, run_ids: Sequence[str]) -> PipelineRecords:
    """The pipelines of the runs, which may be of any experiment.

    Raises:
        UserError: a run is not of this package or made no model, or an input or its settings are gone.
    """
    found: dict[str, RunRecord] = {}
    waiting = list(run_ids)
    while waiting:
        run_id = waiting.pop(0)
        if run_id not in found:
            record = read_run(store, run_id)
            if problem := _useless(record, asked=run_id in run_ids):
                raise UserError(f"The run {run_id} cannot be replayed: it {problem}")
            # The micro-batch as it was chosen: a second try after running out of memory is no part of the pipeline.
            tags = {key: value for key, value in record.tags.items() if key != schema.MICRO_BATCH}
            found[run_id] = dataclasses.replace(record, tags=tags)
            waiting += record.parents
    searches = dict.fromkeys(record.search_run_id for record in found.values() if record.kind == "action")
    return PipelineRecords(tuple(found.values()), {run_id: settings_of(store, run_id) for run_id in searches})


def last_search(store: RunStore) -> RunRecord:
    """The newest search of the experiment that has finished and chose its actions itself.

    Raises:
        UserError: there is none.
    """
    where = f"tags.`{schema.KIND}` = 'search'"
    found = store.query(where, SEARCHES)
    own = (r for r in found if is_ours(r) and r.status == "FINISHED" and not r.tags.get(schema.REPLAYS))
    search = next(own, None)
    if search is None:
        raise UserError(f"The experiment {store.experiment!r} has no search that has finished; give one's run id")
    return search


def chosen_by(store: RunStore, search_run_id: str) -> list[RunRecord]:
    """The finished actions that a search chose, oldest first, without repeats."""
    found = trials_of(store, search_run_id)
    own = [r for r in found if r.kind == "action" and r.status == "FINISHED" and not r.tags.get(schema.REPLAY_OF)]
    return [record for record in reversed(own) if record.tags.get(schema.POLICY) != POLICY]


def settings_of(store: RunStore, search_run_id: str) -> Mapping[str, Any]:
    """The composed configuration of a search.

    Raises:
        UserError: the run has none.
    """
    found = yaml.safe_load(read_text(store, search_run_id, schema.CONFIG))
    if not isinstance(found, dict):
        raise UserError(f"The run {search_run_id} has no settings in its {schema.CONFIG}")
    return found


def _useless(record: RunRecord, asked: bool) -> str | None:
    """Why the run cannot be replayed, or None where it can; `asked`: it is a last step, not an input."""
    if not is_ours(record) or not record.kind:
        return "was not made by this package, so nobody can tell how to make it again"
    if record.kind == "search":
        champion = record.tags.get(schema.CHAMPION, "")
        return "is a search; give one of its actions" + (f", such as its champion {champion}" if champion else "")
    if record.kind == "base":
        return "is an initial model, not a pipeline" if asked else None
    return None if record.status == "FINISHED" else f"made no model: it is {record.status}"
