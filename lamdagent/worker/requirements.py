"""Requirements of an action on the machine where it runs, checked there: on a cluster, the search starts elsewhere."""

import importlib.util
from collections.abc import Sequence

from lamdagent.errors import ActionFailed

ADVICE = "leave the action out, or run it where there is one"


def check_needs(needs: Sequence[str]) -> None:
    """Look for all of `needs` (see `ActionType.needs`) here.

    Raises:
        ActionFailed: kind `no_gpu`: there is no GPU; kind `error`: a package is missing.
    """
    for need in needs:
        if need == "gpu" and not uses_gpu():
            raise ActionFailed(f"The action needs a GPU and there is none here; {ADVICE}.", kind="no_gpu")
        if need != "gpu" and importlib.util.find_spec(need) is None:
            reason = f"The action needs the package {need}, which is not installed here"
            raise ActionFailed(f"{reason}; install it, or leave the action out.", kind="error")


def uses_gpu() -> bool:
    """Whether torch uses a GPU here, which the worker knows better than the driver's `devices.gpus`."""
    import torch  # noqa: TID251 - this module runs in the worker

    return torch.cuda.is_available()
