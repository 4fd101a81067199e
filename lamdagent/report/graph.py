"""The nodes of a report's document: one for each run, with its depth and its pipeline as one line.

Records are anybody's text: a value that is not what it should be is left out, never an error.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lamdagent.evaluation.task import Score, Task, weighted_score
from lamdagent.memory.from_record import STATUS
from lamdagent.memory.references import recorded_inputs
from lamdagent.memory.trial import RETRYABLE
from lamdagent.objects.reference import ObjectRef
from lamdagent.text import parse_json
from lamdagent.tracking import schema
from lamdagent.tracking.runs import RunRecord

Node = dict[str, Any]
"""Node of a document: only dicts, lists, strings, finite numbers, booleans and None."""
MOST = 300
"""Trials of one search that a page shows: the newest ones, with the best ones and all ancestors besides."""
MOST_PARENTS = 64
TEXT = 2000
"""Characters kept of a text."""
VALUE = 300
"""Characters kept of a param's value or of a name."""


def parents_of(record: RunRecord) -> list[str]:
    """Run ids of all input models, in slot order; no more and no longer ones than a page can show."""
    return [run_id[:VALUE] for run_id in record.parents[:MOST_PARENTS]]


def node_of(record: RunRecord, tasks: Sequence[Task], tasks_tag: Any, search_run_id: str) -> Node:
    """The node of a run; `tasks_tag`: fingerprints of the tasks that its scores must be of, None for any."""
    tags, metrics = record.tags, record.metrics
    comparable = tasks_tag is None or parse_json(tags.get(schema.TASKS), None) == tasks_tag
    ok = comparable and record.status == "FINISHED"
    scores, tests = _scores(metrics, tasks, schema.TASK_PREFIX), _scores(metrics, tasks, schema.TEST_PREFIX)
    score = _weighted(tasks, scores, metrics, "") if ok else None
    test = _weighted(tasks, tests, metrics, schema.TEST_PREFIX) if ok else None
    parents, refs = parents_of(record), [ref for inside in recorded_inputs(record).values() for ref in inside]
    return {
        "id": record.run_id,
        "experiment": record.experiment_id,
        "name": cut(record.name or record.run_id, VALUE),
        "kind": record.kind if record.kind in ("base", "action") else "other",
        "action": cut(tags.get(schema.ACTION, ""), VALUE),
        "objects": ", ".join(cut(ref.name, VALUE) for ref in refs if not ref.is_model),
        "params": {cut(k, VALUE): cut(v, VALUE) for k, v in sorted(record.params.items())[:60]},
        "parents": parents,
        "data_parents": _data_parents(refs, parents),
        "own": record.search_run_id == search_run_id,
        "status": STATUS.get(record.status, "failed"),
        "comparable": comparable,
        "score": score.value if score else None,
        "stderr": score.stderr if score else None,
        "scores": {name: [s.value, s.stderr] for name, s in scores.items()},
        "test": [test.value, test.stderr] if test else None,
        "tests": {name: [s.value, s.stderr] for name, s in tests.items()},
        "gain": None,
        "test_gain": None,
        "state": cut(tags.get(schema.STATE, ""), VALUE),
        "state_reason": cut(tags.get(schema.STATE_REASON, ""), TEXT),
        "rank": None,
        "trial": None,
        "seconds": finite(metrics.get(schema.COST_SECONDS)),
        "gpu_seconds": finite(metrics.get(schema.COST_GPU_SECONDS)),
        "usd": finite(metrics.get(schema.COST_USD)),
        "policy": cut(tags.get(schema.POLICY, ""), VALUE),
        "reason": cut(tags.get(schema.REASON, "").replace("&lt;", "<"), TEXT),
        "failure": cut(tags.get(schema.STATUS_REASON, ""), TEXT),
        "failure_kind": cut(tags.get(schema.FAILURE_KIND, ""), VALUE),
        "reused": cut(tags.get(schema.REUSED, ""), VALUE),
        "started": record.start_ms,
        "depth": 0,
        "pipeline": "",
    }


def unknown_node(run_id: str) -> Node:
    """A parent that cannot be read: deleted, or in an experiment that the reader may not see."""
    name = f"run {run_id[:8]}, not readable here"
    return node_of(RunRecord(run_id, "", name, "UNKNOWN", 0, None, ""), (), None, "-") | {"status": "unknown"}


def _scores(metrics: Mapping[str, float], tasks: Sequence[Task], prefix: str) -> dict[str, Score]:
    found = {}
    for task in tasks:
        value = finite(metrics.get(prefix + task.name))
        if value is not None:
            error = finite(metrics.get(prefix + task.name + schema.STDERR_SUFFIX))
            found[task.name] = Score(value, error or 0.0)
    return found


def _weighted(
    tasks: Sequence[Task], scores: Mapping[str, Score], metrics: Mapping[str, float], prefix: str
) -> Score | None:
    """As this search computes it: the run's own metric `score` may come from a search with other weights.

    That metric is what is left where the search run does not say its tasks.
    """
    if not tasks:
        value, error = metrics.get(prefix + schema.SCORE), metrics.get(prefix + schema.SCORE_STDERR)
        score = None if value is None else Score(value, finite(error) or 0.0)
    else:
        score = weighted_score(tasks, scores)
    return score if score and math.isfinite(score.value) and math.isfinite(score.stderr) else None


def _data_parents(refs: Sequence[ObjectRef], parents: Sequence[str]) -> list[str]:
    """Parents whose data are an input, and not their models."""
    models = {ref.run_id[:VALUE] for ref in refs if ref.is_model}
    data = [ref.run_id[:VALUE] for ref in refs if ref.run_id and not ref.is_model]
    return [run_id for run_id in data if run_id in parents and run_id not in models]


def number_trials(nodes: Iterable[Node], curve: Sequence[tuple[int, float]]) -> int:
    """Number the search's own trials by their start, counted from the last one back; how many there are."""
    own = [n for n in nodes if n["own"] and n["kind"] == "action"]
    newest = sorted(own, key=lambda n: n["started"])[-MOST:]
    spent = [n for n in newest if n["failure_kind"] not in RETRYABLE or n["status"] != "failed"]
    total = max(len(own), curve[-1][0] if curve else 0)
    for number, node in enumerate(spent, total - len(spent) + 1):
        node["trial"] = number
    return total


def place_nodes(nodes: Mapping[str, Node]) -> None:
    """Depth (actions on the longest known path) and the pipeline as one line; a circle in the tags ends it."""
    waiting = dict.fromkeys(sorted(nodes, key=lambda run_id: nodes[run_id]["started"]))
    done: set[str] = set()
    one_base = sum(node["kind"] == "base" for node in nodes.values()) == 1
    while waiting:
        ready = [i for i in waiting if all(p in done or p == i for p in nodes[i]["parents"])] or [next(iter(waiting))]
        for run_id in ready:
            node = nodes[run_id]
            parents = [nodes[p] for p in dict.fromkeys(node["parents"]) if p in done and p not in node["data_parents"]]
            node["depth"] = 1 + max((p["depth"] for p in parents), default=-1)
            node["pipeline"] = "base" if one_base and node["kind"] == "base" else _pipeline(node, parents)
            del waiting[run_id]
            done.add(run_id)


def _pipeline(node: Node, parents: Sequence[Node]) -> str:
    if node["kind"] != "action":
        return str(node["name"])
    step = f"{node['action']}({node['objects']})" if node["objects"] else str(node["action"])
    if len(parents) == 1:
        past = parents[0]["pipeline"] if len(parents[0]["pipeline"]) < VALUE else "… › " + handle(parents[0])
        return f"{past} › {step}"
    return f"[{' + '.join(handle(parent) for parent in parents)}] › {step}"


def handle(node: Node) -> str:
    """How the page calls a node in few letters: `#12` for the 12th trial, `base`, or the start of its run id."""
    if node["trial"] is not None:
        return f"#{node['trial']}"
    return "base" if node["kind"] == "base" else str(node["id"])[:8]


def ancestors_of(run_id: str, nodes: Mapping[str, Node]) -> set[str]:
    """Ids of the node and of everything that it rests on."""
    found: set[str] = set()
    waiting = [run_id]
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting += nodes[one]["parents"]
    return found


def finite_float(text: str) -> float | None:
    """The number that the text holds; None for anything else."""
    try:
        return finite(float(text))
    except ValueError:
        return None


def finite(value: float | None) -> float | None:
    """The value if it is a finite number, else None."""
    return float(value) if value is not None and math.isfinite(value) else None


def cut(text: str, limit: int) -> str:
    """The first `limit` characters of the text; an ellipsis is the last of them where it goes on."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
