"""The contract of every policy, and what sets each apart. The LLM's is in test_llm.py."""

import pytest

from lamdagent.evaluation.task import Score
from lamdagent.landscape.controls import RandomLLM
from lamdagent.memory.trial import History, Trial
from lamdagent.selection.candidates import DRAWN, candidates
from lamdagent.selection.hybrid import HybridPolicy, shortlist
from lamdagent.selection.policy import Turn
from lamdagent.selection.random_policy import RandomPolicy
from lamdagent.selection.surrogate import SurrogatePolicy, predict, rank
from lamdagent.selection.tpe import TPEPolicy
from tests.builders import DPO, LINEAR, SFT, TYPES, base_trial, history, model, pool, space, trial_of


def turn(past: History, number: int = 0, seed: int = 0, **more) -> Turn:
    tried = {t.action.fingerprint for t in past.actions if t.action}
    models = pool() + [t.model for t in past.actions if t.model]
    return Turn(past, space(models, tried=tried, **more), number, seed)


class PolicyContract:
    policy = None

    @pytest.mark.parametrize("count", [0, 1, 5, 12])
    def test_one_legal_untried_action_and_a_reason(self, count):
        asked = turn(history(count), count)
        decision = self.policy(asked)
        offered = {a.fingerprint for t in TYPES for a in asked.space.actions(t)}
        assert decision.action.fingerprint in offered
        assert decision.reason and decision.policy

    def test_same_seed_same_choices(self):
        chosen = [[self.policy(turn(history(n), n, seed=3)).action for n in range(5)] for _ in range(2)]
        assert chosen[0] == chosen[1]

    def test_none_when_nothing_is_left(self):
        tried = {a.fingerprint for t in TYPES for a in space().actions(t)}
        assert self.policy(Turn(History((base_trial(),)), space(tried=tried), 9)) is None

    def test_only_failures_behind_it(self):
        actions = list(space().actions(SFT))[:2]
        past = History(
            (base_trial(), *(trial_of(a, n, None, "oom", "out_of_memory") for n, a in enumerate(actions, 1)))
        )
        assert self.policy(turn(past, 2)) is not None


class TestCandidates:
    def test_a_small_space_is_offered_whole(self):
        asked = turn(history(12), 12)
        assert candidates(asked, TYPES) == [a for t in TYPES for a in asked.space.actions(t)]

    def test_of_a_large_one_half_are_near_the_best(self):
        models = [model(n, depth=1) for n in range(1, 401)]
        trials = [
            Trial(f"run{n}", "action", "finished", None, m, {}, Score(n / 1000, 0.05)) for n, m in enumerate(models)
        ]
        asked = Turn(History((base_trial(), *trials)), space([*pool(), *models], types=(SFT, LINEAR)), 7)
        found = candidates(asked, (SFT, LINEAR))
        assert found == candidates(asked, (SFT, LINEAR))
        best = {*models[-10:], *pool()}
        for kind in ("sft", "linear"):
            offered = [a for a in found if a.type == kind]
            near = [a for a in offered if {*a.models} <= best]
            assert 15 <= len(near) and DRAWN * 0.45 <= len(offered) - len(near) and len(offered) <= DRAWN, kind
        assert not asked.space.tried & {a.fingerprint for a in found}


class TestRandom(PolicyContract):
    policy = RandomPolicy()

    def test_seeds_differ(self):
        assert len({self.policy(turn(history(0), 0, seed=s)).action.fingerprint for s in range(20)}) > 2

    def test_types_are_equally_likely_whatever_their_size(self):
        drawn = [self.policy(turn(History(), n, types=(SFT, DPO))).action.type for n in range(300)]
        assert 110 < drawn.count("dpo") < 190  # 1 action of 5


class TestSurrogate(PolicyContract):
    policy = SurrogatePolicy()

    def test_every_type_is_tried_within_twice_their_number(self):
        past, models, seen = [base_trial()], pool(), set()
        for number in range(2 * len(TYPES)):
            asked = Turn(History(tuple(past)), space(models, tried=[t.action.fingerprint for t in past[1:]]), number)
            action = self.policy(asked).action
            seen.add(action.type)
            past.append(trial_of(action, number + 1, 0.3))
            models.append(past[-1].model)
        assert seen == {t.name for t in TYPES}

    def test_good_dataset_is_preferred(self):
        some = space()
        by_name = {(a.datasets[0].name, a.hyperparameters["lr"]): a for a in some.actions(SFT)}
        past = History(
            (
                base_trial(0.2),
                trial_of(by_name["calls", 0.001], 1, 0.6),
                trial_of(by_name["mixed", 0.001], 2, 0.1),
            )
        )
        ranking = rank(Turn(past, space(tried=[t.action.fingerprint for t in past.actions]), 2), [SFT])
        assert ranking[0].action.datasets[0].name == "calls"
        means = {p.action.datasets[0].name: p.mean for p in ranking}
        assert means["calls"] > means["mixed"]

    def test_types_that_fail_are_avoided(self):
        sft = list(space().actions(SFT))
        past = History(
            (base_trial(), *(trial_of(a, n, None, "oom", "out_of_memory") for n, a in enumerate(sft[:3], 1)))
        )
        ranking = rank(turn(past, 3), [SFT, DPO])
        assert ranking[0].action.type == "dpo"
        assert next(p for p in ranking if p.action.type == "sft").failure > 0.4

    def test_a_dataset_that_fails_is_blamed_before_its_type(self):
        sft = {(a.datasets[0].name, a.hyperparameters["lr"]): a for a in space().actions(SFT)}
        bad = [sft["mixed", 0.001], sft["mixed", 0.002]]
        good = trial_of(sft["calls", 0.001], 3, 0.3)
        past = History((base_trial(), *(trial_of(a, n, None, "bad rows") for n, a in enumerate(bad, 1)), good))
        asked = turn(past, 3)
        produced = [a for a in asked.space.actions(SFT) if a.models[0].depth == 1]
        risk = {p.action.datasets[0].name: p.failure for p in predict(asked, produced)}
        assert risk["mixed"] > risk["calls"] + 0.05

    def test_pending_actions_are_not_repeated_in_spirit(self):
        """A batch spreads: what resembles a running action is less uncertain, and so less worth a try."""
        past = history(5)
        asked = turn(past, 5)
        first = rank(asked, [SFT])[0].action
        waiting = Turn(past, asked.space, 5, 0, pending=(first,))
        alike = [a for a in asked.space.actions(SFT) if a.datasets == first.datasets and a != first]
        before, after = predict(asked, alike), predict(waiting, alike)
        assert all(b.std < a.std for a, b in zip(before, after, strict=True))


class TestTPE(PolicyContract):
    policy = TPEPolicy()

    def test_what_scored_well_is_proposed_more_often(self):
        """Twenty trials: calls good, mixed bad."""
        past, models = [base_trial(0.2)], pool()
        for number in range(1, 21):
            offered = list(space(models, tried=[t.action.fingerprint for t in past[1:]]).actions(SFT))
            action = offered[(7 * number) % len(offered)]
            past.append(trial_of(action, number, 0.6 if action.datasets[0].name == "calls" else 0.1))
            models.append(past[-1].model)
        chosen = [self.policy(turn(History(tuple(past)), 20, seed, types=(SFT,))).action for seed in range(30)]
        assert sum(action.datasets[0].name == "calls" for action in chosen) > 20

    def test_failed_trials_count_as_the_worst(self):
        past, models = [base_trial(0.2)], pool()
        for number in range(1, 21):
            offered = list(space(models, tried=[t.action.fingerprint for t in past[1:]]).actions(SFT))
            action = offered[(7 * number) % len(offered)]
            past.append(trial_of(action, number, 0.2 if action.datasets[0].name == "calls" else None, "oom"))
            models += [past[-1].model] if past[-1].model else []
        chosen = [self.policy(turn_of(past, models, seed)).action for seed in range(30)]
        assert sum(action.datasets[0].name == "calls" for action in chosen) > 20

    def test_pending_and_foreign_actions_are_taken(self):
        past = history(12)
        asked = turn(past, 12)
        waiting = tuple(list(asked.space.actions(SFT))[:2])
        assert self.policy(Turn(past, asked.space, 12, 0, pending=waiting)) is not None
        assert self.policy(turn(past, 12, types=(DPO,))).action.type == "dpo"


def turn_of(past, models, seed):
    tried = {t.action.fingerprint for t in past[1:]}
    return Turn(History(tuple(past)), space(models, tried=tried, types=(SFT,)), len(past), seed)


class TestHybridWithAnLLMThatDraws(PolicyContract):
    @property
    def policy(self):
        return HybridPolicy(RandomLLM(0), SurrogatePolicy())

    def test_only_promising_actions_are_listed(self):
        ranking, _ = SurrogatePolicy().ranking(turn(history(12), 13))
        listed = shortlist(ranking)
        assert 1 <= len(listed) <= 5
        assert all(p.acquisition >= 0.5 * listed[0].acquisition for p in listed)


def test_a_tried_type_is_not_needed_to_be_known_to_replay_a_choice():
    """Two runs with one seed choose the same, whatever the policy."""
    for policy in (RandomPolicy, SurrogatePolicy, TPEPolicy):
        first, second = ([policy()(turn(history(n), n, seed=7)).action.fingerprint for n in range(8)] for _ in "ab")
        assert first == second
