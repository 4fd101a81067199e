"""Ctrl-C: once, and the search ends after the action in flight; twice, or SIGTERM, and it ends at once."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

LINE = "\nlamdagent: the search ends after what runs now; Ctrl-C once more ends it at once\n"


class Interruption:
    """What the user's signals ask for. KeyboardInterrupt is raised in the main thread when they cannot wait."""

    def __init__(self) -> None:
        """Nothing is asked for, and no signal is handled before `listen`."""
        self.requested = False
        """The search is to end after what runs now."""
        self._writing = False

    def listen(self) -> None:
        """Handle SIGINT and SIGTERM from now on. Only in the main thread."""
        signal.signal(signal.SIGINT, self._handle)
        signal.signal(signal.SIGTERM, self._handle)

    def check(self) -> None:
        """Go on, or end the search here, where nothing is in flight.

        Raises:
            KeyboardInterrupt: the user has asked for the end.
        """
        if self.requested:
            raise KeyboardInterrupt

    @contextmanager
    def ignored(self) -> Iterator[None]:
        """What has begun to end is not cut off by a further signal: the store would be left half-written."""
        self._writing = True
        try:
            yield
        finally:
            self._writing = False

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self._writing:
            return
        if self.requested or signum == signal.SIGTERM:
            raise KeyboardInterrupt
        self.requested = True
        os.write(2, LINE.encode())  # printing is not safe here: the signal may have come in the middle of a line
