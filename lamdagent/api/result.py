"""Result of a search: its champion, its trials, and where everything is kept."""

import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lamdagent.api.trials import Trials
from lamdagent.memory.trial import Trial
from lamdagent.report import leaderboard

if TYPE_CHECKING:
    from lamdagent.champion.promotion import PromotionResult

WIDTH = 110
"""Columns of the result as text."""


@dataclass(frozen=True, repr=False)
class Result:
    """A search that has finished. In a notebook it shows its leaderboard."""

    search_run_id: str
    """MLflow run of the search, parent of all others."""
    tracking_uri: str = field(repr=False)
    """Address of the MLflow store, absolute; a password that it was given with is in it."""
    experiment: str
    """MLflow experiment of the search."""
    experiment_id: str
    champion: Trial | None
    """The best finalist whose gain on the search split is beyond the noise, else the best base model; None where no
    pipeline of a replay could be tested."""
    promotions: "tuple[PromotionResult, ...]"
    """The state of each finalist and the reason for it, best first."""
    history: Trials
    """Everything that the experiment holds now, other searches' trials included."""
    registered: str | None
    """Messages for people on where the champion is registered; None when it is a base model."""
    reason: str
    """Why the search ended."""

    @property
    def address(self) -> str:
        """The store's address without its password, to be shown."""
        from lamdagent.text import hide_passwords

        return hide_passwords(self.tracking_uri)

    @property
    def page(self) -> str:
        """The path in MLflow's UI of the leaderboard, from `#` on."""
        from lamdagent.tracking.leaderboard import leaderboard_path

        return leaderboard_path(self.experiment_id, self.search_run_id)

    def report_html(self) -> str:
        """The report of the search as one self-contained HTML page, read from the store.

        Raises:
            UserError: the store has none, or does not answer.
        """
        from lamdagent.tracking.reading import open_store_of, read_text
        from lamdagent.tracking.schema import REPORT

        return read_text(open_store_of(self.tracking_uri, self.search_run_id), self.search_run_id, REPORT)

    def __repr__(self) -> str:
        """The summary and the leaderboard, as on the command line."""
        from rich.console import Console

        from lamdagent.loop.terminal import Terminal

        written = io.StringIO()
        view = Terminal(Console(file=written, width=WIDTH, highlight=False, force_jupyter=False, force_terminal=False))
        view.say(self._summary())
        best = self.history.best[: leaderboard.SHOWN]
        view.leaderboard(best, self.history.history, self.history.tasks, self.history.base)
        return written.getvalue().rstrip()

    def _repr_html_(self) -> str:
        """The summary and the leaderboard."""
        from lamdagent.api.html import leaderboard_html, paragraph

        return paragraph(self._summary()) + leaderboard_html(self.history)

    def _summary(self) -> str:
        model = self.champion.model.name if self.champion and self.champion.model else "none"
        base = ", a base model: no gain is beyond the noise" if self.champion and self.champion.kind == "base" else ""
        where = f"search run {self.search_run_id}, experiment {self.experiment}"
        return f"Champion: {model}{base} ({where}). The search ended: {self.reason}."
