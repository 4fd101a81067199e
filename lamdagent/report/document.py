"""Run records -> one JSON-able document that says everything a reader of the page may ask.

Pure functions. Records are anybody's text: a value that is not what it should be is left out, never an error.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lamdagent.evaluation.gain import difference
from lamdagent.evaluation.pareto import pareto_front
from lamdagent.evaluation.task import Score, Task
from lamdagent.memory.scores import fraction_of, stored_gain
from lamdagent.report.graph import (
    MOST,
    TEXT,
    VALUE,
    Node,
    ancestors_of,
    cut,
    finite_float,
    node_of,
    number_trials,
    parents_of,
    place_nodes,
    unknown_node,
)
from lamdagent.text import parse_json
from lamdagent.tracking import schema
from lamdagent.tracking.runs import RunRecord

Document = dict[str, Any]
"""Only dicts, lists, strings, finite numbers, booleans and None."""
BEST = 100
"""Best runs of the experiment that a page shows in any case."""


def document(search: RunRecord, records: Iterable[RunRecord], curve: Sequence[tuple[int, float]] = ()) -> Document:
    """The document that the page of `search` shows.

    Args:
        search: The search run.
        records: Base and action runs of its experiment and their ancestors of any experiment; not all need be there.
        curve: (trials, best score so far), the history of the metric `score` of the search run.
    """
    tasks = tasks_of(search)
    runs = {r.run_id: r for r in sorted(records, key=lambda r: (r.start_ms, r.run_id)) if r.kind != "search"}
    now = _tasks_tag(search, runs.values())
    nodes = {run_id: node_of(record, tasks, now, search.run_id) for run_id, record in runs.items()}
    _compare_one_fraction(runs, nodes, finite_float(search.tags.get(schema.FRACTION, "")))
    for parent in [parent for node in nodes.values() for parent in node["parents"]]:
        nodes.setdefault(parent, unknown_node(parent))
    points = _thin([(step, value) for step, value in curve if math.isfinite(value)])
    total = number_trials(nodes.values(), points)
    place_nodes(nodes)
    ranked = sorted((n for n in nodes.values() if n["score"] is not None), key=lambda n: (-n["score"], n["started"]))
    for rank, node in enumerate(ranked, 1):
        node["rank"] = rank
    base = next((n for n in ranked if n["kind"] == "base"), None)
    if base is not None:
        for node in ranked:
            node["gain"] = _gain(runs[node["id"]], node, base)
            node["test_gain"] = _test_gain(runs[node["id"]], node["test"], base["test"])
    chosen = nodes.get(search.tags.get(schema.CHAMPION, ""))
    champion = chosen if chosen in ranked else ranked[0] if ranked else None
    return {
        "search": _search(search, list(nodes.values()), total),
        "tasks": [{"name": t.name, "weight": t.weight, "higher": t.higher_is_better} for t in tasks],
        "nodes": list(nodes.values()),
        "edges": [[parent, node["id"]] for node in nodes.values() for parent in dict.fromkeys(node["parents"])],
        "curve": [list(point) for point in points],
        "front": pareto_front(list(nodes.values()), tasks),
        "base": base["id"] if base else None,
        "champion": champion["id"] if champion else None,
        "chain": sorted(ancestors_of(champion["id"], nodes)) if champion else [],
    }


def _compare_one_fraction(runs: Mapping[str, RunRecord], nodes: Mapping[str, Node], fraction: float | None) -> None:
    """Take comparison from actions that the search does not see (history.Histories); None: it sees all."""
    unseen: set[str] = set()
    for run_id, record in runs.items():
        other = record.kind == "action" and fraction_of(record) != fraction
        if fraction is not None and (other or not unseen.isdisjoint(parents_of(record))):
            unseen.add(run_id)
            nodes[run_id].update(comparable=False, score=None, test=None)


def shown_records(records: Sequence[RunRecord], search_run_id: str) -> list[RunRecord]:
    """The few hundred of any number of `records` that the page of a search shows, ancestors included."""
    known = {record.run_id: record for record in records if record.kind in ("base", "action")}
    own = [r for r in known.values() if r.search_run_id == search_run_id]
    scored = [r for r in known.values() if r.status == "FINISHED" and schema.SCORE in r.metrics]
    chosen = [r for r in known.values() if r.kind == "base"][:BEST]
    chosen += sorted(own, key=lambda r: r.start_ms)[-MOST:]
    chosen += sorted(scored, key=lambda r: -r.metrics[schema.SCORE])[:BEST]
    found: dict[str, RunRecord] = {}
    while chosen:
        record = chosen.pop()
        if record.run_id not in found:
            found[record.run_id] = record
            chosen += [known[parent] for parent in parents_of(record) if parent in known]
    return list(found.values())


def tasks_of(search: RunRecord) -> tuple[Task, ...]:
    """The tasks of the search with their weights and scales; without the tag `schema.SCALES`, from its params."""
    found = parse_json(search.tags.get(schema.SCALES), None)
    try:
        return tuple(_task(**one) for one in found)
    except (TypeError, ValueError):
        pairs = re.findall(r"(?:^|, )(.+?) x ([0-9.e+-]+)(?=, |$)", search.params.get("tasks", ""))
        return tuple(Task(name, "", "", weight) for name, text in pairs if (weight := finite_float(text)) is not None)


def _task(name: str, weight: float, low: float, high: float, higher_is_better: bool) -> Task:
    if not math.isfinite(weight + low + high) or low == high:
        raise ValueError(name)
    return Task(str(name), "", "", weight, bool(higher_is_better), low, high)


def scales(tasks: Sequence[Task]) -> str:
    """The tag `schema.SCALES`; `tasks_of` reads it."""
    keys = ("name", "weight", "low", "high", "higher_is_better")
    return json.dumps([{key: getattr(task, key) for key in keys} for task in tasks])


def _search(search: RunRecord, nodes: Sequence[Node], total: int) -> Document:
    own = [node for node in nodes if node["own"]]
    actions = [node for node in own if node["kind"] == "action"]
    return {
        "id": search.run_id,
        "experiment": search.experiment_id,
        "name": cut(search.name, VALUE),
        "status": search.status,
        "why": cut(search.tags.get(schema.STATUS_REASON, ""), TEXT),
        "overlap": cut(search.tags.get(schema.OVERLAP, ""), TEXT),
        "agent": cut(search.params.get("agent", ""), VALUE),
        "seed": cut(search.params.get("seed", ""), VALUE),
        "reflection": cut(search.tags.get(schema.REFLECTION, ""), TEXT),
        "started": search.start_ms,
        "ended": search.end_ms,
        "trials": total,
        "shown": len(actions),
        "failed": sum(node["status"] == "failed" for node in actions),
        "seconds": sum(node["seconds"] or 0.0 for node in own),
        "gpu_seconds": search.metrics.get(schema.COST_GPU_SECONDS, sum(node["gpu_seconds"] or 0.0 for node in own)),
        "usd": search.metrics.get(schema.COST_USD, sum(node["usd"] or 0.0 for node in own)),
    }


def _tasks_tag(search: RunRecord, records: Iterable[RunRecord]) -> Any:
    """Fingerprints of the search's tasks as its own newest run has them: scores of others are not comparable."""
    tags = [r.tags[schema.TASKS] for r in records if r.search_run_id == search.run_id and schema.TASKS in r.tags]
    return parse_json(tags[-1], None) if tags else None


def _test_gain(record: RunRecord, ours: Any, base: Any) -> list[Any] | None:
    """Gain on the test split with its standard error, the ends of its 95 % interval, and whether it is paired."""
    if not (ours and base):
        return None
    gain = difference(stored_gain(record, schema.TEST_PREFIX), Score(*ours), Score(*base))
    return [gain.value, gain.stderr, gain.low, gain.high, gain.pairing] if gain else None


def _gain(record: RunRecord, node: Node, base: Node) -> list[float]:
    """Gain on the search split with its standard error: over the items where it was a finalist, else as independent."""
    ours, theirs = Score(node["score"], node["stderr"]), Score(base["score"], base["stderr"])
    gain = difference(stored_gain(record, ""), ours, theirs)
    return [gain.value, gain.stderr] if gain else [0.0, 0.0]


def _thin(curve: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Only the points where the value changes, and the last."""
    ordered = sorted(curve)
    last = len(ordered) - 1
    return [p for i, p in enumerate(ordered) if i in (0, last) or p[1] != ordered[i - 1][1]]
