"""What the user reads at a search's end is whole, however narrow the terminal and however many the tasks."""

import io
import logging

import pytest
from rich.console import Console

from lamdagent.evaluation.task import Score, Task
from lamdagent.loop.terminal import Terminal
from lamdagent.memory.trial import History, Trial
from lamdagent.objects.model import Model

NAMES = ("calls", "restraint", "instructions", "arithmetic", "commonsense")
TASKS = [Task(name, name, "acc,none", 1.0) for name in NAMES]
SCORES = {name: Score(0.125 + number / 10, 0.0625) for number, name in enumerate(NAMES)}
TRIAL = Trial(
    "r",
    "base",
    "finished",
    None,
    Model("a1b2c3d4" * 4, "", base="a1b2c3d4" * 4),
    SCORES,
    Score(0.512, 0.011),
    test_scores=SCORES,
    test_score=Score(0.498, 0.012),
)


@pytest.mark.parametrize("width", [110, 160, 240])
def test_no_figure_is_cut(width: int) -> None:
    told = io.StringIO()
    view = Terminal(Console(file=told, width=width))
    view.leaderboard([TRIAL], History((TRIAL,)), TASKS, TRIAL)
    view.close()
    shown = told.getvalue()
    table = [line for line in shown.splitlines() if line[:1] in "┏┃┡│└"]
    assert "…" not in shown and table and max(map(len, table)) <= width
    for figure in ("model-a1b2c3d4", "0.512 +- 0.011", "0.498 +- 0.012", "0.125 +- 0.062", "0.525 +- 0.062"):
        assert figure in shown
    assert all(name in shown for name in NAMES)


def test_warnings_are_said_though_hydra_leaves_the_root_logger_at_errors() -> None:
    root, written = logging.getLogger(), io.StringIO()
    logger, before = logging.getLogger("lamdagent.tracking.delivery.connection"), root.level
    root.setLevel(logging.ERROR)
    logger.disabled = True  # as a second search of a sweep finds it
    try:
        with Terminal(Console(file=written)).saying_warnings():
            logger.warning("The store cannot be used now")
        assert logger.disabled, "as before"
        logger.disabled = False
        logger.warning("too late")
    finally:
        logger.disabled = False
        root.setLevel(before)
    assert written.getvalue() == "The store cannot be used now\n"
