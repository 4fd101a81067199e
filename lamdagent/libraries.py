"""How heavy libraries are loaded and kept quiet: collector, logs, progress bars, known warnings."""

import gc
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


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


def hush() -> None:
    """Keep bitsandbytes, which peft imports wherever it is installed, from advising a kernel for CPUs."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def quiet_libraries() -> None:
    """Settings that libraries read at their import, here and in the worker."""
    hush()
    for key, value in {
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "DATASETS_VERBOSITY": "error",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }.items():
        os.environ.setdefault(key, value)


KNOWN_WARNINGS = (
    # peft 0.21 with transformers 5.23
    "`is_gradient_checkpointing` is deprecated and will be removed in v6. Use `is_activation_checkpointing` instead.",
    # tqdm in a notebook: our progress needs no widgets
    "IProgress not found. Please update jupyter and ipywidgets.",
    # mergekit 0.1.5 with numpy 2
    "numpy.core is deprecated and has been renamed to numpy._core. The numpy._core namespace contains private NumPy",
)
"""The libraries' warnings about each other: not ours to mend, not the user's to read."""


@contextmanager
def known_warnings_ignored() -> Iterator[None]:
    """Silence what KNOWN_WARNINGS lists and nothing else."""
    with warnings.catch_warnings():
        for message in KNOWN_WARNINGS:
            warnings.filterwarnings("ignore", message=re.escape(message))
        yield


def quiet() -> None:
    """Keep the libraries' progress bars and chatter off the terminal, and their usage reports off the network."""
    from huggingface_hub import constants
    from transformers.utils import logging

    hush()
    chatter: Any = logging
    constants.HF_HUB_DISABLE_TELEMETRY = True  # TRL sends one per trainer
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")  # for later: importing it here would cost 80 MB
    if "datasets" in sys.modules:
        sys.modules["datasets"].disable_progress_bars()
    chatter.set_verbosity_error()
    chatter.disable_progress_bar()
