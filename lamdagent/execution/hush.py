"""What libraries log at their import and is not the user's to read. To be called before they are imported."""

import logging


def hush() -> None:
    """Keep bitsandbytes, which peft imports wherever it is installed, from advising a kernel for CPUs."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
