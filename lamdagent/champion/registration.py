"""The winner: what it needs to live on goes to its run, its weights to the Model Registry."""

import re
import tempfile
from pathlib import Path

from lamdagent.champion.model_card import model_card
from lamdagent.errors import UserError
from lamdagent.execution.executor import Failed, Job
from lamdagent.export.folder import write
from lamdagent.loop.job_pool import Flight
from lamdagent.loop.run_writer import RunWriter
from lamdagent.memory.trial import History, Trial
from lamdagent.planning.plan import Plan
from lamdagent.tracking.lineage import runs_page
from lamdagent.tracking.schema import CHAMPION_ALIAS, MODEL_CARD, MODEL_FOLDER, REBUILD_FOLDER

REGISTER_S = 3600.0


def register(champion: Trial, history: History, journal: RunWriter, flight: Flight, plan: Plan) -> str:
    """Write card and commands, register the weights; lines for the user, also when the registry refused."""
    assert champion.model is not None
    name = plan.config.tracking.registered_model or re.sub(r"[/:]+", "-", plan.config.tracking.experiment)
    store = journal.store
    card = model_card(champion, history, plan, runs_page(store.uri, store.experiment_id))
    store.update(champion.run_id, texts={MODEL_CARD: card})
    if champion.model.location == f"runs:/{champion.run_id}/{MODEL_FOLDER}":
        # Beside the weights too: the folder can go to a hub as it is.
        store.update(champion.run_id, texts={f"{MODEL_FOLDER}/README.md": card})
    arguments = {
        "uri": store.uri,
        "run_id": champion.run_id,
        "folder": journal.folder(champion.model),
        "name": name,
        "card": card,
    }
    job = Job(f"register {champion.run_id}", "lamdagent.worker.register:register", arguments, REGISTER_S)
    ended = next(flight.each([job]))
    said = f"champion: {champion.model.name}"
    if isinstance(ended, Failed):
        said += f"; the registry refused it: {ended.reason}"
    else:
        said += f", registered as models:/{name}@{CHAMPION_ALIAS} (version {ended.value})"
    return f"{said}\n{_commands(champion, history, journal, plan)}"


def _commands(champion: Trial, history: History, journal: RunWriter, plan: Plan) -> str:
    """Log the plain commands; what to do with them, or why there are none."""
    with tempfile.TemporaryDirectory() as work:
        try:
            write(champion, history, plan, Path(work), journal.rows)
        except UserError as error:
            return f"no plain commands make it again: {error}"
        journal.store.update(champion.run_id, folders={REBUILD_FOLDER: Path(work)})
    return f"`sh rebuild.sh` in the artifact {REBUILD_FOLDER}/ of its run makes it again without this package"
