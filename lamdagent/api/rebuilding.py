"""`lamdagent.rebuild`: deleted weights made again from the store alone, and put back once proven."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from lamdagent.api.composing import Overrides, compose
from lamdagent.api.searching import terminal
from lamdagent.config import Config, read
from lamdagent.errors import UserError
from lamdagent.libraries import quiet_libraries
from lamdagent.remaking.rebuilt import Rebuilt
from lamdagent.tracking import schema

if TYPE_CHECKING:
    from lamdagent.loop.terminal import Terminal
    from lamdagent.tracking.runs import RunRecord


def rebuild(
    run_id: str,
    overrides: Overrides = (),
    *,
    experiment: str | None = None,
    config_dir: str | Path | None = None,
    progress: bool = True,
) -> Rebuilt:
    """The proof that the weights of a run are back: the same by checksum, else with scores within noise.

    Call it in the folder that the search was started in, so that its datasets and functions are found. Deleted models
    that the run starts from are made again first, and not kept.

    Args:
        run_id: MLflow run of an action whose weights were deleted.
        overrides: Where the store is and where actions run: `tracking.uri`, `execution`.
        experiment: As for `search`; only for what the overrides name.
        config_dir: As for `search`.
        progress: As for `search`.

    Raises:
        UserError: there is nothing to rebuild, or something that the recipe needs is gone or has changed.
        NotRebuilt: an action failed, or another model came out; nothing was put back.
    """
    return rebuilt(read(compose(experiment, overrides, config_dir).node), run_id, terminal(progress))


def rebuilt(config: Config, run_id: str, view: "Terminal") -> Rebuilt:
    """`rebuild` with a configuration that is composed already."""
    quiet_libraries()
    from lamdagent.execution.registry import make_executor
    from lamdagent.remaking.remake import Rebuilder
    from lamdagent.tracking.reading import artifact_folder, open_store_of, read_run

    store = open_store_of(config.tracking.uri, run_id, look=False)
    record = read_run(store, run_id)
    if problem := _no_need(record):
        raise UserError(f"rebuild: the run {record.run_id} {problem}")
    executor = make_executor(config)
    try:
        artifacts = artifact_folder(store, record.run_id)  # beside them, a rename publishes the weights
        with tempfile.TemporaryDirectory(prefix="rebuild-", dir=artifacts.parent if artifacts else None) as work:
            return Rebuilder(store, executor, Path(work), view.say).put_back(record)
    finally:
        executor.close()
        view.close()


def _no_need(record: "RunRecord") -> str:
    """Why there is nothing to rebuild; empty where there is."""
    if record.kind != "action" or record.status != "FINISHED":
        return f"made no model: it is {record.kind or 'not ours'}, {record.status}"
    if other := record.tags.get(schema.REUSED):
        return f"stands on the run {other} and has no weights of its own; rebuild that one"
    return "" if record.tags.get(schema.PRUNED) else "has its weights: nothing was deleted"
