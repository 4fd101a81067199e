"""The output of a search: one line per finished thing, and on a terminal a live line per running job."""

import logging
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain as chain_of
from itertools import repeat

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from lamdagent.evaluation.task import Score, Task
from lamdagent.execution.progress import Progress as Step
from lamdagent.memory.lineage import lineage_string
from lamdagent.memory.trial import History, Trial
from lamdagent.report import leaderboard

LOG_WIDTH = 160
"""Columns of tables where the output is no terminal: a log has no edge."""


def standard_output(*, silent: bool = False) -> Console:
    """The console that everything is printed to; in a notebook plain lines, so that one cell has one output."""
    console = Console(highlight=False, quiet=silent)
    if console.is_terminal:
        return console
    return Console(highlight=False, quiet=silent, width=LOG_WIDTH, force_jupyter=False, force_terminal=False)


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

    @contextmanager
    def saying_warnings(self) -> Iterator[None]:
        """Also say what this package logs as a warning: on the command line Hydra has switched off every other way.

        Hydra leaves the root logger at ERROR there and, before each search of a sweep, disables every logger that it
        finds: while it lasts, the package's own level is set and its loggers are enabled. The innermost one says it.
        """
        logger, handler = logging.getLogger("lamdagent"), _Warnings(self)
        level, disabled = logger.level, [one for one in _own_loggers() if one.disabled]
        before, logger.handlers = logger.handlers, [handler]
        logger.setLevel(logging.WARNING)
        for one in disabled:
            one.disabled = False
        try:
            yield
        finally:
            for one in disabled:
                one.disabled = True
            logger.setLevel(level)
            logger.handlers = before

    def say(self, text: str, style: str = "") -> None:
        """One line."""
        self.console.print(Text(text, style=style), soft_wrap=True)

    def begin(self, what: str, best: Score | None, usd: float, eta: str | None = None, job: str = "") -> None:
        """The job of that id starts: what it does, what the best is so far, what is left."""
        self.end(job)
        status = f"best {best.value:.3f}" if best else "no score yet"
        status += f"  {usd:.2f} USD" if usd else ""
        status += f"  {eta}" if eta else ""
        task = None
        if self.console.is_terminal:
            self._progress.start()  # nothing happens where it has started before
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

    def table(
        self,
        title: str,
        heads: Sequence[str],
        rows: Iterable[Sequence[str]],
        *,
        right: Collection[str] = (),
        styles: Iterable[str] = (),
    ) -> None:
        """Print a table whose cells fold where they are too long.

        Args:
            title: Stands above it.
            heads: Names of the columns.
            rows: One text per column.
            right: The columns whose texts end at the same place, such as figures.
            styles: Of the rows, in their order; none for those beyond the last.
        """
        self.console.print(_table(title, heads, rows, right, styles))

    def rule(self, title: str) -> None:
        """Print a line across the page, with a title at its beginning."""
        self.console.rule(Text(title), align="left")

    def leaderboard(self, trials: Sequence[Trial], history: History, tasks: Sequence[Task], base: Trial | None) -> None:
        """Print the scores of pipelines, best first, then a line that says what each one is.

        Test scores have columns of their own where the page is wide enough, else they follow the pipeline's line.
        """
        wide, narrow = _scores(trials, tasks, base), _scores(trials, (), base)
        unlimited = self.console.options.update(max_width=sys.maxsize)
        fits = self.console.measure(wide, options=unlimited).maximum <= self.console.width
        self.console.print(wide if fits else narrow)
        for place, trial in enumerate(trials, 1):
            self.say(f"{place:3d}  {lineage_string(trial.model, history) if trial.model else trial.name}")
            if trial.test_scores and not fits:
                self.say(f"     test: {leaderboard.tested(trial)}")

    def close(self) -> None:
        """Stop the live display, where one has been shown."""
        if self._progress.live.is_started:
            self._progress.stop()


def _table(
    title: str, heads: Sequence[str], rows: Iterable[Sequence[str]], right: Collection[str], styles: Iterable[str]
) -> Table:
    table = Table(title=title, title_justify="left")
    for head in heads:
        table.add_column(head, overflow="fold", justify="right" if head in right else "left")
    for row, style in zip(rows, chain_of(styles, repeat("")), strict=False):
        table.add_row(*map(Text, row), style=style)
    return table


def _scores(trials: Sequence[Trial], tasks: Sequence[Task], base: Trial | None) -> Table:
    """A row for each trial; nothing in it folds."""
    heads = leaderboard.heads(tasks)
    table = _table(leaderboard.TITLE, heads, leaderboard.table(trials, tasks, base), {*heads} - {"model"}, ())
    for column in table.columns:
        column.no_wrap = True
        column.overflow = "ellipsis"
    return table


def _own_loggers() -> list[logging.Logger]:
    known = logging.Logger.manager.loggerDict.items()
    return [one for name, one in known if name.startswith("lamdagent") and isinstance(one, logging.Logger)]


class _Warnings(logging.Handler):
    """Log records as lines."""

    def __init__(self, view: Terminal) -> None:
        super().__init__(logging.WARNING)
        self._view = view

    def emit(self, record: logging.LogRecord) -> None:
        self._view.say(record.getMessage(), "yellow")
