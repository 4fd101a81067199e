"""Ctrl-C once ends the search after the action in flight; twice, or SIGTERM, at once. It can go on later."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupt:
    """What the user has asked for so far."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.asked = False
        """Ctrl-C was pressed: nothing new is to be started."""

    def check(self) -> None:
        """Between two pieces of work.

        Raises:
            KeyboardInterrupt: the user wants the search to end.
        """
        if self.asked:
            raise KeyboardInterrupt

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Handle the signals of this process; its handlers of before come back afterwards."""
        before = (
            (signal.SIGINT, signal.signal(signal.SIGINT, self._ask)),
            (signal.SIGTERM, signal.signal(signal.SIGTERM, self._end)),
        )
        try:
            yield
        finally:
            for number, handler in before:
                signal.signal(number, handler)

    def _ask(self, signum: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        print("\nlamdagent: ends after what is in flight; Ctrl-C again ends at once", file=sys.stderr, flush=True)

    def _end(self, signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt
