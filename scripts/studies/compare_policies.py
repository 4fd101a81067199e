#!/usr/bin/env python
"""Replay policies on a recorded landscape over hundreds of seeds: which finds good pipelines in fewer trials?

    python scripts/studies/compare_policies.py                  # the policies without an LLM, and controls
    python scripts/studies/compare_policies.py --ablations      # without merging, at depth 1 and 2
    python scripts/studies/compare_policies.py --minutes 0 30 240   # against the clock, actions of so many minutes
    python scripts/studies/compare_policies.py --policies hybrid llm --llm ollama_chat/qwen3:4b --seeds 10

No model is trained: each trial costs what the policy takes to think. `hybrid:random` is the hybrid with an LLM that
answers at random, `hybrid:knows` with one that knows the table, `llm:random` the LLM policy with random answers. The
last line is one JSON object with the figures.
"""

import argparse
import json
import math
import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1"}

import clock
import numpy as np

from lamdagent.landscape.controls import KnowingLLM, RandomLLM
from lamdagent.landscape.simulate import replay
from lamdagent.landscape.table import Landscape, load
from lamdagent.llm.client import Client, ClientSettings
from lamdagent.llm.templates import LLMSettings
from lamdagent.selection.hybrid import HybridPolicy
from lamdagent.selection.llm import LLMPolicy
from lamdagent.selection.policy import Policy
from lamdagent.selection.random_policy import RandomPolicy
from lamdagent.selection.surrogate import SurrogatePolicy
from lamdagent.selection.tpe import TPEPolicy

DEFAULT = ["random", "tpe", "surrogate", "hybrid:random", "hybrid:knows", "llm:random"]
MINUTES = "tables against the clock: actions of M minutes, 0 for what the recorded ones took (default: 0 30)"
NEED_LLM = ("hybrid", "llm", "llm:plain")


@dataclass(frozen=True)
class Case:
    """One curve of the comparison."""

    label: str
    policy: str
    without: tuple[str, ...] = ()
    depth: int | None = None


@dataclass(frozen=True)
class Setting:
    """What every replay of a run shares."""

    path: Path | None
    trials: int
    goal: float
    llm: str
    api_base: str
    max_tokens: int


def make(name: str, seed: int, landscape: Landscape, setting: Setting) -> Policy:
    """A fresh policy; `llm:plain` is the LLM without exploration and debias directives."""
    surrogate = SurrogatePolicy()
    client = (
        Client(ClientSettings(setting.llm, setting.api_base, max_tokens=setting.max_tokens))
        if name in NEED_LLM
        else None
    )
    directives = LLMSettings(goal="a high score on every task")
    makers: dict[str, Callable[[], Policy]] = {
        "random": RandomPolicy,
        "tpe": TPEPolicy,
        "surrogate": lambda: surrogate,
        "hybrid:random": lambda: HybridPolicy(RandomLLM(seed), surrogate),
        "hybrid:knows": lambda: HybridPolicy(KnowingLLM(seed, landscape), surrogate),
        "llm:random": lambda: LLMPolicy(RandomLLM(seed), RandomPolicy()),
        "hybrid": lambda: HybridPolicy(client, surrogate, directives),
        "llm": lambda: LLMPolicy(client, RandomPolicy(), directives),
        "llm:plain": lambda: LLMPolicy(client, RandomPolicy(), replace(directives, exploration=False, debias=False)),
    }
    return makers[name]()


LANDSCAPES: dict[tuple[Any, ...], list[Landscape]] = {}


def one(case: Case, seed: int, setting: Setting) -> dict[str, Any]:
    """One search on paper; seeds take the recorded training seeds in turn, types and actions in another order each."""
    key = (setting.path, case.without, case.depth)
    if key not in LANDSCAPES:
        LANDSCAPES[key] = [x.without(case.without, case.depth) for x in load(setting.path)[1]]
    every = LANDSCAPES[key]
    landscape = every[seed % len(every)].shuffled(seed)
    assert landscape.base.score
    policy = make(case.policy, seed, landscape, setting)
    found = replay(policy, landscape, setting.trials, seed, remember=case.policy in NEED_LLM)
    start = landscape.base.score.value
    client = getattr(policy, "client", None)
    return {
        "curve": [start, *found.best(start)],
        "seconds": found.seconds,
        "thinking": found.thinking,
        "calls": client.usage.calls if client and case.policy not in NEED_LLM else 0,  # theirs take real time
        "fallbacks": found.fallbacks,
        "repeats": 1 - len(set(found.choices)) / max(1, len(found.choices)),
        "thinking_ms": 1000 * float(np.mean(found.thinking or [0.0])),
    }


def reached(curve: Sequence[float], goal: float) -> float:
    """The trial that reaches `goal`; infinite when none does."""
    return next((float(n) for n, value in enumerate(curve) if value >= goal), math.inf)


def band(values: Sequence[float], figure: Callable[[Any], float]) -> tuple[float, float, float]:
    """A figure of `values` with its 95 % bootstrap interval."""
    rng = np.random.default_rng(0)
    array = np.asarray(values, dtype=float)
    drawn = [figure(array[rng.integers(0, len(array), len(array))]) for _ in range(1000)]
    return figure(array), *(float(x) for x in np.quantile(drawn, [0.025, 0.975], method="nearest"))


def summarise(
    runs: Sequence[dict[str, Any]], goals: Sequence[float], bests: Sequence[float], trials: int
) -> dict[str, Any]:
    """The figures of one case; `goals` and `bests` are those of each run's full landscape."""
    curves = [run["curve"] + [run["curve"][-1]] * (trials + 1 - len(run["curve"])) for run in runs]
    hits = [reached(curve, goal) for curve, goal in zip(curves, goals, strict=True)]
    regrets = [best - float(np.mean(curve[1:])) for curve, best in zip(curves, bests, strict=True)]
    median = band([min(hit, trials + 1.0) for hit in hits], lambda x: float(np.median(x)))
    return {
        "trials_to_goal": median,
        "mean_trials_to_goal": band([min(hit, trials + 1.0) for hit in hits], lambda x: float(np.mean(x))),
        "reached": band([float(hit <= trials) for hit in hits], lambda x: float(np.mean(x))),
        "mean_regret": band(regrets, lambda x: float(np.mean(x))),
        "best_after": {
            n: band([curve[min(n, trials)] for curve in curves], lambda x: float(np.mean(x)))
            for n in (10, 25, 50, trials)
        },
        "thinking_ms": float(np.median([run["thinking_ms"] for run in runs])),
        "fallbacks": float(np.mean([run["fallbacks"] for run in runs])),
        "curves": curves,
    }


def plot(figures: dict[str, dict[str, Any]], best: float, goal: float, path: Path) -> None:
    """Best so far against trials, with the band of the mean."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots(figsize=(8, 4.5), dpi=110)
    for label, found in figures.items():
        curves = np.asarray(found["curves"])
        mean, error = curves.mean(0), 1.96 * curves.std(0) / math.sqrt(len(curves))
        (line,) = ax.plot(mean, label=label, linewidth=1.8, linestyle="--" if ":" in label else "-")
        ax.fill_between(range(len(mean)), mean - error, mean + error, color=line.get_color(), alpha=0.2, linewidth=0)
    ax.axhline(best, color="grey", linewidth=0.8)
    ax.axhline(best * goal, color="grey", linewidth=0.8, linestyle=":")
    ax.text(0, best, " best of the table", va="bottom", fontsize=8, color="grey")
    ax.text(0, best * goal, f" {goal:.0%} of it", va="bottom", fontsize=8, color="grey")
    ax.set(xlabel="trials", ylabel="best score so far, mean over seeds", title="")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, loc="lower right")
    fig.tight_layout()
    fig.savefig(path)


def show(figures: dict[str, dict[str, Any]], trials: int, goal: float) -> None:
    """The table, as Markdown."""
    heads = ["policy", f"trials to {goal:.0%} of the best, median", f"mean (never = {trials + 1})"]
    heads += [f"reached it within {trials}", "mean regret"]
    print(f"| {' | '.join([*heads, 'best after 25', 'ms a turn'])} |")
    print("|---|---|---|---|---|---|---|")
    for label, found in figures.items():
        middle, low, high = found["trials_to_goal"]
        cells = [f"{_trials(middle, trials)} ({_trials(low, trials)} - {_trials(high, trials)})"]
        cells += ["{:.1f} ({:.1f} - {:.1f})".format(*found["mean_trials_to_goal"])]
        cells += ["{:.0%} ({:.0%} - {:.0%})".format(*found["reached"])]
        cells += ["{:.3f} ({:.3f} - {:.3f})".format(*found[key]) for key in ("mean_regret",)]
        cells += ["{:.3f} ({:.3f} - {:.3f})".format(*found["best_after"][25]), f"{found['thinking_ms']:.0f}"]
        print(f"| {label} | {' | '.join(cells)} |")


def _trials(value: float, trials: int) -> str:
    return f"> {trials}" if value > trials else f"{value:g}"


def _ablations(policies: Sequence[str], landscape: Landscape) -> list[Case]:
    merges = tuple(t.name for t in landscape.types if any(s.kind == "models" for s in t.slots))
    cases = []
    for name in policies:
        cases += [Case(f"{name}, no merging", name, merges), Case(f"{name}, depth 2", name, (), 2)]
        cases += [Case(f"{name}, depth 1", name, (), 1)]
    return cases


def main() -> None:
    """Parse, replay, print, plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--landscape", type=Path, help="table of scripts/studies/record_landscape.py (default: the shipped one)"
    )
    parser.add_argument("--policies", nargs="+", default=DEFAULT, choices=[*DEFAULT, *NEED_LLM])
    parser.add_argument("--ablations", action="store_true", help="each policy without merging, and at depth 1 and 2")
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--goal", type=float, default=0.95, help="share of the best score (default: %(default)s)")
    parser.add_argument("--llm", default="", help="an LLM in litellm's form, for the policies hybrid, llm, llm:plain")
    parser.add_argument("--api-base", default="")
    parser.add_argument("--max-tokens", type=int, default=2000, help="of a reply of the LLM (default: %(default)s)")
    parser.add_argument("--plot", type=Path, help="PNG to write")
    parser.add_argument("--minutes", type=float, nargs="+", default=[0, 30], metavar="M", help=MINUTES)
    parser.add_argument("--reply", type=float, default=5.0, help="seconds that an LLM of the table takes to answer")
    parser.add_argument("--plot-minutes", type=Path, help="PNG to write: against the clock, actions as recorded")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    if not given.llm and set(given.policies) & set(NEED_LLM):
        parser.error("hybrid, llm and llm:plain ask an LLM: name one with --llm")
    _, landscapes = load(given.landscape)
    setting = Setting(given.landscape, given.trials, given.goal, given.llm, given.api_base, given.max_tokens)
    cases = [Case(name, name) for name in given.policies]
    cases += _ablations(given.policies, landscapes[0]) if given.ablations else []
    bests = [landscapes[seed % len(landscapes)].best for seed in range(given.seeds)]
    figures, done = {}, {}
    with ProcessPoolExecutor(given.workers, multiprocessing.get_context("spawn")) as pool:
        waiting = {c: [pool.submit(one, c, seed, setting) for seed in range(given.seeds)] for c in cases}
        for case, futures in waiting.items():
            runs = [future.result() for future in futures]
            done[case.label] = runs
            figures[case.label] = summarise(runs, [given.goal * b for b in bests], bests, given.trials)
            print(f"{case.label}: done", flush=True)
    show(figures, given.trials, given.goal)
    clocks = [clock.Clock(minutes, given.reply) for minutes in given.minutes]
    timed = clock.tables(clocks, done, [given.goal * b for b in bests], given.goal, given.plot_minutes)
    if given.plot:
        plot({k: v for k, v in figures.items() if "," not in k}, float(np.mean(bests)), given.goal, given.plot)
    for found in figures.values():
        del found["curves"]
        median, low, high = found["trials_to_goal"]
        found |= {f"trials_to_{round(100 * given.goal)}": median, "low": low, "high": high}
    sizes = [len(x.trials) for x in landscapes]
    print(
        json.dumps(
            {
                "seeds": given.seeds,
                "trials": given.trials,
                "landscapes": sizes,
                "best": bests[: len(sizes)],
                "policies": figures,
                "minutes": timed,
            }
        )
    )


if __name__ == "__main__":
    main()
