"""What the user sees while a search runs: one line per finished thing, and on a terminal a live line below them."""

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from lamdagent.evaluation.gain import difference
from lamdagent.evaluation.task import Score, Task
from lamdagent.loop.budget import Budget
from lamdagent.memory.lineage import format_score, lineage_string
from lamdagent.memory.trial import History, Trial
from lamdagent.progress import Progress as Step

LOG_WIDTH = 160
"""Columns of tables where the output is no terminal: a log has no edge."""


def standard_output() -> Console:
    """The console that everything is printed to."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=LOG_WIDTH)


@dataclass
class _Line:
    """One running job as it is shown."""

    what: str
    status: str
    task: TaskID | None
    """None where there is no live display."""
    phase: str = ""


class Terminal:
    """Live on a terminal, a line per running job; plain log lines where there is none.

    Text from runs is never read as markup.
    """

    def __init__(self, console: Console | None = None) -> None:
        """Write to `console`, standard output when none is given."""
        self.console = console or standard_output()
        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(24))
        more = (TextColumn("{task.fields[status]}", markup=False), TimeElapsedColumn())
        self._progress = Progress(*columns, *more, console=self.console, transient=True, auto_refresh=True)
        self._lines: dict[str, _Line] = {}
        if self.console.is_terminal:
            self._progress.start()

    def say_warnings(self) -> None:
        """Say what this package logs as a warning, too: Hydra has switched every other way out off."""
        logger = logging.getLogger("lamdagent")
        logger.handlers = [_Warnings(self)]
        logger.setLevel(logging.WARNING)

    def say(self, text: str, style: str = "") -> None:
        """One line."""
        self.console.print(Text(text, style=style), soft_wrap=True)

    def begin(self, what: str, best: Score | None, budget: Budget, eta: str = "", job: str = "") -> None:
        """The job of that id starts: what it does, what the best is so far, what is left."""
        self.end(job)
        status = f"best {best.value:.3f}" if best else "no score yet"
        status += f"  {budget.usd:.2f} USD" if budget.usd else ""
        status += f"  {eta}" if eta else ""
        task = None
        if self.console.is_terminal:
            task = self._progress.add_task(what[: max(30, self.console.width - 70)], total=None, status=status)
        else:
            self.say(f"> {what}  [{status}]")
        self._lines[job] = _Line(what, status, task)

    def step(self, step: Step, job: str = "") -> None:
        """A running job's progress."""
        line = self._lines.get(job)
        if line is None:
            return
        if line.task is not None:
            loss = next((f" loss {v:.3f}" for k, v in step.metrics.items() if "loss" in k), "")
            text = f"{line.status}  | {step.phase} {step.done}/{step.total}{loss}"
            self._progress.update(line.task, completed=step.done, total=step.total or None, status=text)
        elif step.phase != line.phase:
            whose = f"  {line.what}" if len(self._lines) > 1 else ""
            self.say(f"    {step.phase} ({step.total}){whose}", "dim")
        line.phase = step.phase

    def end(self, job: str = "") -> None:
        """The job has ended; nothing happens when it was not shown."""
        line = self._lines.pop(job, None)
        if line is not None and line.task is not None:
            self._progress.remove_task(line.task)

    def trial(self, trial: Trial, history: History, base: Score | None) -> None:
        """One finished or failed trial; its run's job has ended."""
        self.end(trial.run_id)
        what = (
            lineage_string(trial.model, history)
            if trial.model
            else trial.action.describe()
            if trial.action
            else trial.name
        )
        if trial.status == "failed" or trial.score is None:
            self.say(f"failed  {what}: {trial.status_reason or 'no usable score'}", "red")
            return
        gain = f" ({trial.score.value - base.value:+.3f})" if base and trial.kind == "action" else ""
        tasks = "  ".join(f"{name} {score.value:.3f}" for name, score in trial.scores.items())
        best = history.scored and history.scored[0].run_id == trial.run_id
        mark = "best" if best else "done"
        line = f"{mark}  {trial.score.value:.3f}{gain}  {tasks}  {trial.seconds:.0f} s  {what}"
        self.say(line, "green" if best else "")

    def table(self, trials: Sequence[Trial], history: History, tasks: Sequence[Task], base: Trial | None) -> None:
        """The pipelines with their scores, best first, test scores where they were taken; then what each one is."""
        table = _scores(trials, tasks, base)
        unlimited = self.console.options.update(max_width=sys.maxsize)
        fits = self.console.measure(table, options=unlimited).maximum <= self.console.width
        self.console.print(table if fits else _scores(trials, (), base))
        for place, trial in enumerate(trials, 1):
            self.say(f"{place:3d}  {lineage_string(trial.model, history) if trial.model else trial.name}")
            if trial.test_scores and not fits:
                tests = ", ".join(f"{name} {format_score(score)}" for name, score in trial.test_scores.items())
                self.say(f"     test: {tests}")

    def close(self) -> None:
        """Stop the live display."""
        self._progress.stop()


def _scores(trials: Sequence[Trial], tasks: Sequence[Task], base: Trial | None) -> Table:
    """A row for each; a column for the test score on each of `tasks`."""
    title = "Best first; +- is one standard error, [] a 95 % interval of the gain over the base (~ not item by item)"
    table = Table(title=title, title_justify="left")
    heads = ("", "model", "search", "gain", "test", "gain", *(f"{task.name} (test)" for task in tasks))
    for head in heads:
        table.add_column(head, justify="left" if head == "model" else "right", no_wrap=True)
    for place, trial in enumerate(trials, 1):
        row = [str(place), trial.model.name if trial.model else "-", format_score(trial.score)]
        row += [_gain(trial, base), format_score(trial.test_score), _test_gain(trial, base)]
        row += [format_score(trial.test_scores.get(task.name)) for task in tasks]
        table.add_row(*map(Text, row))
    return table


def _gain(trial: Trial, base: Trial | None) -> str:
    ours, theirs = trial.score, base.score if base else None
    return f"{ours.value - theirs.value:+.3f}" if ours and theirs and trial is not base else "-"


def _test_gain(trial: Trial, base: Trial | None) -> str:
    """With its 95 % confidence interval; `~`: not over the same items, so wider than it need be."""
    if base is None or trial is base:
        return "-"
    gain = difference(trial.test_gain, trial.test_score, base.test_score)
    return f"{gain}{'' if gain.pairing == 'paired' else ' ~'}" if gain else "-"


class _Warnings(logging.Handler):
    """Log records as lines."""

    def __init__(self, view: Terminal) -> None:
        super().__init__()
        self._view = view

    def emit(self, record: logging.LogRecord) -> None:
        self._view.say(record.getMessage(), "yellow")
