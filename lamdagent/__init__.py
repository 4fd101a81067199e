"""LaMDAgent: an agent that finds the best post-training pipeline and keeps its memory in MLflow.

    import lamdagent

    result = lamdagent.search("smoke", {"budget.trials": 4})
    result.champion, result.history.to_frame()

Importing this package loads nothing: each name below is loaded when it is first used.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from lamdagent.api.pruning import Pruned, prune
    from lamdagent.api.rebuilding import rebuild
    from lamdagent.api.replaying import Replayed, replay
    from lamdagent.api.result import Result
    from lamdagent.api.searching import plan, search
    from lamdagent.api.sources import ForeignRuns, sources
    from lamdagent.api.transferring import Transferred, transfer
    from lamdagent.api.trials import Trials, history
    from lamdagent.errors import ConfigError, LamdagentError, NotRebuilt, NotReplayed, SearchStopped, UserError
    from lamdagent.memory.trial import Trial
    from lamdagent.planning.plan import Plan
    from lamdagent.remaking.rebuilt import Rebuilt

__all__ = [
    "ConfigError",
    "ForeignRuns",
    "LamdagentError",
    "NotRebuilt",
    "NotReplayed",
    "Plan",
    "Pruned",
    "Rebuilt",
    "Replayed",
    "Result",
    "SearchStopped",
    "Transferred",
    "Trial",
    "Trials",
    "UserError",
    "__version__",
    "history",
    "plan",
    "prune",
    "rebuild",
    "replay",
    "search",
    "sources",
    "transfer",
]

_HOMES = {
    "lamdagent.api.pruning": ("Pruned", "prune"),
    "lamdagent.api.rebuilding": ("rebuild",),
    "lamdagent.api.replaying": ("Replayed", "replay"),
    "lamdagent.api.result": ("Result",),
    "lamdagent.api.searching": ("plan", "search"),
    "lamdagent.api.sources": ("ForeignRuns", "sources"),
    "lamdagent.api.transferring": ("Transferred", "transfer"),
    "lamdagent.api.trials": ("Trials", "history"),
    "lamdagent.errors": ("ConfigError", "LamdagentError", "NotRebuilt", "NotReplayed", "SearchStopped", "UserError"),
    "lamdagent.memory.trial": ("Trial",),
    "lamdagent.planning.plan": ("Plan",),
    "lamdagent.remaking.rebuilt": ("Rebuilt",),
}
"""Module -> what this package exports of it; no module of this folder may have one of these names."""


def __getattr__(name: str) -> Any:
    """The exported member, loaded now and kept."""
    home = next((module for module, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    member = globals()[name] = getattr(import_module(home), name)
    return member


def __dir__() -> list[str]:
    """Names that are exported, loaded or not."""
    return sorted({*globals(), *__all__})
