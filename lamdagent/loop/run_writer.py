"""Writer of a search's base and action runs: each is opened with a decision and closed with an outcome."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lamdagent.actions.action import Action
from lamdagent.evaluation.task import Score
from lamdagent.execution.executor import Failed
from lamdagent.loop.run_content import (
    data_tags,
    hash_tags,
    inherited_tags,
    model_tags,
    parent_runs,
    plain,
    task_metrics,
    tasks_tag,
    yaml_text,
)
from lamdagent.loop.search_run import SearchRun, discard_staging, staging_folder
from lamdagent.memory.external.feed import Sources
from lamdagent.memory.lineage import recipe, step
from lamdagent.memory.references import inputs_tag
from lamdagent.memory.scores import scores_on
from lamdagent.memory.trial import History
from lamdagent.objects.dataset import Dataset
from lamdagent.objects.model import Model
from lamdagent.planning.plan import Plan
from lamdagent.scaling.replay_plan import Replay
from lamdagent.selection.policy import Decision
from lamdagent.text import json_text
from lamdagent.tracking import schema
from lamdagent.tracking.datasets import rows_of
from lamdagent.tracking.external import reader_of
from lamdagent.tracking.lineage import ModelEntry
from lamdagent.tracking.ownership.claims import REQUESTED
from lamdagent.tracking.runs import RunRecord
from lamdagent.tracking.store import RunStore
from lamdagent.worker.make import Outcome

FOLDERS = (schema.SAMPLES_FOLDER, schema.ADAPTER_FOLDER, schema.DATASET_FOLDER)
"""Folders that a job may leave beside the weights."""


@dataclass(frozen=True)
class ReusableWeights:
    """A model that need not be made again."""

    weights: str
    """Location of its weights: `runs:/...`, or a folder."""
    scores: Mapping[str, Score]
    """Task -> score on the search split, of those tasks that have not changed since."""
    tags: Mapping[str, str]
    """For a run that takes it over: whose it is, and what that run says of it."""


class RunWriter:
    """Writes the base and action runs of one search; `search_run` is its search run."""

    def __init__(self, store: RunStore, plan: Plan, config_yaml: str, replay: Replay | None = None) -> None:
        """Nothing is written until `search_run.open`. `replay`: the pipelines that the search makes again.

        Raises:
            ConfigError: `memory.sources` names experiments or filters that the store does not know.
        """
        self.store = store
        self.plan = plan
        self.search_run = SearchRun(store, plan, config_yaml, replay)
        self.sources = Sources(reader_of(store), plan.config.memory.sources, store.experiment_id)
        """Others' runs; nothing is read until its `refresh`."""

    def begin_base(self, model: Model, plan: Plan) -> str | None:
        """Open the run of an initial model; None while another search scores it."""
        tags = {**model_tags(model), schema.TASKS: tasks_tag(plan.tasks), schema.FINGERPRINT: model.fingerprint}
        tags[schema.CLAIM] = REQUESTED
        tags |= {schema.ORIGIN: json.dumps(model.origin.told())} if model.origin else {}
        params = {"model": model.name, "architecture": model.architecture, "vocabulary": model.vocabulary}
        text = "The base: every gain is told against it."
        run_id = self.store.open(self.search_run.run_id, "base", f"base {model.name}", tags, params, text=text)
        return run_id if self.store.claim(run_id) else None

    def begin_action(self, decision: Decision, plan: Plan, memory: Callable[[], str], history: History) -> str | None:
        """Open the run of a decision with everything that was known when it was made.

        None when another search does the same action now, or has just done it.
        """
        action = decision.action
        text = f"**{action.describe()}**\n\nPolicy `{decision.policy}`: {plain(decision.reason)}"
        name = f"{action.type} {'+'.join(ref.name for ref in action.data) or 'of ' + str(len(action.models))}"
        parents = parent_runs(action, history)
        tags = _decision_tags(decision, plan, parents) | {schema.CLAIM: REQUESTED}
        run_id = self.store.open(
            self.search_run.run_id, "action", name, tags, action.params(), parents=parents, text=text
        )
        if not self.store.claim(run_id):
            return None
        self.search_run.defer(lambda: self.store.update(run_id, texts={schema.MEMORY: memory()}))
        decided = {schema.DECISION: json_text(_decision_content(decision))}
        self.search_run.defer(partial(self.store.update, run_id, texts=decided))
        if decision.traces:
            self.store.update(run_id, traces=decision.traces)
        return run_id

    def find_finished(self, action: Action) -> RunRecord | None:
        """A finished run of the same action, of whatever experiment: one that `is_complete` if there is any."""
        found = self.store.find(action.fingerprint)
        if found is None or self.is_complete(found):
            return found
        return self.store.find(action.fingerprint, tasks_tag(self.plan.tasks)) or found

    def is_complete(self, found: RunRecord) -> bool:
        """Whether the run has scores on all our tasks, so that its result can stand for ours."""
        return len(scores_on(found, self.plan.tasks, schema.TASK_PREFIX)) == len(self.plan.tasks)

    def reusable_weights(self, found: RunRecord) -> ReusableWeights | None:
        """The weights and scores of a run on other tasks; None where its weights are gone."""
        if found.tags.get(schema.PRUNED):
            return None
        tags = {schema.REUSED: found.run_id, **inherited_tags(found)}
        return ReusableWeights(_weights_of(found), scores_on(found, self.plan.tasks, schema.TASK_PREFIX), tags)

    def record_reuse(self, run_id: str, reused: ReusableWeights) -> None:
        """Write on an open run that its model is an older run's."""
        self.store.update(run_id, tags=reused.tags)

    def adopt(
        self, found: RunRecord, decision: Decision, plan: Plan, memory: Callable[[], str], history: History
    ) -> None:
        """Take over a finished run of the same action in another experiment."""
        weights = _weights_of(found)
        adopted = {schema.REUSED: found.run_id, schema.WEIGHTS: weights, **inherited_tags(found)}
        parents = parent_runs(decision.action, history)
        run_id = self.store.open(
            self.search_run.run_id,
            "action",
            found.name,
            {**_decision_tags(decision, plan, parents), **adopted},
            decision.action.params(),
            parents=parents,
            text=f"Nothing was run: the result of run `{found.run_id}` in another experiment stands here.",
        )
        scores = scores_on(found, plan.tasks, schema.TASK_PREFIX)
        kept = task_metrics(plan.tasks, scores, schema.TASK_PREFIX, schema.SCORE)
        entry = ModelEntry(f"model-{decision.action.fingerprint[:8]}", weights)
        self.store.finish(run_id, metrics=kept, model=entry, texts={schema.MEMORY: memory()})
        self.search_run.report.mark_stale()

    def finish(
        self, run_id: str, outcome: Outcome, seconds: float, model: Model, plan: Plan, output: Path, history: History
    ) -> None:
        """Close a run with its scores, curves, samples, recipe and weights; `output` is consumed."""
        trial = history.by_run.get(self.store.resolve_run_id(run_id))
        action = trial.action if trial is not None else None
        metrics = task_metrics(plan.tasks, outcome.scores, schema.TASK_PREFIX, schema.SCORE)
        metrics |= {schema.COST_SECONDS: seconds, schema.COST_GPU_SECONDS: outcome.gpu_seconds}
        metrics |= {f"cost.{name}_seconds": value for name, value in outcome.seconds.items()}
        tags = {**model_tags(model), **hash_tags(outcome.weights), **data_tags(outcome.data)}
        params = step(action)["hyperparameters"] if action else {}
        staged = output / schema.MODEL_FOLDER
        self.store.finish(
            run_id,
            metrics=metrics,
            curves=[(p.key, p.value, p.step, p.timestamp_ms) for p in outcome.curves],
            texts={schema.RECIPE: yaml_text(recipe(trial, history))} if trial is not None and action else {},
            folders={name: output / name for name in FOLDERS if (output / name).is_dir()},
            staging=staged if staged.is_dir() else None,
            model=ModelEntry(model.name, model.location, params=params, tags=model_tags(model)),
            tags={**tags, schema.WEIGHTS: model.location},
        )
        shutil.rmtree(output, ignore_errors=True)

    def fail(self, run_id: str, failed: Failed) -> None:
        """Close a run as failed, with its reason."""
        self.search_run.write_deferred()
        discard_staging(self.store, run_id)  # first: where the disk is full, the reason could not be written
        self.store.fail(run_id, failed.reason, failed.details, failed.kind)
        self.search_run.report.mark_stale()

    def record_second_try(self, run_id: str, rows: int) -> None:
        """Write on the run that memory ran out and that the second try has `rows` at once."""
        self.store.update(run_id, tags={schema.MICRO_BATCH: str(rows)})

    def record_test(self, run_id: str, scores: Mapping[str, Score], plan: Plan, output: Path) -> None:
        """Add test scores and samples to a finished run; `output` is consumed."""
        prefix = schema.TEST_PREFIX
        samples = output / schema.SAMPLES_FOLDER
        folders = {schema.SAMPLES_FOLDER + "/test": samples} if samples.is_dir() else {}
        metrics = task_metrics(plan.tasks, scores, prefix, prefix + schema.SCORE)
        self.store.update(run_id, metrics=metrics, folders=folders)
        shutil.rmtree(output, ignore_errors=True)

    def folder(self, model: Model) -> str:
        """Local folder of a model's weights."""
        is_address = model.location.startswith(("runs:/", "models:/"))
        return str(self.store.weights(model.location)) if is_address else model.location

    def rows(self, dataset: Dataset) -> str:
        """Local file of a dataset's rows.

        Raises:
            UserError: a run made it, and its rows are gone or not what they were.
        """
        return str(rows_of(self.store, dataset)) if dataset.run_id else dataset.path

    def staging(self, run_id: str) -> Path | None:
        """A folder beside the run's artifacts, on their file system; None when they are on a server."""
        return staging_folder(self.store, run_id)


def _weights_of(found: RunRecord) -> str:
    return found.tags.get(schema.WEIGHTS) or f"runs:/{found.run_id}/{schema.MODEL_FOLDER}"


def _decision_tags(decision: Decision, plan: Plan, parents: Sequence[str]) -> dict[str, str]:
    action = decision.action
    return {
        schema.ACTION: action.type,
        schema.FINGERPRINT: action.fingerprint,
        schema.SLOTS: json.dumps({slot: list(names) for slot, names in action.slots.items()}),
        **inputs_tag(action, parents),
        schema.POLICY: decision.policy,
        schema.REASON: plain(decision.reason),
        schema.PROMPT_VERSION: decision.prompt_version,
        schema.REPLAY_OF: decision.replay_of,
        schema.TASKS: tasks_tag(plan.tasks),
    }


def _decision_content(decision: Decision) -> dict[str, Any]:
    """Everything behind a decision, for its artifact."""
    offered = {"chosen": decision.action.describe(), "offered": list(decision.offered), **decision.details}
    return {"policy": decision.policy, "reason": decision.reason, **offered}
