"""The ladder: the pipelines of a rung that are made again on the next one, with more data."""

from lamdagent.memory.trial import POLICY, History, Trial
from lamdagent.planning.plan import Plan
from lamdagent.scaling.replay_plan import Replay, ReplayOverrides


def pipelines_for_rung(history: History, plan: Plan, fraction: float) -> Replay:
    """The replay, at `fraction` of the data, of the best `ladder.keep` pipelines that the configuration can make.

    Their weights may be gone. Repeats of a pipeline with another seed are no candidates.
    """
    types = {kind.name for kind in plan.types}
    best: list[Trial] = []
    for trial in history.scored:
        own = trial.action is not None and trial.policy != POLICY
        if own and len(best) < plan.config.ladder.keep:
            actions = [step.action for step in Replay((trial,), history).sources if step.action]
            best += [trial] * all(a.type in types and not a.missing for a in actions)
    return Replay(tuple(best), history, ReplayOverrides(fraction=fraction))
