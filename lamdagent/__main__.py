"""`python -m lamdagent [command] +experiment=<name> key=value ...`: compose, check, do. Heavy imports wait.

Exit codes: 0 done, 1 a rebuild gave another model, 2 the user's input is wrong (one message, no traceback), 70 a fault
of ours (traceback), 75 failures in a row or a full disk stopped the search (what to mend is said; the same command goes
on), 130 interrupted.
"""

import os
import re
import sys
import traceback
from collections.abc import Sequence

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from lamdagent.config import conf_folder
from lamdagent.errors import NotRebuilt, SearchStopped, UserError

COMMANDS = {
    "history": """python -m lamdagent history [+experiment=NAME] [key=value ...] [--json]

Shows what a search would understand of others' MLflow runs: which action each run was, its inputs and levelled score,
what is skipped and why, which models would join the pool. Runs nothing and writes nothing.

  python -m lamdagent history                          the store's experiments and a source for each, to paste
  python -m lamdagent history +experiment=mine +source=trl memory.sources.trl.experiments=[theirs]
  --json                                               the same for machines, on standard output

Ready-made sources: trl, transformers, params, lamdagent (conf/source); several of a kind under names of yours:
+source@memory.sources.first=trl +source@memory.sources.second=trl""",
    "prune": """python -m lamdagent prune +experiment=NAME [key=value ...] [dry_run=true]

Deletes the weights that nothing needs: of models that are neither among the best, nor on the Pareto front of the tasks,
nor an ancestor of one of these, nor tested, registered, or in use by any run. Their runs, scores, recipes and adapters
stay. Shows what stays and why; give it the overrides of the search.

  dry_run=true                 only shows it
  retention.keep_best=20       so many of the best stay
  retention.automatic=true     for a search: the same after each of its actions""",
    "rebuild": """python -m lamdagent rebuild RUN_ID [tracking.uri=...] [execution=...]

Makes deleted weights again, from the store alone, with the recipe of the run and the settings of its search, and puts
them back only when they are proven: the same by checksum, else with scores within noise. Start it in the folder that
the search was started in, so that datasets and functions are found again; models that it starts from and that are
deleted too are made again first, and not kept.""",
    "replay": """python -m lamdagent replay RUN_ID [data_fraction=1.0] [base=SOURCE] [search.seed=1] [key=value ...]

Makes the pipeline behind a run again, step by step, with the settings of its search but for what is given: with all the
data, from a bigger model, with another seed. Every step is a run with its scores, and all of them are tested at the
end. They go into an experiment of their own (NAME-at-FRACTION[-on-BASE], or tracking.experiment=...), so that scores of
two scales never mix; what has been done there is not done again.

  base=my/bigger-model         stands for every model that the pipeline starts from; a different one for each of
                               several: models.NAME.source=...""",
}
"""First argument -> its help. Without a command, a search is started."""


def run(command: str, flags: Sequence[str]) -> None:
    """Let Hydra compose what the command line says, and do it; ends the process with a meaning (see the module)."""

    @hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="config")
    def composed(node: DictConfig) -> None:
        _guarded(command, flags, node)

    composed()


def _guarded(command: str, flags: Sequence[str], node: DictConfig) -> None:
    try:
        _do(command, flags, node)
    except UserError as error:
        print(f"lamdagent: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except SearchStopped as stopped:
        print(f"lamdagent: {stopped}", file=sys.stderr)
        raise SystemExit(75) from None
    except NotRebuilt as error:
        print(f"lamdagent: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("lamdagent: interrupted; the same command goes on from the store", file=sys.stderr)
        raise SystemExit(130) from None
    except Exception:
        traceback.print_exc()
        raise SystemExit(70) from None


def _do(command: str, flags: Sequence[str], node: DictConfig) -> None:
    if command == "history":
        from lamdagent import explain

        explain.start(node, "--json" in flags)
    elif command == "prune":
        from lamdagent import prune

        prune.start(node)
    elif command == "rebuild":
        from lamdagent.rebuild import again

        again.start(node, [word for word in flags if not word.startswith("-")])
    elif command == "replay":
        from hydra.core.hydra_config import HydraConfig

        from lamdagent import replay

        replay.start(node, flags, HydraConfig.get().overrides.task)
    else:
        from lamdagent import app

        app.start(node)


def _split(arguments: Sequence[str]) -> tuple[str, list[str], list[str]]:
    """Command, its own words and flags, and what is left for Hydra."""
    if not arguments or arguments[0] not in COMMANDS:
        return "", [], list(arguments)
    ours = [a for a in arguments[1:] if a in ("--json", "--help", "-h")]
    if arguments[0] in ("rebuild", "replay"):
        ours += [a for a in arguments[1:2] if re.fullmatch(r"\w+", a)]
    if arguments[0] == "replay":
        ours += [a for a in arguments[1:] if a.startswith("base=")]
    return arguments[0], ours, [a for a in arguments[1:] if a not in ours]


def main() -> None:
    """Entry point. What Hydra cannot compose or read is the user's to mend, like every other fault of the input."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra then raises instead of printing tracebacks
    command, flags, sys.argv[1:] = _split(sys.argv[1:])
    if command and set(flags) & {"--help", "-h"}:
        print(COMMANDS[command])
        return
    try:
        run(command, flags)
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        print(f"lamdagent: the configuration cannot be composed: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
