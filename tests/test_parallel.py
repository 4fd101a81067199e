"""Many actions at once: what is in flight, and a whole search with three workers."""

import io
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from rich.console import Console

from lamdagent.config import conf_folder, read
from lamdagent.execution.executor import Failed, Finished, Job
from lamdagent.execution.progress import Progress
from lamdagent.loop.job_pool import JobPool
from lamdagent.loop.run_writer import RunWriter
from lamdagent.loop.search import run
from lamdagent.loop.terminal import Terminal
from lamdagent.loop.world import World
from lamdagent.planning.plan import make_plan
from lamdagent.selection.policy import Decision, Turn
from lamdagent.selection.random_policy import RandomPolicy
from lamdagent.selection.registry import Agent
from lamdagent.selection.surrogate import SurrogatePolicy
from lamdagent.selection.tpe import TPEPolicy
from lamdagent.tracking.store import RunStore
from tests import builders
from tests.searches import client_of, of_kind, runs_of, search, tag
from tests.several import Several


def plain() -> tuple[Terminal, io.StringIO]:
    file = io.StringIO()
    return Terminal(Console(file=file, width=200)), file


def job(name: str, target: str, **arguments: object) -> Job:
    return Job(name, f"tests.jobs:{target}", arguments, 60.0)


class TestJobPool:
    @pytest.fixture
    def executor(self) -> Iterator[Several]:
        executor = Several(2)
        yield executor
        executor.close()

    def test_lands_in_order_of_arrival(self, executor: Several, tmp_path: Path) -> None:
        pool = JobPool(executor, plain()[0], lambda: None)
        pool.submit(job("first", "until", path=str(tmp_path / "go")))
        assert pool.free and len(pool) == 1
        pool.submit(job("second", "add", a=1, b=2))
        assert not pool.free
        landed = pool.wait().ended
        assert isinstance(landed, Finished) and (landed.job_id, landed.value) == ("second", 3)
        (tmp_path / "go").touch()
        assert pool.wait().ended.job_id == "first" and not pool

    def test_asks_for_a_job_only_when_there_is_room(self, executor: Several) -> None:
        pool = JobPool(executor, plain()[0], lambda: None)
        asked: list[int] = []

        def jobs() -> Iterator[Job]:
            for number in range(5):
                assert pool.free
                asked.append(number)
                yield job(f"{number}", "add", a=number, b=0)

        values = []
        for ended in pool.as_completed(jobs()):
            assert isinstance(ended, Finished)
            values.append(ended.value)
            assert len(asked) <= len(values) + 2
        assert sorted(values) == [0, 1, 2, 3, 4] and executor.overlap == 2

    def test_one_failure_leaves_the_others(self, executor: Several) -> None:
        pool = JobPool(executor, plain()[0], lambda: None)
        ended = list(pool.as_completed([job("bad", "vanish"), job("good", "add", a=1, b=1)]))
        assert {e.job_id: type(e) for e in ended} == {"bad": Failed, "good": Finished}

    def test_a_lost_worker_costs_one_more_try(self, executor: Several, tmp_path: Path) -> None:
        pool = JobPool(executor, plain()[0], lambda: None)
        jobs = [job("struck", "vanishes_once", path=str(tmp_path / "seen")), job("other", "add", a=1, b=1)]
        ended = {e.job_id: e for e in pool.as_completed(jobs)}
        assert {name: e.value for name, e in ended.items() if isinstance(e, Finished)} == {
            "struck": "there",
            "other": 2,
        }


def test_plain_lines_say_whose_progress_it_is() -> None:
    view, file = plain()
    view.begin("1/7 sft", None, 0.0, job="a")
    view.step(Progress("train", 0, 12), "a")
    view.begin("2/7 dpo", None, 0.0, job="b")
    view.step(Progress("train", 0, 4), "b")
    view.step(Progress("train", 1, 4), "b")
    view.step(Progress("evaluate", 0, 9), "a")
    view.end("b")
    view.step(Progress("save", 0, 1), "a")
    lines = [line.rstrip() for line in file.getvalue().splitlines()]
    assert lines[1:] == [
        "    train (12)",
        "> 2/7 dpo  [no score yet]",
        "    train (4)  2/7 dpo",
        "    evaluate (9)  1/7 sft",
        "    save (1)",
    ]


def test_a_terminal_shows_a_line_per_job() -> None:
    file = io.StringIO()
    view = Terminal(Console(file=file, width=120, force_terminal=True))
    try:
        view.begin("first", None, 0.0, job="a")
        view.begin("second", None, 0.0, job="b")
        view.step(Progress("train", 3, 12), "a")
        view.step(Progress("merge", 1, 2), "b")
        tasks = {task.description: task for task in view._progress.tasks}
        assert tasks["first"].completed == 3 and "train 3/12" in tasks["first"].fields["status"]
        assert tasks["second"].completed == 1 and "merge 1/2" in tasks["second"].fields["status"]
        view.end("a")
        assert [task.description for task in view._progress.tasks] == ["second"]
    finally:
        view.close()


@pytest.mark.parametrize("policy", [RandomPolicy(), SurrogatePolicy(), TPEPolicy()])
def test_no_policy_repeats_what_runs(policy: Callable[[Turn], Decision | None]) -> None:
    history = builders.history(3)
    tried = {t.action.fingerprint for t in history.actions if t.action}
    running: list = []
    for number in range(3, 9):
        space = builders.space(builders.pool(3), tried=tried | {a.fingerprint for a in running})
        decision = policy(Turn(history, space, number, 0, pending=tuple(running)))
        assert decision is not None and decision.action.fingerprint not in tried | {a.fingerprint for a in running}
        running.append(decision.action)


class Watching:
    """Asks another policy, and keeps what it was asked with."""

    def __init__(self) -> None:
        self.policy = SurrogatePolicy()
        self.pending: list[list[str]] = []

    def __call__(self, turn: Turn) -> Decision | None:
        self.pending.append([action.fingerprint for action in turn.pending])
        decision = self.policy(turn)
        assert decision is None or decision.action.fingerprint not in self.pending[-1]
        return decision


@pytest.mark.slow
class TestSearch:
    TRIALS = 8

    @pytest.fixture(scope="class")
    @classmethod
    def ended(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Watching, Several, str]]:
        folder = tmp_path_factory.mktemp("parallel")
        uri = f"tracking.uri=sqlite:///{folder}/mlflow.db"
        with initialize_config_dir(str(conf_folder()), version_base="1.3"):
            node = compose("config", ["+experiment=smoke", uri, f"budget.trials={cls.TRIALS}"])
        watching, executor = Watching(), Several(3)
        view, file = plain()
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            plan = make_plan(read(node))
            journal = RunWriter(RunStore(plan.config.tracking.uri, plan.config.tracking.experiment), plan, "")
            try:
                run(World(plan, journal, executor, Agent(watching, "watching"), view))
            finally:
                executor.close()
        yield folder, watching, executor, file.getvalue()

    def test_every_action_once_and_closed(self, ended: tuple[Path, Watching, Several, str]) -> None:
        runs = runs_of(ended[0], "lamdagent-smoke")
        actions = of_kind(runs, "action")
        assert {run.info.status for run in runs} == {"FINISHED"}, ended[3]
        assert len(actions) == self.TRIALS and max(Counter(tag(r, "fingerprint") for r in actions).values()) == 1
        assert len([r for r in actions if "test.score" in r.data.metrics]) == 2

    def test_several_ran_together_and_the_policy_knew(self, ended: tuple[Path, Watching, Several, str]) -> None:
        _, watching, executor, _ = ended
        assert executor.overlap == 3
        assert [len(found) for found in watching.pending[:3]] == [0, 1, 2]
        assert max(len(found) for found in watching.pending) == 2

    def test_the_curve_counts_what_has_ended(self, ended: tuple[Path, Watching, Several, str]) -> None:
        (found,) = of_kind(runs_of(ended[0], "lamdagent-smoke"), "search")
        steps = sorted(m.step for m in client_of(ended[0]).get_metric_history(found.info.run_id, "score"))
        assert steps == [*range(self.TRIALS + 1)]


@pytest.mark.slow
def test_a_sweep_is_a_search_per_value(tmp_path: Path) -> None:
    code, output = search(tmp_path, "--multirun", "+experiment=smoke", "search.seed=0,1", "budget.trials=2")
    assert code == 0, output
    runs = runs_of(tmp_path, "lamdagent-smoke")
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert [run.data.params["seed"] for run in of_kind(runs, "search")] == ["0", "1"]
    assert len(of_kind(runs, "action")) == 4
