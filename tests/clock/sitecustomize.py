"""A clock that jumps: on the path of a process it shifts Python's wall clock by the seconds in the file CLOCK_OFFSET.

The machine's own clock cannot be moved for one process without a compiler or a privilege; everything in a search that
reads the wall clock reads it here. The steady clock (time.monotonic) is left alone, as it is by a real jump.
"""

import os
import time

_now, _now_ns = time.time, time.time_ns


def _offset() -> float:
    try:
        with open(os.environ["CLOCK_OFFSET"], encoding="utf-8") as file:
            return float(file.read() or 0)
    except (OSError, ValueError):
        return 0.0


time.time = lambda: _now() + _offset()
time.time_ns = lambda: _now_ns() + int(_offset() * 1e9)
