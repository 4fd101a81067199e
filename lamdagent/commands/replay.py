"""`python -m lamdagent replay RUN_ID`: the pipeline that made a run, made again at another scale."""

from typing import TYPE_CHECKING

from lamdagent.commands import Command, Request
from lamdagent.errors import UserError

if TYPE_CHECKING:
    from lamdagent.api.replaying import Replayed
    from lamdagent.loop.terminal import Terminal

HELP = """python -m lamdagent replay RUN_ID [data_fraction=...] [base=...] [search.seed=...] [key=value ...]

Makes the whole pipeline that made RUN_ID again at another scale, as new runs under a search run of its own, with the
settings that it was found with; merges included, shared steps once, nothing that the store has already. The new model
is scored on the same tasks, and on the test split too. Start it where the search was started.

  data_fraction=1.0            with this share of the data
  base=NAME_OR_SOURCE          from another initial model: a name under models, or a hub id, a folder, ...
  search.seed=1                with another seed
  ++actions.sft_full.hyperparameters.steps=300   with another value in every step of that action
  dry_run=true                 only lists the steps"""


def run(request: Request) -> None:
    """Replay the run that the command line names.

    Raises:
        UserError: there is nothing to replay, or something that it needs is not there.
        NotReplayed: a step failed.
    """
    if request.run_id is None:
        raise UserError("replay: got none, wanted one run id: python -m lamdagent replay RUN_ID data_fraction=1.0")
    from lamdagent.api.replaying import carried_out, replay_setup
    from lamdagent.commands.search import report
    from lamdagent.config import read
    from lamdagent.loop.terminal import Terminal

    setup, view = replay_setup(request.composed, request.run_id), Terminal()
    replayed, ended = carried_out(setup, view, read(request.composed.node).dry_run)
    if ended is None:
        show_steps(replayed, view)
        return
    _show(replayed, view)
    report(ended.result, setup.plan, view)


def show_steps(replayed: "Replayed", view: "Terminal") -> None:
    """Print every step once, inputs before their uses."""
    from lamdagent.memory.lineage import format_score

    for number, trial in enumerate(replayed.steps, 1):
        assert trial.action is not None
        view.say(f"{number:3d}  {trial.action.describe()}  (run {trial.run_id}, score {format_score(trial.score)})")
    said = ", ".join(f"{key}={value}" for key, value in replayed.changes.items()) or "nothing changed"
    view.say(f"{len(replayed.steps)} steps, with {said}; nothing was run")


def _show(replayed: "Replayed", view: "Terminal") -> None:
    """Print a line for each pipeline: what it scored, and what it scores now."""
    from lamdagent.memory.lineage import format_score

    for pair in replayed.pairs:
        then, now = pair.then, pair.now
        test = f", {format_score(now.test_score)} on the test split" if now.test_score else ""
        said = f"{format_score(then.score)} then, {format_score(now.score)} now{test}"
        view.say(f"replayed  {then.run_id}: {said}; the run {now.run_id}", "green")


COMMAND = Command("replay", HELP, run, takes_run_id=True)
