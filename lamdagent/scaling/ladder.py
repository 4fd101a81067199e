"""The ladder: which pipelines of a rung are made again on the next one, with more data."""

from lamdagent.memory.trial import POLICY, History, Trial
from lamdagent.planning.plan import Plan
from lamdagent.scaling.replay_plan import Replay, Scale


def promoted(history: History, plan: Plan, fraction: float) -> Replay:
    """The best `ladder.keep` pipelines that can be made with what is configured, to be made at `fraction`.

    Their weights need not be there. What repeats a pipeline with another seed is none of its own.
    """
    types = {kind.name for kind in plan.types}
    best: list[Trial] = []
    for trial in history.scored:
        own = trial.action is not None and trial.policy != POLICY
        if own and len(best) < plan.config.ladder.keep:
            actions = [step.action for step in Replay((trial,), history).sources if step.action]
            best += [trial] * all(a.type in types and not a.missing for a in actions)
    return Replay(tuple(best), history, Scale(fraction=fraction))
