"""`python -m lamdagent prune`: which models keep their weights and why; the others' are deleted."""

from omegaconf import DictConfig
from rich.table import Table
from rich.text import Text

from lamdagent.config import read
from lamdagent.errors import UserError
from lamdagent.execution.disk import in_words
from lamdagent.loop.terminal import standard_output
from lamdagent.memory.history import build_history
from lamdagent.memory.lineage import chain, figure
from lamdagent.planning.plan import make_outline
from lamdagent.tracking.external import open_to_read
from lamdagent.tracking.reading import read_every_run
from lamdagent.tracking.store import RunStore
from lamdagent.tracking.weights import delete_weights
from lamdagent.weights import pruning


def start(node: DictConfig) -> None:
    """Print the table, and with `dry_run=false` delete.

    Raises:
        UserError: the configuration is wrong, or says nothing of tasks.
    """
    config = read(node)
    if not config.tasks:
        raise UserError(
            "prune: no tasks are given, so nobody can tell good models from others; use the overrides of the search, "
            "such as `python -m lamdagent prune +experiment=tooluse`"
        )
    outline = make_outline(config)
    if not open_to_read(config.tracking.uri).experiment_id(config.tracking.experiment):
        raise UserError(f"prune: the store has no experiment {config.tracking.experiment!r}; set tracking.experiment")
    store = RunStore(config.tracking.uri, config.tracking.experiment)
    history = build_history(read_every_run(store), outline.types, outline.datasets, outline.tasks)
    found = pruning.decisions(store, history, outline.tasks, config)
    sizes = {decision.trial.run_id: pruning.size(store, decision.trial) for decision in found}
    table = Table(title=f"Weights in the experiment {store.experiment}", title_justify="left")
    for head in ("model", "score", "size", "stays because", "made by"):
        table.add_column(head, overflow="fold", justify="right" if head == "size" else "left")
    for decision in found:
        trial = decision.trial
        made = chain(trial.model, history) if trial.model else ""
        name = trial.model.name if trial.model else ""
        cells = (name, figure(trial.score), in_words(sizes[trial.run_id]), decision.kept or "it goes", made)
        table.add_row(*map(Text, cells), style="" if decision.kept else "yellow")
    gone = [decision.trial for decision in found if not decision.kept]
    size = in_words(sum(sizes[trial.run_id] for trial in gone))
    kept = in_words(sum(sizes[decision.trial.run_id] for decision in found if decision.kept))
    console = standard_output()
    console.print(table)
    if config.dry_run:
        said = f"the weights of {len(gone)} models would go ({size}), {len(found) - len(gone)} would stay ({kept})"
    else:
        for trial in history.actions:
            if trial.pruned:
                delete_weights(store, trial.run_id)  # of a prune that was cut off
        freed = in_words(pruning.prune(store, gone))
        said = f"weights deleted: {len(gone)} models ({freed}); {len(found) - len(gone)} stay ({kept})"
    console.print(Text(f"{said}. `python -m lamdagent rebuild RUN_ID` makes deleted ones again."), soft_wrap=True)
