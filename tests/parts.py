"""What a user may bring: a policy, an executor and a source mapping, small and real: `tests.parts:X` in YAML."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue

from lamdagent.execution.call import call
from lamdagent.execution.executor import Event, Job, Update
from lamdagent.selection.policy import Decision, Turn
from lamdagent.tracking.runs import RunRecord
from tests.extending.alternating import Alternating as Alternating


def first_of_all(turn: Turn, *, reason: str = "it is the first") -> Decision | None:
    """The first legal action; a policy may be a function."""
    actions = (action for kind in turn.space.types for action in turn.space.actions(kind))
    action = next(actions, None)
    return Decision(action, "first_of_all", reason) if action else None


class Threaded:
    """Runs jobs in threads of this process."""

    def __init__(self, threads: int = 1) -> None:
        self.capacity = threads
        self._pool = ThreadPoolExecutor(threads)
        self._events: SimpleQueue[Event] = SimpleQueue()

    def submit(self, job: Job) -> None:
        self._pool.submit(self._run, job)

    def next_event(self, timeout_s: float) -> Event | None:
        try:
            return self._events.get(timeout=timeout_s)
        except Empty:
            return None

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _run(self, job: Job) -> None:
        self._events.put(call(job, lambda progress: self._events.put(Update(job.id, progress))))


def team_words(run: RunRecord) -> RunRecord | None:
    """Our team writes `recipe: sft_full@3e-3` and `acc: 61 %`-like metrics; runs without a recipe are tries."""
    recipe = run.params.get("recipe")
    if not recipe:
        return None
    action, _, rate = recipe.partition("@")
    params = {"action": action, "dataset": run.params["corpus"], "learning_rate": rate}
    return dataclasses.replace(run, params=params, metrics={"spelling": run.metrics["acc"] / 100})


class Mute:
    """No policy: it cannot be asked."""


class Deaf:
    """No policy: it does not take a turn."""

    def __call__(self) -> None:
        return None


class Halfway:
    """No executor: it never tells what happened."""

    capacity = 1

    def submit(self, job: Job) -> None:
        return None

    def close(self) -> None:
        return None


class Boundless(Threaded):
    """No executor: it does not say how many jobs run at once."""

    def __init__(self) -> None:
        super().__init__()
        del self.capacity
