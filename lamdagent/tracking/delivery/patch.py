"""One write to one run as a value: it can be delivered now, kept as JSON and delivered later, or shown meanwhile."""

import json
import math
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from lamdagent.tracking.lineage import ModelEntry
from lamdagent.tracking.runs import RunRecord

Curve = tuple[str, float, int, int]
"""(metric, value, step, milliseconds since the epoch)."""
PROVISIONAL = re.compile("pending[0-9a-f]{25}")


@dataclass(frozen=True)
class New:
    """What a run is opened with, besides its tags."""

    name: str
    params: Mapping[str, str] = field(default_factory=dict)
    parents: Sequence[str] = ()
    """Run ids, in slot order; they become model inputs, and links in the description."""
    text: str | None = None
    """Description, Markdown; None leaves the tags to say it."""
    leaderboard: Sequence[str] | None = None
    """Of a search run: the task columns of its leaderboard."""


@dataclass(frozen=True)
class Change:
    """Any part may be delivered twice without a trace; a status comes last, so that an ended run is complete."""

    run_id: str
    """MLflow's, or `provisional_id()` of a run that is opened by this or an earlier change."""
    at_ms: int
    """When it happened."""
    new: New | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Shown on the run and on its model."""
    step: int = 0
    """Of `metrics`."""
    curves: Sequence[Curve] = ()
    texts: Mapping[str, str] = field(default_factory=dict)
    """Artifact path -> content."""
    folders: Mapping[str, str] = field(default_factory=dict)
    """Artifact folder -> local folder."""
    weights: str = ""
    """Local folder of the model's weights."""
    model: ModelEntry | None = None
    traces: Sequence[str] = ()
    status: str = ""
    """MLflow's word; `RUNNING` opens the run again."""

    def dump(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self))

    def renamed(self, real: Callable[[str], str]) -> "Change":
        """The same with every provisional run id, wherever it stands, replaced by `real(it)`; local paths stay."""
        text = self.dump()
        if not PROVISIONAL.search(text):
            return self
        found = load(PROVISIONAL.sub(lambda match: real(match[0]), text))
        return replace(found, folders=self.folders, weights=self.weights)


def load(text: str) -> Change:
    """The change that `dump` wrote."""
    value: dict[str, Any] = json.loads(text)
    value["new"] = New(**value["new"]) if value["new"] else None
    value["model"] = ModelEntry(**value["model"]) if value["model"] else None
    value["curves"] = [(key, point, step, at) for key, point, step, at in value["curves"]]
    return Change(**value)


def provisional_id() -> str:
    """A run id until the store gives one; unlike any other text, so that it can be found and replaced everywhere."""
    return f"pending{uuid.uuid4().hex[:25]}"


def applied(records: Sequence[RunRecord], changes: Sequence[Change], experiment_id: str) -> list[RunRecord]:
    """`records`, oldest first, as they will be once `changes` are delivered; `real` ids must be in place."""
    found = {record.run_id: record for record in records}
    for change in changes:
        if change.new is not None:
            found.setdefault(change.run_id, opened(change, experiment_id))
        if change.run_id in found:
            found[change.run_id] = after(found[change.run_id], change)
    return sorted(found.values(), key=lambda record: (record.start_ms, record.run_id))


def opened(change: Change, experiment_id: str, artifact_uri: str = "") -> RunRecord:
    """The run that `change` opens, with all that it writes."""
    assert change.new is not None
    name, params = change.new.name, dict(change.new.params)
    return after(
        RunRecord(change.run_id, experiment_id, name, "RUNNING", change.at_ms, None, artifact_uri, params), change
    )


def after(record: RunRecord, change: Change) -> RunRecord:
    """`record` as the store has it once `change` is delivered."""
    last = {key: value for key, value, _, _ in change.curves} | dict(change.metrics)
    finite = {key: value for key, value in last.items() if math.isfinite(value)}
    ended = change.status not in ("", "RUNNING")
    return replace(
        record,
        tags={**record.tags, **change.tags},
        metrics={**record.metrics, **finite},
        status=change.status or record.status,
        end_ms=change.at_ms if ended else record.end_ms,
    )
