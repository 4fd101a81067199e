"""The policy of a replay: it picks the steps of pipelines that are made again at another scale."""

import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from lamdagent.actions.action import ActionType
from lamdagent.memory.trial import History, Trial
from lamdagent.objects.dataset import Dataset
from lamdagent.objects.model import Model
from lamdagent.scaling.replay_plan import Replay, Step, steps
from lamdagent.selection.policy import Decision, Turn

POLICY = "replay"
"""The policy tag of runs that repeat a step."""


class ReplayPolicy:
    """Picks a step as soon as its inputs are made; None when no step can start now, or ever."""

    def __init__(
        self,
        replay: Replay,
        types: Sequence[ActionType],
        initial: Mapping[str, Model],
        *,
        given: Mapping[str, Model | Dataset] = MappingProxyType({}),
        retry: bool = True,
    ) -> None:
        """`initial`: name under `models` -> model; `given` and `retry`: see `replay_plan.steps`.

        A step that failed before now is tried again.
        """
        self.replay = replay
        self._types = types
        self._initial = initial
        self._given = given
        self._retry = retry
        self._lines = [[step.run_id for step in replay.line(trial)] for trial in replay.trials]
        self._since = time.time_ns() // 1_000_000
        self.waiting = False
        """Whether the last answer was None because steps run that others need as inputs."""

    def __call__(self, turn: Turn) -> Decision | None:
        """The first due step of a pipeline of which no step has failed."""
        found = self.steps(turn.history)
        alive = [line for line in self._lines if not any(found[run_id].state == "failed" for run_id in line)]
        wanted = {run_id for line in alive for run_id in line}
        self.waiting = any(found[run_id].state == "running" for run_id in wanted)
        for number, (run_id, step) in enumerate(found.items(), 1):
            if step.state == "due" and step.action and run_id in wanted:
                reason = f"Step {number} of {len(found)}: what the run {run_id} did, at another scale."
                return Decision(step.action, POLICY, reason, replay_of=run_id)
        return None

    def steps(self, history: History) -> Mapping[str, Step]:
        """Every step with its state, see `replay_plan.steps`."""
        return steps(
            self.replay, history, self._types, self._initial, self._since, given=self._given, retry=self._retry
        )

    def results(self, history: History) -> list[Step]:
        """The last step of each pipeline, in the order of `Replay.trials`."""
        found = self.steps(history)
        return [found[trial.run_id] for trial in self.replay.trials]

    def made(self, history: History) -> list[Trial]:
        """The pipelines that have been made again."""
        return [step.trial for step in self.results(history) if step.state == "made" and step.trial]

    def shortfall(self, history: History, reason: str) -> str:
        """Why no pipeline has been made; `reason`: why the phase ended, told where no step has failed."""
        failed = [step for step in self.steps(history).values() if step.state == "failed"]
        if not failed:
            return f"The replay has not come to its end: {reason}. The same command goes on."
        first = failed[0]
        said = f"the run {first.source.run_id} could not be repeated: {first.why}"
        return f"The replay has stopped: {said}. What was made stays; once this is mended the same command goes on."
