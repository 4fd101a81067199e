"""What is made again at another scale, in which order, and what the two rankings say of each other."""

import time
from collections.abc import Sequence
from dataclasses import replace

import pytest

from lamdagent.api.transferring import picked
from lamdagent.champion.finalists import champion_of_more_data
from lamdagent.config import BudgetConfig, Config, LadderConfig, TaskConfig
from lamdagent.errors import ConfigError, UserError
from lamdagent.evaluation.task import Score
from lamdagent.loop.ledger import Ledger
from lamdagent.loop.limits import Limits
from lamdagent.memory.trial import History, Trial
from lamdagent.planning.plan import Plan, make_plan
from lamdagent.scaling.ladder import pipelines_for_rung
from lamdagent.scaling.merge_settings import merge_settings, put_bases
from lamdagent.scaling.pipeline_records import PipelineRecords
from lamdagent.scaling.rank_agreement import rank_agreement
from lamdagent.scaling.replay_plan import Replay, ReplayOverrides, steps
from lamdagent.scaling.replay_policy import ReplayPolicy
from lamdagent.selection.policy import Turn
from lamdagent.tracking.runs import RunRecord
from tests.builders import DATASETS, LINEAR, SFT, TYPES, base_trial, model, space, trial_of

AT_HAND = tuple(replace(dataset, path="/data.jsonl") for dataset in DATASETS)
BASE = model(0)


def made(kind, models: list, number: int, value: float = 0.4, *, skip: int = 0, seed: int = 0) -> Trial:
    offered = space(models, seed=seed, data_fraction=0.1)
    offered.datasets = AT_HAND
    wanted = [a for a in offered.actions(kind) if set(models[1:] or models) <= set(a.models)]
    return trial_of(wanted[skip], number, value)


def family(seed: int = 0) -> History:
    """The base, two trainings of it, and a merge of the two; `seed` is that of the second training."""
    one, two = made(SFT, [BASE], 1), made(SFT, [BASE], 2, skip=3, seed=seed)
    return History((base_trial(), one, two, made(LINEAR, [BASE, one.model, two.model], 3, 0.6)))


def replay_of(history: History, *runs: int, **scale) -> Replay:
    return Replay(tuple(history.trials[run] for run in runs), history, ReplayOverrides(**scale))


def now(*trials: Trial) -> History:
    return History((base_trial(), *trials))


def picks(policy: ReplayPolicy, made_now: Sequence[Trial] = ()) -> list[Trial]:
    """Everything that it asks for, each made at once."""
    done = list(made_now)
    while decision := policy(Turn(now(*done), space(), len(done))):
        done.append(trial_of(decision.action, 100 + len(done), 0.5))
    return done


class TestOrder:
    def test_inputs_come_first_and_shared_steps_once(self) -> None:
        history = family()
        replay = replay_of(history, 3, 1, fraction=1.0)
        done = picks(ReplayPolicy(replay, TYPES, {"base": BASE}))
        assert [t.action.type for t in done] == ["sft", "sft", "linear"]
        assert {t.action.data_fraction for t in done} == {1.0}
        assert {m.fingerprint for m in done[2].action.models} == {t.model.fingerprint for t in done[:2]}
        assert [t.run_id for t in replay.sources] == ["run2", "run1", "run3"]

    def test_what_is_made_or_runs_is_not_asked_for(self) -> None:
        policy = ReplayPolicy(replay_of(family(), 3, fraction=1.0), TYPES, {"base": BASE})
        first, *_ = picks(policy)
        running = replace(first, status="running", model=None, score=None, scores={})
        decision = policy(Turn(now(running), space(), 0))
        assert decision and decision.action.fingerprint != first.action.fingerprint and decision.replay_of == "run1"
        other = trial_of(decision.action, 50, 0.5)
        assert policy(Turn(now(running, other), space(), 0)) is None and policy.waiting
        assert [t.action.type for t in picks(policy, [first])] == ["sft", "sft", "linear"]
        assert policy(Turn(now(*picks(policy)), space(), 0)) is None and not policy.waiting

    def test_a_failure_ends_its_pipelines_only_and_an_older_one_is_tried_again(self) -> None:
        history = family()
        before = ReplayPolicy(replay_of(history, 3, 1, fraction=1.0), TYPES, {"base": BASE})
        first = before(Turn(now(), space(), 0)).action
        failed = trial_of(first, 40, None, "the loss is not a number", "nan_loss")
        late = replace(failed, started=time.time_ns() // 1_000_000 + 1000)
        done = picks(before, [late])[1:]
        assert [t.action.datasets for t in done] == [history.trials[1].action.datasets]
        assert [(s.state, s.why) for s in before.results(now(late, *done))] == [("waits", ""), ("made", "")]
        assert "the run run2 could not be repeated: the loss is not a number" in before.shortfall(now(late), "")
        assert len([t for t in picks(before, [failed]) if t.status == "finished"]) == 3

    @pytest.mark.parametrize(("failure", "asked"), [("lost_worker", True), ("budget", True), ("timeout", False)])
    def test_a_failure_of_the_surroundings_is_none_of_the_step(self, failure: str, asked: bool) -> None:
        policy = ReplayPolicy(replay_of(family(), 1, fraction=1.0), TYPES, {"base": BASE})
        action = policy(Turn(now(), space(), 0)).action
        failed = replace(trial_of(action, 40, None, "x", failure), started=time.time_ns() // 1_000_000 + 1000)
        assert (policy(Turn(now(failed), space(), 0)) is not None) == asked


class TestScale:
    def test_other_base_seed_and_settings(self) -> None:
        history = family()
        replay = replace(replay_of(history, 1, seed=5, settings={"sft": {"lr": 0.5}}), bases={BASE.fingerprint: "big"})
        (found,) = steps(replay, now(), TYPES, {"big": model(9, base=9)}).values()
        action, then = found.action, history.trials[1].action
        assert action.models == (model(9, base=9),) and action.seed == 5 and action.hyperparameters["lr"] == 0.5
        assert action.data_fraction == then.data_fraction and action.datasets == then.datasets
        assert action.hyperparameters["steps"] == then.hyperparameters["steps"]

    def test_nothing_other_is_the_same_action(self) -> None:
        history = family()
        found = steps(replay_of(history, 3), history, TYPES, {"base": BASE})
        assert [step.state for step in found.values()] == ["made"] * 3
        assert [step.trial.run_id for step in found.values()] == list(found)

    def test_steps_of_unlike_seeds_stay_unlike(self) -> None:
        done = picks(ReplayPolicy(replay_of(family(seed=7), 3, seed=2), TYPES, {"base": BASE}))
        assert [t.action.seed for t in done] == [3, 2, 2]

    def test_inputs_that_become_one_are_told(self) -> None:
        one, two = made(SFT, [BASE], 1), made(SFT, [BASE], 2, skip=1)
        assert one.action.datasets == two.action.datasets
        history = History((base_trial(), one, two, made(LINEAR, [BASE, one.model, two.model], 3)))
        policy = ReplayPolicy(replay_of(history, 3, settings={"sft": {"lr": 0.5}}), TYPES, {"base": BASE})
        done = picks(policy)
        assert len(done) == 1 and "have become one and the same model" in policy.shortfall(now(*done), "")

    def test_an_initial_model_that_is_not_what_it_was(self) -> None:
        (found,) = steps(replay_of(family(), 1), now(), TYPES, {"base": model(9, base=9)}).values()
        assert found.state == "failed" and "the initial model model-00000000 is not at hand" in found.why

    def test_restarts_tell_replays_apart(self) -> None:
        history = family()
        scales = [{"seed": 1}, {"seed": 2}, {"fraction": 1.0}, {"settings": {"sft": {"lr": 0.5}}}, {}]
        contents = [replay_of(history, 3, **scale).content for scale in scales]
        contents.append(replay_of(history, 1).content)
        assert len({str(content) for content in contents}) == 6


class TestLadder:
    def test_the_best_that_can_be_made_go_up(self) -> None:
        history = family()
        best = made(SFT, [BASE], 5, 0.9, skip=2)
        repeat = replace(made(SFT, [BASE], 6, 0.99, seed=1), policy="repeat")
        dpo = made(TYPES[1], [BASE], 7, 0.95)
        plan = Plan(Config(ladder=LadderConfig([0.1, 1.0], 2)), (SFT, LINEAR), AT_HAND, ())
        found = pipelines_for_rung(History((*history.trials, best, repeat, dpo)), plan, 1.0)
        assert [t.run_id for t in found.trials] == ["run5", "run3"] and found.overrides == ReplayOverrides(fraction=1.0)

    @pytest.mark.parametrize("rungs", [[0.5], [0.5, 0.1], [0.1, 0.1], [0.0, 1.0], [0.5, 1.5]])
    def test_rungs_that_do_not_rise_are_refused(self, rungs: list[float]) -> None:
        config = Config(ladder=LadderConfig(rungs), tasks={"a": TaskConfig()}, data_fraction=0.5)
        with pytest.raises(ConfigError) as caught:
            make_plan(config)
        assert "ladder.rungs: got" in str(caught.value) and "data_fraction: got 0.5, but ladder" in str(caught.value)

    def test_each_rung_has_its_share_of_the_time(self) -> None:
        half = Limits(BudgetConfig(None, wall_clock_minutes=60, gpu_hours=1), gpus=1, share=0.5)
        ledger = Ledger(gpu_seconds=1000)
        assert 790 < half.left_s(ledger) <= 800
        assert str(half.reached(ledger, 900)).endswith("50% of 1 GPU hours with the final test")
        ledger = Ledger(gpu_seconds=1801)
        assert "50% of 1 GPU hours are used" in str(half.reached(ledger))
        assert replace(half, share=1.0).reached(ledger, 900) is None


def test_a_pilot_does_not_take_the_place_of_a_champion_with_more_data() -> None:
    tags = {"lamdagent.state": "selected"}
    records = [RunRecord(n, "1", n, "FINISHED", 0, 1, "", {"data_fraction": n}, {}, tags) for n in ("0.1", "0.5")]
    assert [champion_of_more_data(records, scope) for scope in (0.1, 0.5, 1.0, None)] == ["0.5", None, None, None]
    assert champion_of_more_data([replace(records[1], tags={})], 0.1) is None


class TestTransfer:
    def test_figures(self) -> None:
        then, late = [0.8, 0.7, 0.6, 0.5, 0.4], [0.6, 0.9, 0.5, 0.4, 0.3]
        found = rank_agreement([(Score(a, 0.02), Score(b)) for a, b in zip(then, late, strict=True)], 2)
        assert found.spearman == pytest.approx(0.9) and found.top_overlap == 1.0 and not found.top1_retained
        assert (found.regret, found.gap, found.noise) == pytest.approx((0.3, 0.1, 0.02))

    def test_ties_have_their_mean_rank_and_too_little_has_no_correlation(self) -> None:
        def rho(*pairs: tuple[float, float]) -> float | None:
            return rank_agreement([(Score(a), Score(b)) for a, b in pairs], 1).spearman

        assert rho((3, 3), (2, 1), (2, 2), (1, 0)) == pytest.approx(0.9487, abs=1e-4)
        assert rho((2, 2), (1, 1)) is None and rho((3, 1), (2, 1), (1, 1)) is None

    @pytest.mark.parametrize(
        ("count", "top", "spread", "places"),
        [(10, 2, 3, [0, 1, 4, 6, 9]), (3, 5, 5, [0, 1, 2]), (10, 2, 1, [0, 1, 9]), (10, 3, 0, [0, 1, 2])],
    )
    def test_the_best_and_others_at_even_distances(self, count: int, top: int, spread: int, places: list[int]) -> None:
        ranked = [RunRecord(str(n), "1", "", "FINISHED", 0, 1, "") for n in range(count)]
        assert [int(record.run_id) for record in picked(ranked, top, spread)] == places


class TestSettings:
    """Of several searches, as one."""

    SFT = {"function": "m:f", "slots": {"model": {"kind": "model"}}, "hyperparameters": {"lr": [0.1], "steps": 3}}

    def record(
        self, run_id: str, search: str, slots: str = '{"model": ["model-1"], "dataset": ["calls"]}'
    ) -> RunRecord:
        tags = {"lamdagent.kind": "action", "lamdagent.action": "sft", "lamdagent.slots": slots}
        tags |= {"mlflow.parentRunId": search}
        return RunRecord(run_id, "1", run_id, "FINISHED", 0, 1, "", tags=tags)

    def past(self, **other) -> PipelineRecords:
        first = {
            "actions": {"sft": self.SFT, "dpo": {}},
            "datasets": {"calls": {"kind": "sft", "source": "a"}, "x": {}},
        }
        second = {"actions": {"sft": self.SFT | other}, "datasets": {"calls": {"kind": "sft", "source": "a"}}}
        return PipelineRecords(
            (self.record("a", "one"), self.record("b", "two")), {"one": first | {"search": 1}, "two": second}
        )

    def test_only_what_is_used_with_every_value(self) -> None:
        found = merge_settings(self.past(hyperparameters={"lr": 0.2, "steps": 3}))
        assert set(found["actions"]) == {"sft"} and set(found["datasets"]) == {"calls"} and found["search"] == 1
        assert found["actions"]["sft"]["hyperparameters"] == {"lr": [0.1, 0.2], "steps": [3]}

    def test_one_name_for_two_things_is_refused(self) -> None:
        with pytest.raises(UserError, match="actions.sft: the searches .* another function"):
            merge_settings(self.past(function="m:g"))

    def test_a_step_that_its_search_does_not_know_is_refused(self) -> None:
        past = self.past()
        with pytest.raises(UserError, match="have no datasets.calls"):
            merge_settings(replace(past, settings={**past.settings, "two": {"actions": {"sft": self.SFT}}}))

    def test_a_base_takes_the_place_of_the_one_that_the_pipelines_descend_from(self) -> None:
        def base(name: str) -> RunRecord:
            tags = {"lamdagent.kind": "base", "lamdagent.model_fingerprint": name}
            tags |= {"lamdagent.origin": f'{{"source": "hub/{name}", "file": null, "revision": "r"}}'}
            return RunRecord(name, "1", name, "FINISHED", 0, 1, "", tags=tags)

        past = PipelineRecords((base("student"), base("teacher")), {})
        last = [replace(made(SFT, [BASE], 1), model=replace(BASE, base="student"))]
        settings = {"models": {"small": {"source": "hub/student"}, "spare": {"source": "hub/spare"}}}
        assert put_bases(settings, past, last, {}, "hub/large") == {"student": "base"}
        assert {name: one["source"] for name, one in settings["models"].items()} == {
            "base_teacher": "hub/teacher",
            "base": "hub/large",
        }
        settings = {"models": {"small": {"source": "hub/student"}, "spare": {"source": "hub/spare"}}}
        assert put_bases(settings, past, last, {}, None) == {}
        assert settings["models"]["small"]["revision"] == "r" and "spare" not in settings["models"]
        with pytest.raises(UserError, match="do not all descend from one"):
            put_bases(settings, past, [*last, replace(last[0], model=replace(BASE, base="teacher"))], {}, "hub/large")
