"""Results as HTML for a notebook. Every text may be anybody's, so every text is escaped."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

from lamdagent.memory.lineage import lineage_string
from lamdagent.report import leaderboard

if TYPE_CHECKING:
    from lamdagent.api.trials import Trials


def leaderboard_html(trials: "Trials") -> str:
    """The best trials, each with what its model is made by."""
    best = trials.best[: leaderboard.SHOWN]
    rows = leaderboard.table(best, trials.tasks, trials.base)
    pipelines = [lineage_string(trial.model, trials.history) if trial.model else trial.name for trial in best]
    heads = [*leaderboard.heads(trials.tasks), "pipeline"]
    return table(heads, [[*row, line] for row, line in zip(rows, pipelines, strict=True)], leaderboard.TITLE)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> str:
    """A table of texts; the caption stands above it."""
    top = f'<caption style="text-align:left">{escape(caption)}</caption>' if caption else ""
    head = "".join(map(_head, heads))
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f"<table>{top}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def paragraph(text: str) -> str:
    """One paragraph of text."""
    return f"<p>{escape(text)}</p>"


def _head(text: str) -> str:
    return f'<th style="text-align:left">{escape(text)}</th>'


def _cell(text: str) -> str:
    return f'<td style="text-align:left">{escape(text)}</td>'
