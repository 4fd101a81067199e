"""Questions to a store that may be away: answered, skipped in an outage, or waited for."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from mlflow import MlflowClient

from lamdagent.errors import UserError
from lamdagent.text import hide_passwords
from lamdagent.tracking import schema
from lamdagent.tracking.outage import CircuitBreaker, http_retries, is_outage
from lamdagent.tracking.patch import now_ms

T = TypeVar("T")

PROBE_S = 5
"""Seconds that a store which was away may take to answer."""
WAIT_S = 3600.0
"""Seconds that a question which nothing else can answer waits for the store."""
MOST_REFUSALS = 3
"""Consecutive failures of one question while the store answers others: then the fault is the question's."""
log = logging.getLogger(__name__)


class Connection:
    """The way to one experiment of a store, and whether it is open."""

    def __init__(self, client: MlflowClient, experiment_id: str, kept_in: Path) -> None:
        """`kept_in`: where writes wait in an outage, for the message about it."""
        self.client = client
        self.experiment_id = experiment_id
        self.breaker = CircuitBreaker()
        self._kept_in = kept_in

    def attempt(self, question: Callable[[], T]) -> T | None:
        """The answer, or None in an outage; then the store is not asked again before that is due."""
        if not self.breaker.closed:
            return None
        try:
            return question()
        except Exception as error:
            self.note(error)
            return None

    def ask(self, question: Callable[[], T]) -> T:
        """The answer, waited for.

        Raises:
            UserError: the store has been away for too long.
            Exception: what the question raises again and again while the store answers others.
        """
        until = time.monotonic() + WAIT_S
        refusals = 0
        while True:
            try:
                return question()
            except Exception as error:
                self.note(error)
                refusals += self._answers()
                if refusals >= MOST_REFUSALS:
                    raise
                if time.monotonic() > until:
                    raise UserError(f"The store has not answered for {WAIT_S / 60:.0f} minutes.") from error
            time.sleep(self.breaker.pause_s)

    def note(self, error: Exception) -> None:
        """Open the breaker for an outage, with one warning; raise `error` again if it is anything else."""
        if not is_outage(error):
            raise error
        if self.breaker.closed:
            log.warning("The store cannot be used now (%s). Results are kept in %s.", first_line(error), self._kept_in)
        self.breaker.record_failure()

    def takes_writes(self) -> bool:
        """Whether the smallest write succeeds; a question would not do, since a full disk answers questions."""
        try:
            with http_retries(0, PROBE_S):
                self.client.set_experiment_tag(self.experiment_id, schema.ANSWERED, str(now_ms()))
        except Exception as error:
            self.note(error)
            return False
        self.breaker.record_success()
        return True

    def _answers(self) -> bool:
        try:
            with http_retries(0, PROBE_S):
                self.client.get_experiment(self.experiment_id)
        except Exception as error:
            self.note(error)
            return False
        return True


def first_line(error: Exception) -> str:
    """The first line of an error's message, without passwords."""
    return hide_passwords(error).strip().partition("\n")[0][:200]
