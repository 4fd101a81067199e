"""The action space of a turn: over the models and data of a plan and of its history."""

from collections.abc import Collection, Sequence

from lamdagent.enumeration.space import ActionSpace
from lamdagent.memory.history import tried_fingerprints
from lamdagent.memory.trial import History
from lamdagent.objects.model import Model
from lamdagent.planning.plan import Plan


def build_action_space(
    plan: Plan, models: Sequence[Model], history: History, done: Collection[str] = ()
) -> ActionSpace:
    """The legal actions over `models`, the models of the history that have their weights, and available ones of others.

    `done`: fingerprints that are not offered either; the history may be an excerpt and lack them.
    """
    made = [t.model for t in history.actions if t.model and t.score and not t.pruned]
    others = [t.model for t in history.external if t.model and t.model.location and not t.model.initial]
    unique = {m.fingerprint: m for m in [*models, *others, *made]}
    data = {d.fingerprint: d for t in history.actions if (d := t.dataset)} | {d.fingerprint: d for d in plan.datasets}
    return ActionSpace(
        plan.types,
        list(unique.values()),
        [*plan.datasets, *(d for d in data.values() if d.run_id)],
        tried=tried_fingerprints(history) | set(done),
        seed=plan.config.search.seed,
        data_fraction=plan.config.data_fraction,
        max_depth=plan.config.search.max_depth,
        resources=plan.resources,
    )
