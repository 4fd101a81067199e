"""The champion's registration: its card and commands go to its run, its weights to the Model Registry."""

import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from lamdagent.champion.model_card import model_card
from lamdagent.errors import UserError
from lamdagent.execution.executor import Failed, Finished, Job
from lamdagent.export.folder import write
from lamdagent.memory.trial import History, Trial
from lamdagent.objects.dataset import Dataset
from lamdagent.objects.model import Model
from lamdagent.planning.plan import Plan
from lamdagent.tracking.lineage import runs_page
from lamdagent.tracking.schema import CHAMPION_ALIAS, MODEL_CARD, MODEL_FOLDER, REBUILD_FOLDER
from lamdagent.tracking.store import RunStore

REGISTER_S = 3600.0
"""Longest time that the registry may take for the weights."""


class Runs(Protocol):
    """The part of the run writer that registration needs."""

    @property
    def store(self) -> RunStore:
        """The store of the runs."""
        ...

    def folder(self, model: Model) -> str:
        """Local folder of the model's weights."""
        ...

    def rows(self, dataset: Dataset) -> str:
        """Local file of the dataset's rows."""
        ...


def register(
    champion: Trial, history: History, runs: Runs, execute: Callable[[Job], Finished | Failed], plan: Plan
) -> str:
    """Messages for the user, after card, commands and weights are stored; they say so if the registry refused.

    `execute` runs a job on the executor and waits for its end.
    """
    assert champion.model is not None
    name = plan.config.tracking.registered_model or re.sub(r"[/:]+", "-", plan.config.tracking.experiment)
    card = _write_card(champion, champion.model, history, runs.store, plan)
    arguments = {
        "uri": runs.store.uri,
        "run_id": champion.run_id,
        "folder": runs.folder(champion.model),
        "name": name,
        "card": card,
    }
    ended = execute(Job(f"register {champion.run_id}", "lamdagent.worker.register:register", arguments, REGISTER_S))
    said = f"champion: {champion.model.name}"
    if isinstance(ended, Failed):
        said += f"; the registry refused it: {ended.reason}"
    else:
        said += f", registered as models:/{name}@{CHAMPION_ALIAS} (version {ended.value})"
    return f"{said}\n{_write_commands(champion, history, runs, plan)}"


def _write_card(champion: Trial, model: Model, history: History, store: RunStore, plan: Plan) -> str:
    """The model card, after it is stored on the run."""
    card = model_card(champion, history, plan, runs_page(store.uri, store.experiment_id))
    store.update(champion.run_id, texts={MODEL_CARD: card})
    if model.location == f"runs:/{champion.run_id}/{MODEL_FOLDER}":
        # Beside the weights too: the folder can go to a hub as it is.
        store.update(champion.run_id, texts={f"{MODEL_FOLDER}/README.md": card})
    return card


def _write_commands(champion: Trial, history: History, runs: Runs, plan: Plan) -> str:
    """A message that says how to use the stored commands, or why there are none."""
    with tempfile.TemporaryDirectory() as work:
        try:
            write(champion, history, plan, Path(work), runs.rows)
        except UserError as error:
            return f"no plain commands make it again: {error}"
        runs.store.update(champion.run_id, folders={REBUILD_FOLDER: Path(work)})
    return f"`sh rebuild.sh` in the artifact {REBUILD_FOLDER}/ of its run makes it again without this package"
