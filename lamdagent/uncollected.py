"""Python's garbage collector, off where it only costs: imports and large reads make objects that stay."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected(*, for_good: bool = False) -> Iterator[None]:
    """Without the collector, which walks all new objects again and again: a fifth of the import of TRL and lm-eval.

    `for_good`: what is there at the end is never walked again either; for libraries, whose million objects would make
    each collection after a training take half a second. Where they hold what must be closed at the end of the process,
    such as a database's connections, it is not.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if for_good:
            gc.freeze()
        if enabled:
            gc.enable()
