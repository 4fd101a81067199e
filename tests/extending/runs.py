"""A command: `python -m lamdagent runs +experiment=NAME` says how many trials the store has."""

from lamdagent.commands import Command, Request

HELP = """python -m lamdagent runs [+experiment=NAME] [tracking.experiment=...]

Says how many trials of the experiment are in the store, and how many have failed."""


def run(request: Request) -> None:
    """Print one line."""
    from lamdagent.api.trials import history

    told = list(history(overrides=request.composed.overrides))
    print(f"{len(told)} trials, {sum(trial.status == 'failed' for trial in told)} failed")


COMMAND = Command("runs", HELP, run)
