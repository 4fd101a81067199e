"""A run as a value, free of MLflow's types."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from sys import intern
from typing import TYPE_CHECKING

from lamdagent.tracking.schema import (
    KIND,
    PARENT_RUN,
    PARENTS,
    PROVISIONAL,
    SCHEMA,
    SCHEMA_TAG,
)

if TYPE_CHECKING:  # a plan needs records, but no MLflow, whose import takes seconds
    from mlflow.entities import Run


PREFIX = "lamdagent."


@dataclass(frozen=True)
class RunRecord:
    """One run as it is in the store, free of MLflow's types."""

    run_id: str
    experiment_id: str
    name: str
    status: str
    """MLflow's word: RUNNING, FINISHED, FAILED, KILLED or SCHEDULED."""
    start_ms: int
    """Since the epoch."""
    end_ms: int | None
    """None while it runs."""
    artifact_uri: str
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Last value of each."""
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """`search`, `base` or `action`; empty for a foreign run."""
        return self.tags.get(KIND, "")

    @property
    def search_run_id(self) -> str:
        """The search run above it; empty for a search run."""
        return self.tags.get(PARENT_RUN, "")

    @cached_property
    def parents(self) -> tuple[str, ...]:
        """Run ids of the inputs, in slot order; none where the tag is missing or no list."""
        try:
            parents = json.loads(self.tags.get(PARENTS) or "[]")
        except (ValueError, RecursionError):  # anyone may write a tag
            return ()
        return tuple(parent for parent in parents if isinstance(parent, str)) if isinstance(parents, list) else ()


def record_of(run: "Run") -> RunRecord:
    """`run` as a value."""
    info, data = run.info, run.data
    return RunRecord(
        run_id=info.run_id,
        experiment_id=info.experiment_id,
        name=info.run_name or "",
        status=info.status,
        start_ms=info.start_time,
        end_ms=info.end_time,
        artifact_uri=info.artifact_uri,
        params=_shared(data.params),
        metrics={intern(key): value for key, value in data.metrics.items()},
        tags=_shared(data.tags),
    )


def _shared(texts: Mapping[str, str]) -> dict[str, str]:
    """Equal texts once in memory: most keys and many values are those of thousands of other runs."""
    return {intern(key): intern(value) for key, value in texts.items()}


def is_ours(record: RunRecord) -> bool:
    """Whether this package wrote the run, in a schema that it reads."""
    return record.tags.get(SCHEMA_TAG) == SCHEMA


def is_news(known: RunRecord | None, record: RunRecord) -> bool:
    """Whether `record` says more than `known`: a run that is new, or has ended or opened again since."""
    return known is None or (known.status, known.end_ms) != (record.status, record.end_ms)


def lean(record: RunRecord) -> RunRecord:
    """Without MLflow's own tags: descriptions and histories that nobody here reads; and without empty ones."""
    tags = {
        k: v for k, v in record.tags.items() if v and (k == PARENT_RUN or k.startswith(PREFIX)) and k != PROVISIONAL
    }
    return replace(record, tags=tags)


@dataclass(frozen=True)
class Weights:
    """Description of the weights of a run, known without loading them."""

    location: str = ""
    """`runs:/<id>/<path>`, `models:/<id>[/<path>]` or a folder here; empty when they cannot be used."""
    architecture: str = ""
    vocabulary: int = 0
    adapter: bool = False
    """A LoRA adapter without its base."""
    problem: str = ""
    """Why they cannot be used."""
