"""Ctrl-C: once, and the search ends after the action in flight; twice, or SIGTERM, and it ends at once."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

LINE = "\nlamdagent: the search ends after what runs now; Ctrl-C once more ends it at once\n"


class GracefulShutdown:
    """The end that the user's signals ask for; where it cannot wait, KeyboardInterrupt is raised in the main thread."""

    def __init__(self) -> None:
        """No end is requested, and no signal is handled before `install`."""
        self.requested = False
        """Whether the search shall end after the jobs that run now."""
        self._writing = False

    def install(self) -> None:
        """Handle SIGINT and SIGTERM from now on; allowed in the main thread only."""
        signal.signal(signal.SIGINT, self._handle)
        signal.signal(signal.SIGTERM, self._handle)

    def check(self) -> None:
        """Return where no end is requested; called where no job runs.

        Raises:
            KeyboardInterrupt: the user has asked for the end.
        """
        if self.requested:
            raise KeyboardInterrupt

    @contextmanager
    def shielded(self) -> Iterator[None]:
        """Ignore further signals inside: they would leave the store half-written."""
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
