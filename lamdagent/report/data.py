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
from lamdagent.evaluation.task import Score, Task, weighted_score
from lamdagent.memory.from_record import STATUS
from lamdagent.memory.references import recorded_inputs
from lamdagent.memory.scores import fraction_of, stored_gain
from lamdagent.memory.trial import RETRYABLE
from lamdagent.objects.reference import ObjectRef
from lamdagent.tracking import schema
from lamdagent.tracking.runs import RunRecord

Document = dict[str, Any]
"""Only dicts, lists, strings, finite numbers, booleans and None."""
Node = dict[str, Any]

MOST = 300
"""Trials of one search that a page shows: the newest ones, with the best ones and all ancestors besides."""
BEST = 100
"""Best runs of the experiment that a page shows in any case."""
MOST_PARENTS = 64
TEXT = 2000
"""Characters kept of a text."""
VALUE = 300
"""Characters kept of a param's value or of a name."""


def document(search: RunRecord, records: Iterable[RunRecord], curve: Sequence[tuple[int, float]] = ()) -> Document:
    """What the page shows of `search`.

    Args:
        search: The search run.
        records: Base and action runs of its experiment and their ancestors of any experiment; not all need be there.
        curve: (trials, best score so far), the history of the metric `score` of the search run.
    """
    tasks = tasks_of(search)
    runs = {r.run_id: r for r in sorted(records, key=lambda r: (r.start_ms, r.run_id)) if r.kind != "search"}
    now = _tasks_tag(search, runs.values())
    nodes = {run_id: _node(record, tasks, now, search.run_id) for run_id, record in runs.items()}
    _compare_one_fraction(runs, nodes, _float(search.tags.get(schema.FRACTION, "")))
    for parent in [parent for node in nodes.values() for parent in node["parents"]]:
        nodes.setdefault(parent, _unknown(parent))
    points = _thin([(step, value) for step, value in curve if math.isfinite(value)])
    total = _number(nodes.values(), points)
    _place(nodes)
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
        "chain": sorted(_ancestors(champion["id"], nodes)) if champion else [],
    }


def _compare_one_fraction(runs: Mapping[str, RunRecord], nodes: Mapping[str, Node], fraction: float | None) -> None:
    """Take comparison from actions that the search does not see (history.Histories); None: it sees all."""
    unseen: set[str] = set()
    for run_id, record in runs.items():
        other = record.kind == "action" and fraction_of(record) != fraction
        if fraction is not None and (other or not unseen.isdisjoint(parents_of(record))):
            unseen.add(run_id)
            nodes[run_id].update(comparable=False, score=None, test=None)


def telling_records(records: Sequence[RunRecord], search_run_id: str) -> list[RunRecord]:
    """Of any number of `records` the few hundred that the page of a search shows, ancestors included."""
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


def parents_of(record: RunRecord) -> list[str]:
    """Run ids of all input models, in slot order; no more and no longer ones than a page can show."""
    return [run_id[:VALUE] for run_id in record.parents[:MOST_PARENTS]]


def tasks_of(search: RunRecord) -> tuple[Task, ...]:
    """The tasks of the search with their weights and scales; without the tag `schema.SCALES`, from its params."""
    found = _json(search.tags.get(schema.SCALES, ""))
    try:
        return tuple(_task(**one) for one in found)
    except (TypeError, ValueError):
        pairs = re.findall(r"(?:^|, )(.+?) x ([0-9.e+-]+)(?=, |$)", search.params.get("tasks", ""))
        return tuple(Task(name, "", "", weight) for name, text in pairs if (weight := _float(text)) is not None)


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
        "name": _cut(search.name, VALUE),
        "status": search.status,
        "why": _cut(search.tags.get(schema.STATUS_REASON, ""), TEXT),
        "overlap": _cut(search.tags.get(schema.OVERLAP, ""), TEXT),
        "agent": _cut(search.params.get("agent", ""), VALUE),
        "seed": _cut(search.params.get("seed", ""), VALUE),
        "reflection": _cut(search.tags.get(schema.REFLECTION, ""), TEXT),
        "started": search.start_ms,
        "ended": search.end_ms,
        "trials": total,
        "shown": len(actions),
        "failed": sum(node["status"] == "failed" for node in actions),
        "seconds": sum(node["seconds"] or 0.0 for node in own),
        "gpu_seconds": search.metrics.get(schema.COST_GPU_SECONDS, sum(node["gpu_seconds"] or 0.0 for node in own)),
        "usd": search.metrics.get(schema.COST_USD, sum(node["usd"] or 0.0 for node in own)),
    }


def _node(record: RunRecord, tasks: Sequence[Task], tasks_tag: Any, search_run_id: str) -> Node:
    tags, metrics = record.tags, record.metrics
    comparable = tasks_tag is None or _json(tags.get(schema.TASKS, "")) == tasks_tag
    ok = comparable and record.status == "FINISHED"
    scores, tests = _scores(metrics, tasks, schema.TASK_PREFIX), _scores(metrics, tasks, schema.TEST_PREFIX)
    score = _weighted(tasks, scores, metrics, "") if ok else None
    test = _weighted(tasks, tests, metrics, schema.TEST_PREFIX) if ok else None
    parents, refs = parents_of(record), [ref for inside in recorded_inputs(record).values() for ref in inside]
    return {
        "id": record.run_id,
        "experiment": record.experiment_id,
        "name": _cut(record.name or record.run_id, VALUE),
        "kind": record.kind if record.kind in ("base", "action") else "other",
        "action": _cut(tags.get(schema.ACTION, ""), VALUE),
        "objects": ", ".join(_cut(ref.name, VALUE) for ref in refs if not ref.is_model),
        "params": {_cut(k, VALUE): _cut(v, VALUE) for k, v in sorted(record.params.items())[:60]},
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
        "state": _cut(tags.get(schema.STATE, ""), VALUE),
        "state_reason": _cut(tags.get(schema.STATE_REASON, ""), TEXT),
        "rank": None,
        "trial": None,
        "seconds": _finite(metrics.get(schema.COST_SECONDS)),
        "gpu_seconds": _finite(metrics.get(schema.COST_GPU_SECONDS)),
        "usd": _finite(metrics.get(schema.COST_USD)),
        "policy": _cut(tags.get(schema.POLICY, ""), VALUE),
        "reason": _cut(tags.get(schema.REASON, "").replace("&lt;", "<"), TEXT),
        "failure": _cut(tags.get(schema.STATUS_REASON, ""), TEXT),
        "failure_kind": _cut(tags.get(schema.FAILURE_KIND, ""), VALUE),
        "reused": _cut(tags.get(schema.REUSED, ""), VALUE),
        "started": record.start_ms,
        "depth": 0,
        "pipeline": "",
    }


def _unknown(run_id: str) -> Node:
    """A parent that cannot be read: deleted, or in an experiment that the reader may not see."""
    name = f"run {run_id[:8]}, not readable here"
    return _node(RunRecord(run_id, "", name, "UNKNOWN", 0, None, ""), (), None, "-") | {"status": "unknown"}


def _scores(metrics: Mapping[str, float], tasks: Sequence[Task], prefix: str) -> dict[str, Score]:
    found = {}
    for task in tasks:
        value = _finite(metrics.get(prefix + task.name))
        if value is not None:
            error = _finite(metrics.get(prefix + task.name + schema.STDERR_SUFFIX))
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
        score = None if value is None else Score(value, _finite(error) or 0.0)
    else:
        score = weighted_score(tasks, scores)
    return score if score and math.isfinite(score.value) and math.isfinite(score.stderr) else None


def _tasks_tag(search: RunRecord, records: Iterable[RunRecord]) -> Any:
    """Fingerprints of the search's tasks as its own newest run has them: scores of others are not comparable."""
    tags = [r.tags[schema.TASKS] for r in records if r.search_run_id == search.run_id and schema.TASKS in r.tags]
    return _json(tags[-1]) if tags else None


def _data_parents(refs: Sequence[ObjectRef], parents: Sequence[str]) -> list[str]:
    """Those of the parents whose data are an input, and not their models."""
    models = {ref.run_id[:VALUE] for ref in refs if ref.is_model}
    data = [ref.run_id[:VALUE] for ref in refs if ref.run_id and not ref.is_model]
    return [run_id for run_id in data if run_id in parents and run_id not in models]


def _number(nodes: Iterable[Node], curve: Sequence[tuple[int, float]]) -> int:
    """Number the search's own trials by their start, counted from the last one back; how many there are."""
    own = [n for n in nodes if n["own"] and n["kind"] == "action"]
    newest = sorted(own, key=lambda n: n["started"])[-MOST:]
    spent = [n for n in newest if n["failure_kind"] not in RETRYABLE or n["status"] != "failed"]
    total = max(len(own), curve[-1][0] if curve else 0)
    for number, node in enumerate(spent, total - len(spent) + 1):
        node["trial"] = number
    return total


def _place(nodes: Mapping[str, Node]) -> None:
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


def _ancestors(run_id: str, nodes: Mapping[str, Node]) -> set[str]:
    found: set[str] = set()
    waiting = [run_id]
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting += nodes[one]["parents"]
    return found


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


def _json(text: str) -> Any:
    try:
        return json.loads(text) if text else None
    except (ValueError, RecursionError):
        return None


def _float(text: str) -> float | None:
    try:
        return _finite(float(text))
    except ValueError:
        return None


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
