"""`lamdagent.search` and `lamdagent.plan`."""

from pathlib import Path
from typing import TYPE_CHECKING

from lamdagent.api.composing import Overrides, compose
from lamdagent.errors import UserError
from lamdagent.libraries import known_warnings_ignored, quiet_libraries

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from lamdagent.api.result import Result
    from lamdagent.loop.terminal import Terminal
    from lamdagent.planning.plan import Plan


def search(
    experiment: str | None = None,
    overrides: Overrides = (),
    *,
    config_dir: str | Path | None = None,
    progress: bool = True,
) -> "Result":
    """The finished search: champion, finalists and all trials, which MLflow keeps.

    The same call goes on where an earlier one was cut off. Ctrl-C, or a notebook's stop button, ends the search after
    what runs now; a second one ends it at once.

    Args:
        experiment: A file of `conf/experiment` (shipped, or in `config_dir`) without `.yaml`, such as "smoke".
        overrides: `{"budget.trials": 4, "agent": "random"}`, or Hydra's words `["budget.trials=4", "agent=random"]`.
        config_dir: A folder with configuration groups of your own.
        progress: Whether to print a line for each thing that is done.

    Raises:
        UserError: something in the configuration or in what it names is wrong; as `ConfigError` with every fault.
        SearchStopped: no action can work now, such as for want of disk space; mend it and call again.
        KeyboardInterrupt: you have ended it; nothing is left open, and the same call goes on.
    """
    from lamdagent.api.session import carry_out

    composed = compose(experiment, overrides, config_dir)
    plan = plan_of(composed.node)
    if plan.config.dry_run:
        raise UserError("dry_run: got True, but `lamdagent.search` runs; `lamdagent.plan` checks and runs nothing")
    return carry_out(plan, composed.yaml, terminal(progress)).result


def plan(experiment: str | None = None, overrides: Overrides = (), *, config_dir: str | Path | None = None) -> "Plan":
    """The plan of a search, with models, data, actions and tasks checked; nothing is run and nothing is written.

    Args:
        experiment: As for `search`.
        overrides: As for `search`.
        config_dir: As for `search`.

    Raises:
        ConfigError: with every fault of the configuration, and of the files and functions that it names.
        UserError: Hydra cannot compose it.
    """
    return plan_of(compose(experiment, overrides, config_dir).node)


def plan_of(node: "DictConfig") -> "Plan":
    """The plan of a search, its configuration checked against files and code.

    Raises:
        UserError: the configuration is one of a replay; as `ConfigError` with every fault.
    """
    quiet_libraries()
    if (base := node.get("base")) is not None:
        raise UserError(f"base: got {base!r}, but a search starts from `models`; replay and transfer have a base")
    with known_warnings_ignored():
        from lamdagent.planning.plan import read_plan

        return read_plan(node)


def terminal(progress: bool) -> "Terminal":
    """Terminal that shows progress; without `progress` it shows nothing."""
    from lamdagent.loop.terminal import Terminal, standard_output

    return Terminal(standard_output(silent=not progress))
