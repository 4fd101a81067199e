"""`python -m lamdagent [command] +experiment=<name> key=value ...`: compose, check, do. Heavy imports wait.

Exit codes: 0 done, 1 a rebuild gave another model or a replay could not be ended, 2 the user's input is wrong (one
message, no traceback), 70 a fault of ours (traceback), 75 failures in a row or a full disk stopped the search (what to
mend is said; the same command goes on), 130 interrupted.
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
from lamdagent.errors import NotRebuilt, NotReplayed, SearchStopped, UserError

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
    "replay": """python -m lamdagent replay RUN_ID [data_fraction=...] [base=...] [search.seed=...] [key=value ...]

Makes the whole pipeline that made RUN_ID again at another scale, as new runs under a search run of its own, with the
settings that it was found with; merges included, shared steps once, nothing that the store has already. The new model
is scored on the same tasks, and on the test split too. Start it where the search was started.

  data_fraction=1.0            with this share of the data
  base=NAME_OR_SOURCE          from another initial model: a name under models, or a hub id, a folder, ...
  search.seed=1                with another seed
  ++actions.sft_full.hyperparameters.steps=300   with another value in every step of that action
  dry_run=true                 only lists the steps""",
    "transfer": """python -m lamdagent transfer [RUN_ID] [+experiment=NAME] [top=5] [spread=5] [key=value ...]

Makes the best pipelines of a search and a spread of its others again at another scale, and tells whether the ranking
holds there: rank correlation, whether the best stays the best, and what is lost if it does not. RUN_ID is that of a
search run; without it, the newest finished search of the experiment is taken. What may change is as for replay.

  top=5                        so many of the best pipelines
  spread=5                     and so many others, at even distances in the ranking, the worst included
  dry_run=true                 only lists the steps""",
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
    except (NotRebuilt, NotReplayed) as error:
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
        from lamdagent.commands import history

        history.start(node, "--json" in flags)
    elif command == "prune":
        from lamdagent.commands import prune

        prune.start(node)
    elif command == "rebuild":
        from lamdagent.rebuild import remake

        remake.start(node, [word for word in flags if not word.startswith("-")])
    elif command == "replay":
        from lamdagent.commands import replay

        replay.start(node, flags)
    elif command == "transfer":
        from lamdagent.commands import transfer

        transfer.start(node, flags)
    else:
        from lamdagent.commands import search

        search.start(node)


def _split(arguments: Sequence[str]) -> tuple[str, list[str], list[str]]:
    """Command, its own words and flags, and what is left for Hydra."""
    if not arguments or arguments[0] not in COMMANDS:
        return "", [], list(arguments)
    ours = [a for a in arguments[1:] if a in ("--json", "--help", "-h")]
    if arguments[0] in ("rebuild", "replay", "transfer"):
        ours += [a for a in arguments[1:2] if re.fullmatch(r"\w+", a)]
    rest = [a for a in arguments[1:] if a not in ours]
    if arguments[0] == "transfer":
        rest = [re.sub(r"^(?=(top|spread)=)", "transfer.", a) for a in rest]
    return arguments[0], ours, rest


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
