"""Replays of compare_policies.py against the clock: what trials took when recorded, and what choosing takes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

GRID = 200
"""Points of a curve over time."""


@dataclass(frozen=True)
class Clock:
    """How long things take; the recorded actions are those of a pico model and take seconds."""

    action_minutes: float = 0.0
    """What an action of median length is taken to last, the others in proportion; 0: as recorded."""
    reply_seconds: float = 0.0
    """What one call of an LLM is taken to last: those of the table answer at once."""

    def choosing_s(self, run: Mapping[str, Any]) -> list[float]:
        """What each choice of `run` took, calls of an LLM spread evenly."""
        waiting = self.reply_seconds * run["calls"] / max(1, len(run["thinking"]))
        return [thinking + waiting for thinking in run["thinking"]]

    def minutes(self, run: Mapping[str, Any], median_s: float) -> list[float]:
        """When each trial of `run` ends, from 0 before the first one; `median_s`: of an action as recorded."""
        scale = 60 * self.action_minutes / median_s if self.action_minutes else 1.0
        spent = [scale * s + chosen for s, chosen in zip(run["seconds"], self.choosing_s(run), strict=True)]
        return [float(value) / 60 for value in np.cumsum([0.0, *spent])]

    def __str__(self) -> str:
        """For the head of a table."""
        actions = f"actions of {self.action_minutes:g} minutes" if self.action_minutes else "actions as recorded"
        return f"{actions}, {self.reply_seconds:g} s for a reply of an LLM"


def reached_at(curve: Sequence[float], minutes: Sequence[float], goal: float) -> float:
    """Minutes until `curve`, the best score after each trial, is at `goal`; infinite where it never is."""
    return next((at for value, at in zip(curve, minutes, strict=False) if value >= goal), math.inf)


def tables(
    clocks: Sequence[Clock],
    cases: Mapping[str, Sequence[Mapping[str, Any]]],
    goals: Sequence[float],
    goal: float,
    picture: Path | None,
) -> dict[str, dict[str, Any]]:
    """Print a table for each clock, draw the first; the figures, without the curves."""
    found = {str(clock): against(clock, cases, goals) for clock in clocks}
    for clock in clocks:
        show(clock, found[str(clock)], goal)
    if picture and clocks:
        plot({label: case for label, case in found[str(clocks[0])].items() if "," not in label}, picture)
    told = ("minutes_to_goal", "choosing", "mean_best")
    return {
        name: {label: {key: case[key] for key in told} for label, case in table.items()}
        for name, table in found.items()
    }


def against(
    clock: Clock, cases: Mapping[str, Sequence[Mapping[str, Any]]], goals: Sequence[float]
) -> dict[str, dict[str, Any]]:
    """Case -> quartiles of the minutes to each run's goal, share of the time that choosing takes, and mean curve.

    The curves end where the first run of any case does, so that each point is a mean over all runs.
    """
    median_s = float(np.median([s for runs in cases.values() for run in runs for s in run["seconds"]]))
    times = {label: [clock.minutes(run, median_s) for run in runs] for label, runs in cases.items()}
    grid = np.linspace(0, min(minutes[-1] for found in times.values() for minutes in found), GRID)
    figures = {}
    for label, runs in cases.items():
        total_s = 60 * sum(minutes[-1] for minutes in times[label])
        choosing_s = sum(sum(clock.choosing_s(run)) for run in runs)
        hits = [reached_at(r["curve"], m, goal) for r, m, goal in zip(runs, times[label], goals, strict=True)]
        curves = [
            np.asarray(run["curve"])[np.searchsorted(minutes, grid, side="right") - 1]
            for run, minutes in zip(runs, times[label], strict=True)
        ]
        figures[label] = {
            "minutes_to_goal": [float(x) for x in np.quantile(hits, [0.25, 0.5, 0.75], method="nearest")],
            "choosing": choosing_s / total_s if total_s else 0.0,
            "mean_best": float(np.mean(curves)),
            "curve": np.mean(curves, axis=0).tolist(),
            "error": (1.96 * np.std(curves, axis=0) / math.sqrt(len(curves))).tolist(),
            "minutes": grid.tolist(),
        }
    return figures


def show(clock: Clock, figures: Mapping[str, Mapping[str, Any]], goal: float) -> None:
    """The table, as Markdown."""
    first = next(iter(figures.values()))["minutes_to_goal"][1]
    print(f"\n{clock}; best so far: mean over the first {next(iter(figures.values()))['minutes'][-1]:.3g} minutes")
    print(
        f"| policy | minutes to {goal:.0%} of the best, median (quartiles) | / the first row | best so far | choosing |"
    )
    print("|---|---|---|---|---|")
    for label, found in figures.items():
        low, middle, high = found["minutes_to_goal"]
        ratio = middle / first if math.isfinite(middle) and 0 < first < math.inf else math.nan
        cells = [f"{_minutes(middle)} ({_minutes(low)} - {_minutes(high)})", f"{ratio:.2f}"]
        print(f"| {label} | {' | '.join(cells)} | {found['mean_best']:.3f} | {found['choosing']:.1%} |")


def _minutes(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else "never"


def plot(figures: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Best so far against minutes, with the band of the mean."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots(figsize=(8, 4.5), dpi=110)
    for label, found in figures.items():
        minutes, mean, error = (np.asarray(found[key]) for key in ("minutes", "curve", "error"))
        (line,) = ax.plot(minutes, mean, label=label, linewidth=1.8, linestyle="--" if ":" in label else "-")
        ax.fill_between(minutes, mean - error, mean + error, color=line.get_color(), alpha=0.2, linewidth=0)
    ax.set(xlabel="minutes", ylabel="best score so far, mean over seeds")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))  # beside the curves, which may be anywhere
    fig.savefig(path, bbox_inches="tight")
