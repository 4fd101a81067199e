"""The executor that `execution.kind` names."""

from typing import TYPE_CHECKING

from lamdagent.config import Config

if TYPE_CHECKING:
    from lamdagent.execution.executor import Executor


def make_executor(config: Config) -> "Executor":
    """The executor that `execution.kind` names."""
    if config.execution.kind == "inline":
        from lamdagent.execution.inline import InlineExecutor

        return InlineExecutor()
    if config.execution.kind == "ray":
        from lamdagent.execution.ray_executor import RayExecutor

        return RayExecutor(config.execution)
    from lamdagent.execution.local import LocalExecutor

    return LocalExecutor()
