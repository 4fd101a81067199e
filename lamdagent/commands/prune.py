"""`python -m lamdagent prune`: which models keep their weights and why; the others' are deleted."""

from typing import TYPE_CHECKING

from lamdagent.commands import Command, Request

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lamdagent.api.pruning import Pruned, Weights
    from lamdagent.loop.terminal import Terminal

HELP = """python -m lamdagent prune +experiment=NAME [key=value ...] [dry_run=true]

Deletes the weights that nothing needs: of models that are neither among the best, nor on the Pareto front of the tasks,
nor an ancestor of one of these, nor tested, registered, or in use by any run. Their runs, scores, recipes and adapters
stay. Shows what stays and why; give it the overrides of the search.

  dry_run=true                 only shows it
  retention.keep_best=20       so many of the best stay
  retention.automatic=true     for a search: the same after each of its actions"""


def run(request: Request) -> None:
    """Delete, unless `dry_run=true`, and print what stays and why.

    Raises:
        UserError: the configuration is wrong, or says nothing of tasks.
    """
    from lamdagent.api.pruning import pruned
    from lamdagent.config import read
    from lamdagent.execution.disk import in_words
    from lamdagent.loop.terminal import Terminal

    config, view = read(request.composed.node), Terminal()
    found = pruned(config, config.dry_run)
    _show(found, view)
    gone, kept = len(found.gone), f"({_size(found.kept)})"
    if config.dry_run:
        said = f"the weights of {gone} models would go ({_size(found.gone)}), {len(found.kept)} would stay {kept}"
    else:
        freed = in_words(found.freed_bytes)
        said = f"weights deleted: {gone} models ({freed}); {len(found.kept)} stay {kept}"
    view.say(f"{said}. `python -m lamdagent rebuild RUN_ID` makes deleted ones again.")


def _show(found: "Pruned", view: "Terminal") -> None:
    from lamdagent.execution.disk import in_words
    from lamdagent.memory.lineage import format_score, lineage_string

    rows = []
    for one in found.weights:
        model = one.trial.model
        made = lineage_string(model, found.history.history) if model else ""
        size, name = in_words(one.bytes), model.name if model else ""
        rows.append([name, format_score(one.trial.score), size, one.kept or "it goes", made])
    heads = ("model", "score", "size", "stays because", "made by")
    styles = ["" if one.kept else "yellow" for one in found.weights]
    view.table(f"Weights in the experiment {found.experiment}", heads, rows, right={"size"}, styles=styles)


def _size(weights: "Iterable[Weights]") -> str:
    from lamdagent.execution.disk import in_words

    return in_words(sum(one.bytes for one in weights))


COMMAND = Command("prune", HELP, run)
