"""`python -m lamdagent replay RUN_ID`: a found pipeline made again with more data, another base or another seed.

A replay is a search whose policy knows what it wants, so it is as safe as one: it goes on where it was cut off, keeps
to the budget, and tests its models at its end. It has an experiment of its own, since scores of two scales side by side
would mislead every later search.
"""

import re
from collections.abc import Mapping, Sequence

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf

from lamdagent.actions.action import Action
from lamdagent.config import read
from lamdagent.errors import SearchStopped, UserError
from lamdagent.memory.history import RETRYABLE, build_history
from lamdagent.objects.model import Model
from lamdagent.pipeline import chain, past
from lamdagent.repeats import again
from lamdagent.selection.agent import Agent
from lamdagent.selection.policy import Decision, Turn
from lamdagent.trial import History, Trial

POLICY = "replay"


def start(node: DictConfig, words: Sequence[str], overrides: Sequence[str]) -> None:
    """Replay the run that the command line names, with the settings of its search but for `overrides`.

    Args:
        node: What Hydra has composed: says which store.
        words: The run id and, perhaps, `base=SOURCE`.
        overrides: `key=value`, as given.

    Raises:
        UserError: there is nothing to replay, or something that the pipeline needs is gone.
        SearchStopped: a step failed; what came before it stays, and the same command tries again.
    """
    base = next((word.removeprefix("base=") for word in words if word.startswith("base=")), "")
    run_ids = [word for word in words if not word.startswith("base=")]
    if len(run_ids) != 1:
        given = " ".join(run_ids) or "none"
        raise UserError(f"replay: got {given}, wanted one run id: python -m lamdagent replay RUN_ID data_fraction=1.0")
    from lamdagent import app

    app.quiet_libraries()
    from lamdagent.plan import make_outline, make_plan
    from lamdagent.tracking import schema
    from lamdagent.tracking.restore import open_store_of, read_run, read_text

    store = open_store_of(read(node).tracking.uri, run_ids[0])
    record = read_run(store, run_ids[0])
    if record.kind != "action" or record.status != "FINISHED":
        what = f"{record.kind or 'not ours'}, {record.status}"
        raise UserError(f"replay: the run {record.run_id} made no model: it is {what}")
    old = OmegaConf.create(yaml.safe_load(read_text(store, record.search_run_id, schema.CONFIG)))
    settings = _settings(old, overrides, base, store.experiment)
    settings.tracking.uri = store.uri
    outline = make_outline(read(old))
    history = build_history(store.every(), outline.types, outline.datasets, outline.tasks)
    pipeline = Pipeline(history.by_run[record.run_id], history)
    settings.budget.trials = len(pipeline.actions)
    settings.search.test_top = len(pipeline.actions)
    settings.search.replay = record.run_id
    plan = make_plan(read(settings))
    app.search(plan, OmegaConf.to_yaml(settings, resolve=True), Agent(pipeline, f"replays {pipeline}"))


class Pipeline:
    """The policy of a replay: the next step whose inputs are there."""

    def __init__(self, trial: Trial, history: History) -> None:
        """All that `trial` rests on, others' models as they are."""
        self._steps = {**past(trial, history)}
        assert trial.model is not None
        self._steps[trial.model] = trial
        self._said = chain(trial.model, history)

    def __str__(self) -> str:
        """The chain, for the user."""
        return self._said

    @property
    def actions(self) -> list[Action]:
        """The steps, inputs before their uses."""
        return [trial.action for trial in self._steps.values() if trial is not None and trial.action]

    def __call__(self, turn: Turn) -> Decision | None:
        """See `Policy`; None when all is done, or while the inputs of what is left are in the making.

        Raises:
            SearchStopped: a step has failed.
            UserError: a step cannot be done with these settings.
        """
        now: dict[str, Model] = {}
        running = {action.fingerprint for action in turn.pending}
        failed = {t.action.fingerprint: t for t in turn.history.failed if t.action and t.failure not in RETRYABLE}
        for model, made in self._steps.items():
            if made is None or made.action is None:
                now[model.fingerprint] = self._given(model, made, turn)
            elif all(parent.fingerprint in now for parent in made.action.models):
                action = self._step(made.action, now, turn)
                known = turn.history.by_model.get(action.fingerprint)
                if known and known.model and known.score:
                    now[model.fingerprint] = known.model
                elif trial := failed.get(action.fingerprint):
                    raise SearchStopped(f"replay: {action.describe()} failed: {trial.status_reason}")
                elif action.fingerprint not in running:
                    return Decision(action, POLICY, f"The step of the run {made.run_id}.")
        return None

    def _given(self, model: Model, made: Trial | None, turn: Turn) -> Model:
        """What stands for a model that no step makes: itself, or the one base that there is now."""
        bases = [other for other in turn.space.models if other.initial]
        same = next((other for other in bases if other.fingerprint == model.fingerprint), None)
        if same is not None or made is None:
            return same or model
        if len(bases) != 1:
            names = ", ".join(other.name for other in bases)
            wanted = "base=SOURCE names one for all"
            raise UserError(f"replay: nothing says which of {names} stands for {model.name}; {wanted}")
        return bases[0]

    def _step(self, action: Action, now: Mapping[str, Model], turn: Turn) -> Action:
        current = {dataset.name: dataset for dataset in turn.space.datasets}
        there = {*current, *(kind.name for kind in turn.space.types)}
        if lacking := [name for name in (action.type, *(d.name for d in action.datasets)) if name not in there]:
            raise UserError(f"replay: the settings lack {', '.join(lacking)}, which {action.describe()} needs")
        return again(action, now, turn.space.types, turn.space.seed, turn.space.data_fraction, current)


def _settings(old: DictConfig | ListConfig, overrides: Sequence[str], base: str, experiment: str) -> DictConfig:
    """The settings of the search with what is to be different; an experiment of its own unless one is named."""
    for override in overrides:
        key, equals, _ = override.partition("=")
        if not equals or not re.fullmatch(r"[\w.]+", key) or OmegaConf.is_dict(OmegaConf.select(old, key)):
            raise UserError(
                f"replay: got {override!r}, wanted keys of the search's settings with their values, such as "
                "data_fraction=1.0, search.seed=1 or execution.kind=ray"
            )
    merged = OmegaConf.merge(old, OmegaConf.from_dotlist(list(overrides)))
    assert isinstance(merged, DictConfig)
    if base:
        merged.models = {"base": {"source": base}}
    if not any(override.startswith("tracking.experiment=") for override in overrides):
        scale = f"{experiment}-at-{merged.data_fraction:g}"
        slug = re.sub(r"[^\w.-]+", "-", base)
        merged.tracking.experiment = f"{scale}-on-{slug}" if base else scale
    return merged
