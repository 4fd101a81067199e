"""`python -m lamdagent rebuild RUN_ID`: deleted weights made again, and put back once proven."""

from lamdagent.commands import Command, Request
from lamdagent.errors import UserError

HELP = """python -m lamdagent rebuild RUN_ID [tracking.uri=...] [execution=...]

Makes deleted weights again, from the store alone, with the recipe of the run and the settings of its search, and puts
them back only when they are proven: the same by checksum, else with scores within noise. Start it in the folder that
the search was started in, so that datasets and functions are found again; models that it starts from and that are
deleted too are made again first, and not kept."""


def run(request: Request) -> None:
    """Rebuild the run that the command line names.

    Raises:
        UserError: there is nothing to rebuild, or something that the recipe needs is gone or has changed.
        NotRebuilt: an action failed, or another model came out; nothing was put back.
    """
    if request.run_id is None:
        raise UserError("rebuild: got none, wanted one run id: python -m lamdagent rebuild RUN_ID")
    from lamdagent.api.rebuilding import rebuilt
    from lamdagent.config import read
    from lamdagent.loop.terminal import Terminal

    view = Terminal()
    view.say(str(rebuilt(read(request.composed.node), request.run_id, view)), "green")


COMMAND = Command("rebuild", HELP, run, takes_run_id=True)
