"""Policies, executors and source mappings of the user's: the contracts of ours, and what is refused at the door."""

from pathlib import Path
from typing import Any

import pytest

from lamdagent.config import AgentConfig, Config, ExecutionConfig
from lamdagent.errors import ConfigError, UserError
from lamdagent.execution.registry import make_executor
from lamdagent.planning.plan import read_plan
from lamdagent.selection.registry import make_agent
from tests.builders import history
from tests.parts import Threaded
from tests.searches import CONF, lamdagent, of_kind, runs_of, tag
from tests.test_config import composed
from tests.test_execution import ExecutorContract
from tests.test_foreign import one, ready, run, trial
from tests.test_selection import PolicyContract, turn


def policy_of(kind: str, **arguments: Any) -> Any:
    return make_agent(Config(agent=AgentConfig(kind=kind, arguments=arguments)), ()).policy


class TestPolicyClass(PolicyContract):
    policy = staticmethod(policy_of("tests.parts:Alternating"))

    def test_its_arguments_are_those_of_the_yaml(self):
        of = {n: policy_of("tests.parts:Alternating", stride=n)(turn(history(1), 1)).action.type for n in (1, 2)}
        assert len(set(of.values())) == 2


class TestPolicyFunction(PolicyContract):
    policy = staticmethod(policy_of("tests.parts:first_of_all"))

    def test_its_arguments_are_those_of_the_yaml(self):
        decision = policy_of("tests.parts:first_of_all", reason="because")(turn(history(1), 1))
        assert decision.reason == "because"


class TestExecutor(ExecutorContract):
    @pytest.fixture
    def executor(self):
        executor = make_executor(Config(execution=ExecutionConfig(kind="tests.parts:Threaded")))
        yield executor
        executor.close()

    def test_its_arguments_are_those_of_the_yaml(self):
        settings = ExecutionConfig(kind="tests.parts:Threaded", arguments={"threads": 3})
        executor = make_executor(Config(execution=settings))
        assert isinstance(executor, Threaded) and executor.capacity == 3
        executor.close()

    def test_one_that_does_not_say_how_many_jobs_it_takes_is_refused(self):
        with pytest.raises(UserError, match="Boundless has no `capacity`"):
            make_executor(Config(execution=ExecutionConfig(kind="tests.parts:Boundless")))


class TestMapping:
    SOURCE = {"mapping": "tests.parts:team_words", "scores": {"calls": {"metric": "spelling"}}}
    PARAMS = {"recipe": "sft_full@0.02", "corpus": "calls"}

    def reading(self, params: dict[str, str], **metrics: float):
        source = ready(self.SOURCE["mapping"], scores=self.SOURCE["scores"])
        return one(source, run(1, params, metrics=metrics or {"acc": 61.0}))

    def test_it_puts_their_words_into_those_that_params_reads(self):
        found = trial(self.reading(self.PARAMS))
        assert found.action.type == "sft_full" and found.action.hyperparameters["learning_rate"] == 0.02
        assert [d.name for d in found.action.datasets] == ["calls"]
        assert found.scores["calls"].value == pytest.approx(0.61)

    def test_none_leaves_a_run_out(self):
        assert self.reading({"lr": "1"}).skipped == "tests.parts:team_words leaves it out"

    def test_what_it_raises_is_the_reason_of_that_run_alone(self):
        assert "failed: KeyError: 'corpus'" in self.reading({"recipe": "sft_full@1"}).skipped

    def test_something_else_than_the_run_is_no_reading(self):
        odd = one(ready("builtins:repr"), run(1, self.PARAMS))
        assert "returned a str, wanted the same run" in odd.skipped


REFUSED = {
    "agent.kind=oracle": "agent.kind: got 'oracle'; allowed: auto, hybrid, llm, surrogate, tpe, random, all_data_sft, "
    "ties_grid, or module:Name of one of yours",
    "agent.kind=tests.parts:Nobody": "agent.kind: 'tests.parts:Nobody' is no module:function",
    "agent.kind=nowhere.at_all:Policy": "agent.kind: 'nowhere.at_all:Policy' is no module:function",
    "agent.kind=tests.parts:Mute": "agent.kind: tests.parts:Mute has no method __call__(turn)",
    "agent.kind=tests.parts:Deaf": "agent.kind: Deaf.__call__ cannot be called as Deaf.__call__(self, turn)",
    "agent.kind=tests.parts:team_words +agent.arguments={x: 1}": "team_words cannot be called as team_words(turn, x=1)",
    "agent.kind=tests.parts:Alternating +agent.arguments={steps: 1}": "agent.arguments: Alternating cannot be called",
    "+agent.arguments={stride: 1}": "agent.arguments: only a policy of yours takes some",
    "execution.kind=slurm": "execution.kind: got 'slurm'; allowed: local, inline, ray, or module:Name",
    "execution.kind=tests.parts:Halfway": "execution.kind: tests.parts:Halfway has no method next_event(timeout_s)",
    "execution.kind=tests.parts:first_of_all": "execution.kind: tests.parts:first_of_all is no class",
    "+execution.arguments={threads: 2}": "execution.arguments: only an executor of yours takes some",
    "+source=trl memory.sources.trl.experiments=[x] memory.sources.trl.mapping=tests.parts:nobody": "trl.mapping: "
    "'tests.parts:nobody' is no module:function",
    "+source=trl memory.sources.trl.experiments=[x] memory.sources.trl.mapping=time:time": "trl.mapping: ",
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_is_none_is_refused_before_the_search(words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_plan(composed(*words.replace(": ", ":").split()))
    assert REFUSED[words] in str(caught.value)


@pytest.mark.slow
def test_a_search_with_a_policy_and_an_executor_of_the_user_s(tmp_path: Path) -> None:
    parts = ("agent.kind=tests.parts:Alternating", "execution.kind=tests.parts:Threaded")
    code, output = lamdagent(tmp_path, *CONF, "+experiment=scaled", *parts, "budget.trials=2")
    assert code == 0 and "tests.parts:Alternating chooses, a policy of yours" in output, output
    runs = of_kind(runs_of(tmp_path, "scaled"), "action")
    assert [tag(run, "policy") for run in runs] == ["alternating"] * 2
    assert [run.data.params["action"] for run in runs] == ["sft_full", "merge_linear"]
