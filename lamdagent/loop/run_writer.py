"""What a search writes, in the search's words: decisions, outcomes and models become runs of the store."""

import contextlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit, urlunsplit

from mlflow.exceptions import MlflowException

from lamdagent.actions.action import Action
from lamdagent.champion.promotion import PromotionResult
from lamdagent.champion.seed_repeats import SeedVariance
from lamdagent.evaluation.gain import Gain
from lamdagent.evaluation.task import Score, Task, weighted_score
from lamdagent.execution.executor import Failed
from lamdagent.loop.ledger import Spent
from lamdagent.memory.external.feed import Sources
from lamdagent.memory.lineage import recipe, step
from lamdagent.memory.references import inputs_tag
from lamdagent.memory.scores import scores_on
from lamdagent.memory.trial import RETRYABLE, History, Trial
from lamdagent.objects.checksum import Seal
from lamdagent.objects.dataset import Dataset
from lamdagent.objects.model import Model
from lamdagent.planning.plan import Plan
from lamdagent.report.document import document, scales, shown_records
from lamdagent.report.render import page
from lamdagent.scaling.replay_plan import Replay
from lamdagent.selection.policy import Decision
from lamdagent.tracking import schema
from lamdagent.tracking.artifact_layout import local_root
from lamdagent.tracking.datasets import rows_of
from lamdagent.tracking.lineage import ModelEntry
from lamdagent.tracking.ownership.claims import ASKED
from lamdagent.tracking.runs import RunRecord
from lamdagent.tracking.store import Store
from lamdagent.worker.make import Outcome

SIGN_S = 60.0
"""Seconds between two signs of life."""
REPORT_S = 5.0
"""Seconds between two reports, which are written while an action runs and nobody waits."""
FOLDERS = (schema.SAMPLES_FOLDER, schema.ADAPTER_FOLDER, schema.DATASET_FOLDER)
"""What a job may leave beside the weights."""
CATCH_UP_S = 600.0
"""How long a search that starts waits until the store has what earlier ones could not write."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Made:
    """A model that need not be made again."""

    weights: str
    """Where it is: `runs:/...`, or a folder."""
    scores: Mapping[str, Score]
    """Task -> score on the search split, of those tasks that have not changed since."""
    tags: Mapping[str, str]
    """For a run that takes it over: whose it is, and what that run says of it."""


class Journal:
    """One search's view of the store."""

    def __init__(self, store: Store, plan: Plan, config_yaml: str, replay: Replay | None = None) -> None:
        """Nothing is written until `open`. `replay`: the pipelines that the search makes again.

        Raises:
            ConfigError: `memory.sources` names experiments or filters that the store does not know.
        """
        self.store = store
        self.plan = plan
        self.config_yaml = config_yaml
        self.replay = replay
        self.search_run_id = ""
        self.reflection = ""
        self._seen = time.monotonic()
        self._spent = Spent()
        self._later: list[Callable[[], None]] = []
        """Writes that nobody waits for: they are done while the next action runs."""
        self._stale = False
        """Whether the report on the search run says less than the store."""
        self._reported = -REPORT_S
        self.sources = Sources(store.client, plan.config.memory.sources, store.experiment_id)
        """Others' runs; nothing is read until its `refresh`."""

    def open(self, search_id: str) -> Spent:
        """Start the search run, or go on with one that was cut off; what it has spent already.

        What dead processes of this host left open is closed first. A finished search of the same id stays as it is and
        a new run goes on from it.
        """
        # What they could not write counts too. When the store is away for longer, the search begins all the same.
        self.store.courier.settle(CATCH_UP_S)
        records = self.records()
        searches = [r for r in records if r.kind == "search" and r.tags.get(schema.REFLECTION)]
        self.reflection = searches[-1].tags[schema.REFLECTION] if searches else ""
        last = self.store.find_search(search_id)
        overlap = self.plan.findings.overlap
        tags = {schema.SCALES: scales(self.plan.tasks), schema.FRACTION: fraction_tag(self.plan)}
        tags |= {schema.OVERLAP: overlap} if overlap else {}
        if self.replay:
            tags[schema.REPLAYS] = json.dumps([trial.run_id for trial in self.replay.trials])
        if last is not None and self.store.was_cut_off(last):
            self.search_run_id = last.run_id
            # Whatever is open under it belongs to the dead, even where an outage has kept us from closing it.
            trials = len([r for r in self.store.trials_of(last.run_id) if r.status != "RUNNING" and _counts(r)])
            self.store.reopen_search(last.run_id)
            self.store.set_tags(last.run_id, tags)
            usd, gpu = (last.metrics.get(key, 0.0) for key in (schema.COST_USD, schema.COST_GPU_SECONDS))
            self._spent = Spent(0, usd, gpu)
            return Spent(trials, usd, gpu)
        name = (
            self.replay.title
            if self.replay
            else f"search {self.plan.config.agent.kind} seed {self.plan.config.search.seed}"
        )
        tasks = [task.name for task in self.plan.tasks]
        self.search_run_id = self.store.start_search(
            search_id, name, self._params(), self.config_yaml, self._text(), tasks
        )
        self.store.set_tags(self.search_run_id, tags)
        if overlap:
            self.store.log_dict(self.search_run_id, schema.LEAKS, {"rows": self.plan.findings.leaks})
        return Spent()

    def climbed(self, plan: Plan) -> None:
        """Say that the search is on the next rung of its ladder: from now on it compares what is there."""
        self.store.set_tags(self.search_run_id, {schema.FRACTION: fraction_tag(plan)})

    def spent(self, spent: Spent) -> None:
        """Keep what the search has cost so far, so that a restart goes on from it; only news is written."""
        costs = Spent(0, spent.usd, spent.gpu_seconds)
        if self.search_run_id and costs != self._spent:
            self._spent = costs
            now = {schema.COST_USD: costs.usd, schema.COST_GPU_SECONDS: costs.gpu_seconds}
            self.store.log_metrics(self.search_run_id, now)

    def close(self, status: Literal["FINISHED", "FAILED", "KILLED"] | str, reason: str) -> None:
        """End the search run, and as interrupted every run of this process under it that is still open."""
        if self.search_run_id:
            self._catch_up()
            for run_id in self.store.close_own(self.search_run_id, reason):
                self._discard(run_id)
            self.store.end_search(self.search_run_id, status, reason)  # type: ignore[arg-type]
            self._report()

    def records(self) -> list[RunRecord]:
        """The telling runs of the experiment; what dead processes left open is closed before."""
        records = self.store.runs()
        orphans = self.store.close_orphans()
        for run_id in orphans:
            self._discard(run_id)
        return self.store.runs() if orphans else records

    def sign_of_life(self) -> None:
        """Tell other hosts now and then that this search runs; the next one makes up for one that fails.

        Called while we wait: the time for what can be written later, and for a report.
        """
        self.store.courier.deliver_waiting()
        self._catch_up()
        if self._stale and time.monotonic() - self._reported > REPORT_S:
            self._report()
        if self.search_run_id and time.monotonic() - self._seen > SIGN_S:
            self._seen = time.monotonic()
            with contextlib.suppress(MlflowException):
                self.store.sign_of_life(self.search_run_id)

    def begin_base(self, model: Model, plan: Plan) -> str | None:
        """Open the run of an initial model; None while another search scores it."""
        tags = {**_model_tags(model), schema.TASKS: tasks_tag(plan.tasks), schema.FINGERPRINT: model.fingerprint}
        tags[schema.CLAIM] = ASKED
        tags |= {schema.ORIGIN: json.dumps(model.origin.told())} if model.origin else {}
        params = {"model": model.name, "architecture": model.architecture, "vocabulary": model.vocabulary}
        text = "The base: every gain is told against it."
        run_id = self.store.start_run(self.search_run_id, "base", f"base {model.name}", tags, params, text=text)
        return run_id if self.store.claim(run_id) else None

    def begin_action(self, decision: Decision, plan: Plan, memory: Callable[[], str], history: History) -> str | None:
        """Open the run of a decision with everything that was known when it was made.

        None when another search does the same action now, or has just done it.
        """
        action = decision.action
        text = f"**{action.describe()}**\n\nPolicy `{decision.policy}`: {_plain(decision.reason)}"
        name = f"{action.type} {'+'.join(ref.name for ref in action.data) or 'of ' + str(len(action.models))}"
        parents = _parents(action, history)
        tags = self._tags(decision, plan, parents) | {schema.CLAIM: ASKED}
        run_id = self.store.start_run(
            self.search_run_id, "action", name, tags, action.params(), parents=parents, text=text
        )
        if not self.store.claim(run_id):
            return None
        offered = {"chosen": action.describe(), "offered": list(decision.offered), **decision.details}
        told = {"policy": decision.policy, "reason": decision.reason, **offered}
        self._later.append(lambda: self.store.log_text(run_id, schema.MEMORY, memory()))
        self._later.append(partial(self.store.log_dict, run_id, schema.DECISION, told))
        self.store.link_traces(decision.traces, run_id)
        return run_id

    def known(self, action: Action) -> RunRecord | None:
        """A finished run of the same action, of whatever experiment: one that is `complete` if there is any."""
        known = self.store.by_fingerprint(action.fingerprint)
        if known is None or self.complete(known):
            return known
        return self.store.by_fingerprint(action.fingerprint, tasks_tag(self.plan.tasks)) or known

    def complete(self, known: RunRecord) -> bool:
        """Whether the run has scores on all our tasks, so that its result can stand for ours."""
        return len(scores_on(known, self.plan.tasks, schema.TASK_PREFIX)) == len(self.plan.tasks)

    def made(self, known: RunRecord) -> Made | None:
        """The weights and scores of a run on other tasks; None where its weights are gone."""
        if known.tags.get(schema.PRUNED):
            return None
        weights = known.tags.get(schema.WEIGHTS) or f"runs:/{known.run_id}/{schema.MODEL_FOLDER}"
        tags = {schema.REUSED: known.run_id, **_lineage(known)}
        return Made(weights, scores_on(known, self.plan.tasks, schema.TASK_PREFIX), tags)

    def reused(self, run_id: str, made: Made) -> None:
        """Say on an open run that its model is an older run's."""
        self.store.set_tags(run_id, made.tags)

    def adopt(
        self, known: RunRecord, decision: Decision, plan: Plan, memory: Callable[[], str], history: History
    ) -> None:
        """Take over a finished run of the same action in another experiment."""
        weights = known.tags.get(schema.WEIGHTS) or f"runs:/{known.run_id}/{schema.MODEL_FOLDER}"
        parents = _parents(decision.action, history)
        run_id = self.store.start_run(
            self.search_run_id,
            "action",
            known.name,
            {
                **self._tags(decision, plan, parents),
                schema.REUSED: known.run_id,
                schema.WEIGHTS: weights,
                **_lineage(known),
            },
            decision.action.params(),
            parents=parents,
            text=f"Nothing was run: the result of run `{known.run_id}` in another experiment stands here.",
        )
        scores = scores_on(known, plan.tasks, schema.TASK_PREFIX)
        kept = task_metrics(plan.tasks, scores, schema.TASK_PREFIX, schema.SCORE)
        entry = ModelEntry(f"model-{decision.action.fingerprint[:8]}", weights)
        self.store.finish_run(run_id, metrics=kept, model=entry, texts={schema.MEMORY: memory()})
        self._stale = True

    def finish(
        self, run_id: str, outcome: Outcome, seconds: float, model: Model, plan: Plan, output: Path, history: History
    ) -> None:
        """Close a run with its scores, curves, samples, recipe and weights; `output` is consumed."""
        trial = history.by_run.get(self.store.real(run_id))
        metrics = {**task_metrics(plan.tasks, outcome.scores, schema.TASK_PREFIX, schema.SCORE)}
        metrics |= {schema.COST_SECONDS: seconds, schema.COST_GPU_SECONDS: outcome.gpu_seconds}
        metrics |= {f"cost.{name}_seconds": value for name, value in outcome.seconds.items()}
        texts = {}
        if trial is not None and trial.action is not None:
            texts[schema.RECIPE] = _yaml(recipe(trial, history))
        staged = output / schema.MODEL_FOLDER
        folders = {name: output / name for name in FOLDERS}
        self.store.finish_run(
            run_id,
            metrics=metrics,
            curves=[(p.key, p.value, p.step, p.timestamp_ms) for p in outcome.curves],
            texts=texts,
            folders={name: folder for name, folder in folders.items() if folder.is_dir()},
            staging=staged if staged.is_dir() else None,
            model=ModelEntry(model.name, model.location, params=self._entry_params(trial), tags=_model_tags(model)),
            tags={
                **_model_tags(model),
                **_seal_tags(outcome.weights),
                **_data_tags(outcome.data),
                schema.WEIGHTS: model.location,
            },
        )
        shutil.rmtree(output, ignore_errors=True)

    def fail(self, run_id: str, failed: Failed) -> None:
        """Close a run as failed, with its reason."""
        self._catch_up()
        self._discard(run_id)  # first: where the disk is full, the reason could not be written
        self.store.fail_run(run_id, failed.reason, failed.details, failed.kind)
        self._stale = True

    def tried_again(self, run_id: str, rows: int) -> None:
        """Say on the run that memory ran out and that the second try has `rows` at once."""
        self.store.set_tags(run_id, {schema.MICRO_BATCH: str(rows)})

    def tested(self, run_id: str, scores: Mapping[str, Score], plan: Plan, output: Path) -> None:
        """Add test scores to a finished run."""
        prefix = schema.TEST_PREFIX
        self.store.log_metrics(run_id, task_metrics(plan.tasks, scores, prefix, prefix + schema.SCORE))
        samples = output / schema.SAMPLES_FOLDER
        if samples.is_dir():
            self.store.log_folder(run_id, schema.SAMPLES_FOLDER + "/test", samples)
        shutil.rmtree(output, ignore_errors=True)

    def promoted(
        self, standings: Sequence[PromotionResult], tests: Mapping[str, Gain], base: Trial, history: History
    ) -> None:
        """Write finalists' standings and gains (`tests`: run id -> gain on the test split), and the champion's run."""
        for standing in standings:
            run_id, test = standing.trial.run_id, tests.get(standing.trial.run_id)
            pairing = {"search": standing.gain.pairing} | ({"test": test.pairing} if test else {})
            told = {schema.STATE: standing.state, schema.STATE_REASON: standing.why}
            self.store.set_tags(run_id, told | {schema.PAIRING: json.dumps(pairing)})
            metrics = gain_metrics(standing.gain, "") | (gain_metrics(test, schema.TEST_PREFIX) if test else {})
            self.store.log_metrics(run_id, metrics)
        selected = next((s.trial.run_id for s in standings if s.state == "selected"), "")
        for trial in history.trials:
            if trial.state == "selected" and trial.run_id not in {s.trial.run_id for s in standings}:
                why = "a later search has promoted another one, or none"
                self.store.set_tags(trial.run_id, {schema.STATE: "eligible", schema.STATE_REASON: why})
        self.store.set_tags(self.search_run_id, {schema.CHAMPION: selected or base.run_id})

    def repeated(self, spread: SeedVariance) -> None:
        """Write what a finalist's pipeline scores with other seeds."""
        if spread.scores:
            metrics = {schema.SEEDS_MEAN: spread.mean, schema.SEEDS_COUNT: float(len(spread.scores))}
            metrics |= {schema.SEEDS_DEVIATION: spread.deviation} if len(spread.scores) > 1 else {}
            self.store.log_metrics(spread.trial.run_id, metrics)

    def progress(self, history: History, trials: int) -> None:
        """The best score so far, by number of trials: MLflow draws the curve."""
        if history.scored and history.scored[0].score:
            best = history.scored[0].score.value
            self._later.append(partial(self.store.log_progress_metric, self.search_run_id, best, trials))
        self._stale = True

    def _catch_up(self) -> None:
        later, self._later = self._later, []
        for write in later:
            write()

    def _report(self) -> None:
        """Bring the report on the search run up to date; what goes wrong with it is logged and hurts nothing."""
        if not self.store.courier.idle:
            return
        self._stale = False
        try:
            records = {record.run_id: record for record in self.store.runs()}
            search = records[self.store.real(self.search_run_id)]
            history = self.store.client.get_metric_history(search.run_id, schema.SCORE)
            shown = shown_records(list(records.values()), search.run_id)
            text = page(document(search, shown, [(m.step, m.value) for m in history]), _links(self.store.uri))
            self.store.log_text(search.run_id, schema.REPORT, text)
        except Exception:
            log.warning("The report could not be written.", exc_info=log.isEnabledFor(logging.DEBUG))
        self._reported = time.monotonic()

    def remember(self, reflection: str, traces: Sequence[str], run_id: str) -> None:
        """Keep the LLM's memory update; its calls are shown on the run that it came after."""
        self.store.link_traces(traces, run_id)
        if reflection != self.reflection:
            self.reflection = reflection
            self.store.set_tags(self.search_run_id, {schema.REFLECTION: reflection})

    def folder(self, model: Model) -> str:
        """Local folder of a model's weights."""
        if not model.location.startswith(("runs:/", "models:/")):
            return model.location
        return str(self.store.folder(model.location))

    def rows(self, dataset: Dataset) -> str:
        """Local file of a dataset's rows.

        Raises:
            UserError: a run made it, and its rows are gone or not what they were.
        """
        return str(rows_of(self.store, dataset)) if dataset.run_id else dataset.path

    def staging(self, run_id: str) -> Path | None:
        """A folder beside the run's artifacts, on their file system; None when they are on a server."""
        uri = self.store.artifact_uri(run_id)
        root = local_root(uri) if uri else None
        return root.parent / "staging" if root else None

    def _discard(self, run_id: str) -> None:
        """What the worker of a failed run has left: half-written weights are gigabytes."""
        staged = self.staging(run_id)
        if staged is not None:
            shutil.rmtree(staged, ignore_errors=True)

    def _tags(self, decision: Decision, plan: Plan, parents: Sequence[str]) -> dict[str, str]:
        action = decision.action
        return {
            schema.ACTION: action.type,
            schema.FINGERPRINT: action.fingerprint,
            schema.SLOTS: json.dumps({slot: list(names) for slot, names in action.slots.items()}),
            **inputs_tag(action, parents),
            schema.POLICY: decision.policy,
            schema.REASON: _plain(decision.reason),
            schema.PROMPT_VERSION: decision.prompt_version,
            schema.REPLAY_OF: decision.replay_of,
            schema.TASKS: tasks_tag(plan.tasks),
        }

    def _entry_params(self, trial: Any) -> Mapping[str, Any]:
        return step(trial.action)["hyperparameters"] if trial is not None and trial.action else {}

    def _params(self) -> dict[str, Any]:
        config = self.plan.config
        agent = config.agent.kind if not config.agent.model else f"{config.agent.kind} {config.agent.model}"
        agent = "replay" if self.replay else agent
        return {
            "agent": agent,
            "seed": config.search.seed,
            "data_fraction": config.data_fraction,
            "models": ", ".join(config.models),
            "datasets": ", ".join(config.datasets),
            **({"resources": ", ".join(config.resources)} if config.resources else {}),
            "actions": ", ".join(config.actions),
            "tasks": ", ".join(f"{t.name} x {t.weight:g}" for t in self.plan.tasks),
        }

    def _text(self) -> str:
        tasks = ", ".join(f"{t.name} ({t.weight:g})" for t in self.plan.tasks)
        return (
            f"A search for the best post-training pipeline on {tasks}. Its nested runs are the trials: sort by `score` "
            "for the leaderboard. Each names its parents; `score` here is the best so far, by number of trials."
        )


def fraction_tag(plan: Plan) -> str:
    """The tag `schema.FRACTION`; empty where the search compares all fractions."""
    return "" if plan.config.scope is None else str(plan.config.scope)


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


def gain_metrics(gain: Gain, prefix: str) -> dict[str, float]:
    """Metrics of a gain with its standard error and its 95 % confidence interval."""
    key = prefix + schema.GAIN
    ends = {key + schema.LOW_SUFFIX: gain.low, key + schema.HIGH_SUFFIX: gain.high}
    return {key: gain.value, key + schema.STDERR_SUFFIX: gain.stderr, **ends}


def _model_tags(model: Model) -> dict[str, str]:
    return {
        schema.MODEL_FINGERPRINT: model.fingerprint,
        schema.MODEL_BASE: model.base,
        schema.MODEL_DEPTH: str(model.depth),
        schema.MODEL_ARCHITECTURE: model.architecture,
        schema.MODEL_VOCABULARY: str(model.vocabulary),
        schema.MODEL_FRAME: model.frame,
    }


def _seal_tags(sealed: Seal | None) -> dict[str, str]:
    return {schema.WEIGHTS_SHA256: sealed.sha256, schema.WEIGHTS_BYTES: str(sealed.bytes)} if sealed else {}


def _data_tags(told: Mapping[str, Any] | None) -> dict[str, str]:
    """About rows that the action made."""
    if not told:
        return {}
    overlap = {schema.OVERLAP: str(told["overlap"])} if told.get("overlap") else {}
    return {schema.DATASET: json.dumps(told), **overlap}


def _lineage(record: RunRecord) -> dict[str, str]:
    """What a taken-over run says of its model and data."""
    told = record.tags.get(schema.DATASET)
    data = {schema.DATASET: json.dumps({"run_id": record.run_id, **json.loads(told)})} if told else {}
    keys = (
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
    return {key: record.tags[key] for key in keys if key in record.tags} | data


def _counts(record: RunRecord) -> bool:
    """Whether a run is a trial that was spent: an interrupted one was not, nor one that nobody has chosen."""
    retried = record.status == "FAILED" and record.tags.get(schema.FAILURE_KIND) in RETRYABLE
    return record.kind == "action" and not retried and not record.tags.get(schema.REPLAY_OF)


def _links(uri: str) -> str:
    """Where MLflow's UI is when the store is a server, without a password; empty for a database."""
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https"):
        return ""
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/") + "/", "", ""))


def _parents(action: Action, history: History) -> list[str]:
    """The runs that made (or scored) the action's inputs, in slot order."""
    return [o.run_id or (_run_of(o, history) if isinstance(o, Model) else "") for o in action.made]


def _run_of(model: Model, history: History) -> str:
    return history.by_model[model.fingerprint].run_id


def _plain(text: str) -> str:
    """Text from a policy as one line that Markdown shows as it is."""
    return " ".join(text.split()).replace("<", "&lt;")[:1000]


def _yaml(value: Mapping[str, Any]) -> str:
    import yaml

    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # a deep past takes libyaml a tenth of the time
    return str(yaml.dump(dict(value), Dumper=dumper, sort_keys=False, allow_unicode=True))
