"""Between this process and its store: writes arrive now or later but once and in order, questions survive an outage."""

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from mlflow import MlflowClient

from lamdagent.errors import UserError
from lamdagent.tracking import schema
from lamdagent.tracking.connect import hide_password
from lamdagent.tracking.delivery.apply import deliver, find_provisional
from lamdagent.tracking.delivery.outbox import Outbox
from lamdagent.tracking.delivery.patch import PROVISIONAL, Change
from lamdagent.tracking.outage import Line, is_outage, patience
from lamdagent.tracking.run_info import Met

T = TypeVar("T")

PROBE_S = 5
"""How long a store that was away may take to answer."""
WAIT_S = 3600.0
"""How long a question that nothing else can answer waits for the store."""
STUBBORN = 3
"""So often may a question fail in a row while the store takes other requests; then the fault is the question's."""
log = logging.getLogger(__name__)


class Courier:
    """Takes changes to one experiment and asks it questions.

    While anything waits, all later changes wait behind it. A run opened in an outage has a provisional id; `real` tells
    the store's as soon as there is one.
    """

    def __init__(self, client: MlflowClient, uri: str, experiment: str, experiment_id: str) -> None:
        """Nothing waits yet; see `take_over`."""
        self._client = client
        self._experiment_id = experiment_id
        self._line = Line()
        """To the store."""
        self._queue = Line()
        """Of what waits: it may be stuck though the store answers."""
        self._own = Outbox(uri, experiment)
        self._boxes = [self._own]
        self._real: dict[str, str] = {}
        self._proven = False
        self.met = Met()
        """Runs that need not be asked for again."""
        self.folder = self._own.folder
        """Where changes wait."""
        self.delivered: list[Change] = []
        """What the store has got, in its own ids, since the reader of its runs has emptied this list."""

    @property
    def waiting(self) -> list[Change]:
        """What waits for the store, in order, in the store's ids as far as they are known."""
        return [change.renamed(self.real) for box in self._boxes for change in box.changes]

    @property
    def idle(self) -> bool:
        """Whether nothing waits and the store answers, as far as is known."""
        return self._line.open and not self._stuck

    @property
    def _stuck(self) -> bool:
        return any(box.changes for box in self._boxes)

    def real(self, run_id: str) -> str:
        """The run's id in the store, as far as it has one."""
        return self._real.get(run_id, run_id)

    # Writing -----------------------------------------------------------------------------------------------------

    def write(self, change: Change) -> None:
        """Deliver now, or keep for later. What the store refuses for good is set aside, unless it opens a run.

        Raises:
            UserError: the first run cannot be opened, so nothing has begun; or this disk is full too.
            MlflowException: the store refuses for good to open this run.
        """
        change = change.renamed(self.real)
        begins = change.new is not None and not self._proven
        if not (self.idle or begins):
            self._own.add(change)
            return
        try:
            self._send(change, again=False)
        except Exception as error:
            if not is_outage(error):
                if change.new is not None or isinstance(error, FileNotFoundError):
                    raise
                self._refuse(self._own, change, error)
            elif begins:
                raise UserError(
                    f"The store answers questions but takes no writes ({_first_line(error)}). Check that this user may "
                    "write there and that its disk has room, then start the same command again."
                ) from error
            else:
                self._note(error)
                self._own.add(change)

    def deliver_waiting(self) -> None:
        """Write what waits, if the store takes it; returns at once while it need not be tried again."""
        if self.idle or not (self._line.due and self._queue.due):
            return
        try:
            self._probe()
        except Exception as error:
            self._note(error)
            return
        self._line.answered()
        before = sum(len(box.changes) for box in self._boxes)
        try:
            for box in self._boxes:
                box.deliver(partial(self._send_kept, box))
        except Exception as error:
            if not is_outage(error):
                raise
            self._queue.failed()
            return
        self._queue.answered()
        if before:
            log.warning("The store answers again: %d writes that waited are done.", before)

    def take_over(self) -> int:
        """Make what dead processes of this machine could not write ours, and try at once; how much that was."""
        left = self._own.left_by_the_dead()
        self._boxes[:0] = left
        found = sum(len(box.changes) for box in left)
        self.deliver_waiting()
        return found

    def settle(self, patience_s: float) -> bool:
        """Wait until nothing waits any more, so long at most; whether it has come to that. What is left stays."""
        until = time.monotonic() + patience_s
        self.deliver_waiting()
        while self._stuck and time.monotonic() < until:
            time.sleep(min(1.0, max(self._line.pause_s, self._queue.pause_s)))
            self.deliver_waiting()
        for box in self._boxes:
            if not box.changes:
                box.close()
        self._boxes = [box for box in self._boxes if box.changes or box is self._own]
        return not self._stuck

    # Asking ------------------------------------------------------------------------------------------------------

    def attempt(self, question: Callable[[], T]) -> T | None:
        """The answer, or None in an outage; then the store is not asked again before it is due."""
        if not self._line.open:
            return None
        try:
            return question()
        except Exception as error:
            self._note(error)
            return None

    def ask(self, question: Callable[[], T]) -> T:
        """The answer, waited for.

        Raises:
            UserError: the store has been away for too long.
            Exception: what the question raises again and again while the store answers others.
        """
        until = time.monotonic() + WAIT_S
        stubborn = 0
        while True:
            try:
                return question()
            except Exception as error:
                self._note(error)
                stubborn += self._answers()
                if stubborn >= STUBBORN:
                    raise
                if time.monotonic() > until:
                    raise UserError(f"The store has not answered for {WAIT_S / 60:.0f} minutes.") from error
            time.sleep(self._line.pause_s)

    # Inside ------------------------------------------------------------------------------------------------------

    def _send(self, change: Change, again: bool) -> None:
        run_id = deliver(self._client, self._experiment_id, change, again=again, met=self.met)
        if run_id != change.run_id:
            self._real[change.run_id] = run_id
        self._proven = True
        self.delivered.append(change.renamed(self.real))

    def _send_kept(self, box: Outbox, change: Change) -> None:
        """Deliver what was kept; the ids of runs that another process opened are asked for."""
        own = change.run_id if change.new else ""
        ready = change.renamed(lambda known: known if known == own else self._found(known))
        try:
            self._send(ready, again=True)
        except Exception as error:
            if is_outage(error) and not box.hopeless(_first_line(error)):
                raise
            self._refuse(box, ready, error)

    def _found(self, provisional: str) -> str:
        if provisional not in self._real:
            found = find_provisional(self._client, self._experiment_id, provisional)
            if found is None:
                return provisional
            self._real[provisional] = found
        return self._real[provisional]

    def _refuse(self, box: Outbox, change: Change, error: Exception) -> None:
        """Set aside what the store will not take; a run that it should have ended ends as failed."""
        folder = box.refuse(change, f"{type(error).__name__}: {error}")
        log.warning("The store refuses a write for good (%s); it is kept in %s.", _first_line(error), folder)
        if change.status and change.status != "RUNNING" and not PROVISIONAL.fullmatch(change.run_id):
            reason = f"The store refused what should have been written ({_first_line(error)}); it is kept in {folder}."
            tags = {schema.STATUS_REASON: reason, schema.FAILURE_KIND: "refused"}
            try:
                self._send(Change(change.run_id, change.at_ms, tags=tags, status="FAILED"), again=True)
            except Exception as second:
                if is_outage(second):
                    raise
                log.warning("The run %s could not be closed either (%s).", change.run_id, _first_line(second))

    def _note(self, error: Exception) -> None:
        """Remember a fault of the store, and say so once; anything else is not ours to swallow."""
        if not is_outage(error):
            raise error
        if self._line.open:
            log.warning("The store cannot be used now (%s). Results are kept in %s.", _first_line(error), self.folder)
        self._line.failed()

    def _probe(self) -> None:
        """The smallest write: a full disk answers questions."""
        with patience(0, PROBE_S):
            self._client.set_experiment_tag(self._experiment_id, schema.ANSWERED, str(time.time_ns() // 1_000_000))

    def _answers(self) -> bool:
        try:
            with patience(0, PROBE_S):
                self._client.get_experiment(self._experiment_id)
        except Exception as error:
            self._note(error)
            return False
        return True


def _first_line(error: Exception) -> str:
    return hide_password(str(error)).strip().partition("\n")[0][:200]
