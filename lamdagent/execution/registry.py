"""The executor that `execution.kind` names."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from lamdagent.config import Config, ExecutionConfig
from lamdagent.errors import UserError
from lamdagent.execution.executor import WARM_UP
from lamdagent.functions import load_maker

if TYPE_CHECKING:
    from lamdagent.execution.executor import Executor


def make_executor(config: Config, warm_up: Sequence[str] = WARM_UP) -> "Executor":
    """The executor that `execution.kind` names; each worker of ours imports `warm_up` while nobody waits.

    Raises:
        UserError: it is one of the user's and has no `capacity`, or cannot be used at all.
    """
    return executor_maker(config.execution, warm_up)()


def executor_maker(settings: ExecutionConfig, warm_up: Sequence[str] = WARM_UP) -> Callable[[], "Executor"]:
    """A function that makes the executor; `settings` are checked at once, before anything is started.

    Raises:
        UserError: there is none of that name, or it is no executor.
    """
    if ":" in settings.kind:
        return _users(settings)
    if settings.arguments:
        raise UserError("execution.arguments: only an executor of yours takes some, as execution.kind=module:Name")
    if settings.kind not in EXECUTORS:
        allowed = ", ".join(EXECUTORS)
        raise UserError(f"execution.kind: got {settings.kind!r}; allowed: {allowed}, or module:Name of one of yours")
    return lambda: EXECUTORS[settings.kind](settings, warm_up)


def _users(settings: ExecutionConfig) -> Callable[[], "Executor"]:
    from lamdagent.execution.executor import Executor

    make = load_maker(settings.kind, settings.arguments, Executor, "execution")

    def checked() -> Executor:
        executor = make()
        if not isinstance(getattr(executor, "capacity", None), int):
            raise UserError(f"execution.kind: {settings.kind} has no `capacity`, the number of jobs that run at once")
        return executor  # type: ignore[no-any-return]

    return checked


def _local(settings: ExecutionConfig, warm_up: Sequence[str]) -> "Executor":
    from lamdagent.execution.local import LocalExecutor

    return LocalExecutor(warm_up)


def _inline(settings: ExecutionConfig, warm_up: Sequence[str]) -> "Executor":
    from lamdagent.execution.inline import InlineExecutor

    return InlineExecutor()


def _ray(settings: ExecutionConfig, warm_up: Sequence[str]) -> "Executor":
    from lamdagent.execution.ray_executor import RayExecutor

    return RayExecutor(settings, warm_up)


EXECUTORS: Mapping[str, Callable[[ExecutionConfig, Sequence[str]], "Executor"]] = {
    "local": _local,
    "inline": _inline,
    "ray": _ray,
}
"""By `execution.kind`."""
