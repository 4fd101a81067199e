"""The model hub, or what was fetched of it before."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def cache_only(needed: bool) -> Iterator[None]:
    """Use what was fetched before: without a hub, `datasets` would try for half a minute a file first."""
    from datasets import config

    before = config.HF_HUB_OFFLINE
    config.HF_HUB_OFFLINE = before or needed
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE = before
