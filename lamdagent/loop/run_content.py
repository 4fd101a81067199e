"""Tags, metrics and texts of runs, from the values of a search: pure functions, the other half of memory/history.py."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from lamdagent.actions.action import Action
from lamdagent.evaluation.task import Score, Task, weighted_score
from lamdagent.memory.trial import History
from lamdagent.objects.checksum import WeightsHash
from lamdagent.objects.model import Model
from lamdagent.tracking import schema
from lamdagent.tracking.runs import RunRecord

INHERITED = (
    schema.MODEL_FINGERPRINT,
    schema.MODEL_BASE,
    schema.MODEL_DEPTH,
    schema.MODEL_ARCHITECTURE,
    schema.MODEL_VOCABULARY,
    schema.MODEL_FRAME,
    schema.WEIGHTS_SHA256,
    schema.WEIGHTS_BYTES,
    schema.PRUNED,
)
"""Tags that a run which takes over another's model gets from it."""


def tasks_tag(tasks: Sequence[Task]) -> str:
    """The tag `schema.TASKS`; weights are not in it, since a weighted score is computed anew when it is read."""
    return json.dumps({t.name: t.fingerprint for t in sorted(tasks, key=lambda t: t.name)})


def task_metrics(tasks: Sequence[Task], scores: Mapping[str, Score], prefix: str, total: str) -> dict[str, float]:
    """Metrics of every task on its own scale, and of the weighted score."""
    metrics: dict[str, float] = {}
    for name, score in scores.items():
        metrics |= {prefix + name: score.value, prefix + name + schema.STDERR_SUFFIX: score.stderr}
    weighed = weighted_score(tasks, scores)
    if weighed is not None:
        metrics |= {total: weighed.value, total + schema.STDERR_SUFFIX: weighed.stderr}
    return metrics


def model_tags(model: Model) -> dict[str, str]:
    """Tags of a run and of its LoggedModel about the model."""
    return {
        schema.MODEL_FINGERPRINT: model.fingerprint,
        schema.MODEL_BASE: model.base,
        schema.MODEL_DEPTH: str(model.depth),
        schema.MODEL_ARCHITECTURE: model.architecture,
        schema.MODEL_VOCABULARY: str(model.vocabulary),
        schema.MODEL_FRAME: model.frame,
    }


def hash_tags(weights: WeightsHash | None) -> dict[str, str]:
    """Tags about the weights that a run made, if it made any."""
    return {schema.WEIGHTS_SHA256: weights.sha256, schema.WEIGHTS_BYTES: str(weights.bytes)} if weights else {}


def data_tags(about: Mapping[str, Any] | None) -> dict[str, str]:
    """Tags about the rows that a run made, if it made any."""
    if not about:
        return {}
    overlap = {schema.OVERLAP: str(about["overlap"])} if about.get("overlap") else {}
    return {schema.DATASET: json.dumps(about), **overlap}


def inherited_tags(record: RunRecord) -> dict[str, str]:
    """Tags that describe the model and data of a run that is taken over."""
    about = record.tags.get(schema.DATASET)
    data = {schema.DATASET: json.dumps({"run_id": record.run_id, **json.loads(about)})} if about else {}
    return {key: record.tags[key] for key in INHERITED if key in record.tags} | data


def parent_runs(action: Action, history: History) -> list[str]:
    """The runs that made (or scored) the action's inputs, in slot order."""
    return [o.run_id or (_run_of(o, history) if isinstance(o, Model) else "") for o in action.made]


def plain(text: str) -> str:
    """Text from a policy as one line that Markdown shows as it is."""
    return " ".join(text.split()).replace("<", "&lt;")[:1000]


def yaml_text(value: Mapping[str, Any]) -> str:
    """`value` as YAML, its keys in order."""
    import yaml

    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # a deep past takes libyaml a tenth of the time
    return str(yaml.dump(dict(value), Dumper=dumper, sort_keys=False, allow_unicode=True))


def _run_of(model: Model, history: History) -> str:
    return history.by_model[model.fingerprint].run_id
