"""One write to one run as a value: it can be delivered now, kept as JSON and delivered later, or shown meanwhile.

The field names of `RunPatch` and `RunCreation` are the keys of the JSON files in waiting outboxes: they may not change.
"""

import json
import math
import re
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from lamdagent.text import cut
from lamdagent.tracking import schema
from lamdagent.tracking.lineage import ModelEntry
from lamdagent.tracking.owner import this_process
from lamdagent.tracking.runs import RunRecord

Curve = tuple[str, float, int, int]
"""(metric, value, step, milliseconds since the epoch)."""
PROVISIONAL = re.compile("pending[0-9a-f]{25}")
MAX_PARAM = 6000
"""Characters that MLflow keeps of a param."""


@dataclass(frozen=True)
class RunCreation:
    """Content that a run is opened with, besides its tags."""

    name: str
    params: Mapping[str, str] = field(default_factory=dict)
    parents: Sequence[str] = ()
    """Run ids, in slot order; they become model inputs, and links in the description."""
    text: str | None = None
    """Description, Markdown; None leaves the tags to say it."""
    leaderboard: Sequence[str] | None = None
    """Task columns of the leaderboard of a search run."""


@dataclass(frozen=True)
class RunPatch:
    """A write; each part may be delivered twice without a trace, and the status is delivered last."""

    run_id: str
    """MLflow's, or `provisional_id()` of a run that this or an earlier patch opens."""
    at_ms: int
    """When it happened."""
    new: RunCreation | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Shown on the run and on its model."""
    step: int = 0
    """Step of `metrics`."""
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

    def renamed(self, resolve: Callable[[str], str]) -> "RunPatch":
        """The same with every provisional run id, wherever it stands, replaced by `resolve(id)`; local paths stay."""
        text = self.dump()
        if not PROVISIONAL.search(text):
            return self
        found = load(resolved(text, resolve))
        return replace(found, folders=self.folders, weights=self.weights)


def load(text: str) -> RunPatch:
    """The patch that `dump` wrote."""
    value: dict[str, Any] = json.loads(text)
    value["new"] = RunCreation(**value["new"]) if value["new"] else None
    value["model"] = ModelEntry(**value["model"]) if value["model"] else None
    value["curves"] = [(key, point, step, at) for key, point, step, at in value["curves"]]
    return RunPatch(**value)


def provisional_id() -> str:
    """A run id until the store gives one; unlike any other text, so that it can be found and replaced everywhere."""
    return f"pending{uuid.uuid4().hex[:25]}"


def resolved(uri: str, resolve: Callable[[str], str]) -> str:
    """`uri` with the store's ids in place of provisional ones, as far as `resolve` knows them."""
    return PROVISIONAL.sub(lambda match: resolve(match[0]), uri)


def with_pending(records: Sequence[RunRecord], pending: Sequence[RunPatch], experiment_id: str) -> list[RunRecord]:
    """`records`, oldest first, as they will be once `pending` is delivered; known ids must be resolved in it."""
    found = {record.run_id: record for record in records}
    for patch in pending:
        if patch.new is not None:
            found.setdefault(patch.run_id, created(patch, experiment_id))
        if patch.run_id in found:
            found[patch.run_id] = patched(found[patch.run_id], patch)
    return sorted(found.values(), key=lambda record: (record.start_ms, record.run_id))


def created(patch: RunPatch, experiment_id: str, artifact_uri: str = "") -> RunRecord:
    """The run that `patch` opens, with all that it writes."""
    assert patch.new is not None
    name, params = patch.new.name, dict(patch.new.params)
    opened = RunRecord(patch.run_id, experiment_id, name, "RUNNING", patch.at_ms, None, artifact_uri, params)
    return patched(opened, patch)


def patched(record: RunRecord, patch: RunPatch) -> RunRecord:
    """`record` as the store has it once `patch` is delivered."""
    last = {key: value for key, value, _, _ in patch.curves} | dict(patch.metrics)
    finite = {key: value for key, value in last.items() if math.isfinite(value)}
    ended = patch.status not in ("", "RUNNING")
    return replace(
        record,
        tags={**record.tags, **patch.tags},
        metrics={**record.metrics, **finite},
        status=patch.status or record.status,
        end_ms=patch.at_ms if ended else record.end_ms,
    )


def owned(kind: str, patch: RunPatch) -> RunPatch:
    """`patch`, which opens a run of this `kind`, with the tags that make the run ours from its first moment."""
    tags = {**patch.tags, schema.SCHEMA_TAG: schema.SCHEMA, schema.KIND: kind, schema.OWNER: this_process().dump()}
    return replace(patch, tags={key: value for key, value in cut_tags(tags).items() if value})


def now_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def cut_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """`tags`, their values cut to what MLflow keeps."""
    return {key: cut(value, schema.MAX_TAG) for key, value in tags.items()}


def cut_params(params: Mapping[str, Any]) -> dict[str, str]:
    """`params` as text, cut to what MLflow keeps."""
    return {key: cut(value, MAX_PARAM) for key, value in params.items()}
