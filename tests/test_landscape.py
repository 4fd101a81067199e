"""The recorded landscape: shipped and recorded on the spot, replayed by every policy, as a real search would go."""

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import pytest

from lamdagent import letters
from lamdagent.errors import IllegalAction, UserError
from lamdagent.landscape.controls import KnowingLLM, RandomLLM
from lamdagent.landscape.simulate import RecordedSpace, replay
from lamdagent.landscape.table import Landscape, load
from lamdagent.selection.hybrid import HybridPolicy
from lamdagent.selection.llm import LLMPolicy
from lamdagent.selection.random_policy import RandomPolicy
from lamdagent.selection.surrogate import SurrogatePolicy
from lamdagent.selection.tpe import TPEPolicy
from tests import forkserver

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def shipped() -> Landscape:
    return load()[1][0]


def run_script(name: str, *arguments: str, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "studies" / name), *arguments]
    return forkserver.run(command, capture_output=True, text=True, timeout=timeout, check=False)


def test_the_shipped_table_is_whole() -> None:
    header, landscapes = load()
    assert len(landscapes) >= 3 and sum(len(x.trials) for x in landscapes) == header["made"]["actions"] >= 1000
    for landscape in landscapes:
        known = {landscape.base.run_id}
        for trial in landscape.trials:
            assert trial.action is not None and set(trial.parents) <= known
            assert trial.score is not None or trial.status_reason
            known.add(trial.run_id)
        assert max(t.model.depth for t in landscape.trials if t.model) == 3
        assert landscape.best > landscape.base.score.value + 0.05  # type: ignore[union-attr]


def test_no_split_of_letters_shares_a_word() -> None:
    found = {s: set(letters.words(s, 100, skill)) for s in ("search", "test") for skill in letters.SKILLS}
    train = {w for skill in letters.SKILLS for w in letters.words("train", 400, skill)}
    assert not found["search"] & found["test"] and not train & (found["search"] | found["test"])


def test_recorded_actions_are_offered_once_their_inputs_are_there(shipped: Landscape) -> None:
    base = {shipped.base.run_id: shipped.base.model}
    space = RecordedSpace(shipped, base, ())
    offered = [a for t in space.available() for a in space.actions(t)]
    assert offered and all(a.models == (shipped.base.model,) for a in offered)
    first = next(t for t in shipped.trials if t.action == offered[0])
    further = RecordedSpace(shipped, {**base, first.run_id: first.model}, {first.run_id})
    later = [a for t in further.available() for a in further.actions(t)]
    assert offered[0] not in later and any(first.model in a.models for a in later)


def test_an_action_is_made_from_its_objects_or_refused(shipped: Landscape) -> None:
    models = {shipped.base.run_id: shipped.base.model} | {t.run_id: t.model for t in shipped.trials[:5]}
    space = RecordedSpace(shipped, models, ())
    for action_type in space.available():
        action = next(space.actions(action_type))
        things = {o.name: o for o in (*action.models, *action.datasets)}
        objects = {slot: [things[n] for n in reversed(names)] for slot, names in action.slots.items()}
        assert space.make(action.type, objects, action.hyperparameters) == action
        assert set(space.options(action_type)) == set(action.slots)
    with pytest.raises(IllegalAction):
        space.make("sft_full", {"model": [shipped.base.model], "dataset": [shipped.datasets[-1]]}, {})


@pytest.mark.parametrize(
    "policy", [RandomPolicy, SurrogatePolicy, TPEPolicy, lambda: HybridPolicy(RandomLLM(1), SurrogatePolicy())]
)
def test_a_replay_is_legal_and_repeatable(shipped: Landscape, policy) -> None:
    first, again = (replay(policy(), shipped, 15, seed=4, remember=True) for _ in "ab")
    assert first.choices == again.choices and len(set(first.choices)) == 15
    assert first.best(0.0) == sorted(first.best(0.0)) and max(first.scores) == first.best(0.0)[-1]


def test_parts_of_a_landscape(shipped: Landscape) -> None:
    merges = ("merge_linear", "merge_ties")
    alone = shipped.without(merges)
    assert alone.trials and all(t.action and t.action.type not in merges for t in alone.trials)
    flat = shipped.without(deeper_than=1)
    assert flat.trials and all(t.action and all(m.initial for m in t.action.models) for t in flat.trials)
    spent = replay(RandomPolicy(), flat, 1000, seed=0)
    assert len(spent.scores) == len(flat.trials)  # and it ends when nothing is left


def test_an_llm_that_knows_beats_one_that_draws(shipped: Landscape) -> None:
    """The hybrid passes knowledge on: what the advisor knows shows in what is found."""
    start = shipped.base.score.value  # type: ignore[union-attr]
    regret = {}
    for name, advisor in (("knows", lambda s: KnowingLLM(s, shipped)), ("draws", RandomLLM)):
        runs = [replay(HybridPolicy(advisor(s), SurrogatePolicy()), shipped, 30, s) for s in range(10)]
        regret[name] = sum(shipped.best - value for run in runs for value in run.best(start)) / 300
        assert name == "draws" or all(run.fallbacks == 0 for run in runs)  # who draws also draws illegal objects
    assert regret["knows"] < regret["draws"]


def test_a_random_llm_is_asked_for_real(shipped: Landscape) -> None:
    llm = RandomLLM(0)
    found = replay(LLMPolicy(llm, RandomPolicy()), shipped, 10, 0, remember=True)
    assert llm.usage.calls >= 20 and len(set(found.choices)) == 10


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "studies"))
    return import_module("clock")


class TestClock:
    run: ClassVar[dict[str, Any]] = {"seconds": [60.0] * 4, "thinking": [0.0] * 4, "calls": 0, "curve": [1, 1, 3, 3, 5]}

    def test_equal_actions_and_no_thinking_give_the_curve_over_trials(self, clock: Any) -> None:
        assert clock.Clock().minutes(self.run, 60.0) == [0, 1, 2, 3, 4]
        assert clock.reached_at(self.run["curve"], [0, 1, 2, 3, 4], 3) == 2
        assert clock.reached_at(self.run["curve"], [0, 1, 2, 3, 4], 6) == math.inf
        found = clock.against(clock.Clock(), {"one": [self.run]}, [3])["one"]
        assert found["minutes_to_goal"] == [2, 2, 2] and found["choosing"] == 0
        assert found["curve"] == sorted(found["curve"]) and {1.0, 3.0, 5.0} == set(found["curve"])

    def test_longer_actions_slow_replies_and_thinking_count(self, clock: Any) -> None:
        slow = {**self.run, "thinking": [30.0] * 4, "calls": 8}
        assert clock.Clock(10, 15.0).minutes(slow, 60.0)[-1] == pytest.approx(4 * (10 + 0.5 + 0.5))
        found = clock.against(clock.Clock(0, 15.0), {"one": [self.run], "two": [slow]}, [3])
        assert found["two"]["minutes_to_goal"][1] == 4 and found["two"]["choosing"] == pytest.approx(0.5)
        assert found["one"]["minutes"] == found["two"]["minutes"] and found["one"]["minutes"][-1] == 4


@pytest.fixture
def broken(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "broken.gz"
    path.write_bytes(b"no gzip")
    yield path


def test_no_table_is_told(broken: Path) -> None:
    for path in (broken, broken.with_name("absent.gz")):
        with pytest.raises(UserError, match="record_landscape"):
            load(path)


@pytest.mark.slow
def test_recording_goes_on_and_the_table_can_be_compared(tmp_path: Path) -> None:
    """A space of a few actions, recorded for real, interrupted after the first seed, and replayed."""
    small = ["~datasets.second", "~datasets.top", "~datasets.pairs", "~actions.dpo_lora", "~actions.merge_ties"]
    small += ["actions.sft_full.hyperparameters.learning_rate=3e-3", "actions.sft_full.hyperparameters.steps=4"]
    small += ["~tasks.first", "~tasks.second", "~tasks.top"]
    small += [f"+tasks.{name}.limits={{search: 24}}" for name in ("last", "low")]
    table, work = tmp_path / "table.gz", tmp_path / "work"
    common = ["--work", str(work), "--output", str(table), "--grown", "1", "--workers", "1", *small]
    for seeds in (["0"], ["0", "1"]):
        done = run_script("record_landscape.py", "--seeds", *seeds, *common)
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout.splitlines()[-1])
    header, landscapes = load(table)
    assert told["actions"] == sum(len(x.trials) for x in landscapes) and told["failed"] == 0
    assert "seed 0" not in done.stdout  # its rows were there
    assert len((work / "0" / "rows.jsonl").read_text().splitlines()) == len(landscapes[0].trials) + 1
    assert max(t.model.depth for t in landscapes[0].trials if t.model) == 3
    plot = tmp_path / "plot.png"
    done = run_script(
        "compare_policies.py",
        "--landscape",
        str(table),
        "--seeds",
        "2",
        "--trials",
        "5",
        "--plot",
        str(plot),
        "--ablations",
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    figures = told["policies"]
    assert all(set(table) == set(figures) for table in told["minutes"].values()) and len(told["minutes"]) == 2
    assert {"random", "tpe", "surrogate", "hybrid:random", "surrogate, no merging"} <= set(figures)
    assert plot.stat().st_size > 10_000 and "| surrogate |" in done.stdout
