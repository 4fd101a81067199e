"""`python -m lamdagent transfer`: does the ranking of a search's pipelines hold at another scale (paper, section 5)?"""

from collections.abc import Sequence
from dataclasses import replace

from omegaconf import DictConfig, OmegaConf
from rich.table import Table
from rich.text import Text

from lamdagent.commands.replay import begin, overrides
from lamdagent.config import Config, MemoryConfig, read
from lamdagent.errors import UserError
from lamdagent.evaluation.task import Task, weighted_score
from lamdagent.libraries import quiet_libraries
from lamdagent.loop.search import Search
from lamdagent.loop.terminal import Terminal
from lamdagent.memory.lineage import chain, figure
from lamdagent.memory.scores import scores_on
from lamdagent.memory.trial import History, Trial
from lamdagent.planning.plan import make_outline
from lamdagent.scaling.pipeline_records import chosen_by, last_search, read_past, settings_of
from lamdagent.scaling.rank_agreement import SURVIVES, Agreement, agreement
from lamdagent.scaling.replay_plan import Replay
from lamdagent.scaling.replay_setup import arrange
from lamdagent.text import json_text
from lamdagent.tracking import schema
from lamdagent.tracking.external import open_to_read
from lamdagent.tracking.reading import open_store_of, read_run
from lamdagent.tracking.runs import RunRecord
from lamdagent.tracking.store import RunStore

FEWEST = 2
"""Pipelines that a ranking needs."""
CHANGES = ("data_fraction=", "base=", "search.seed=", "datasets.", "actions.", "evaluation.", "tasks.")
"""What overrides begin with that make another scale."""


def start(node: DictConfig, words: Sequence[str]) -> None:
    """Replay the best pipelines of a search and a spread of its others, and compare.

    Raises:
        UserError: there is no such search, too little in it, or nothing would be other than it was.
        NotReplayed: not one pipeline could be made.
    """
    quiet_libraries()
    config = read(node)
    if len(words) > 1:
        raise UserError(f"transfer: got {' '.join(words)}, wanted at most one run id, that of a search")
    store = open_store_of(config.tracking.uri, words[0]) if words else _store(config)
    search = read_run(store, words[0]) if words else last_search(store)
    if search.kind != "search" or search.status == "RUNNING":
        state = "has not ended" if search.kind == "search" else "is no search"
        raise UserError(f"transfer: the run {search.run_id} {state}; give the run id of a search that has ended")
    chosen = picked(_ranked(store, search), config.transfer.top, config.transfer.spread)
    if len(chosen) < FEWEST:
        said = f"the search {search.run_id} has {len(chosen)} pipelines with a score on its tasks"
        raise UserError(f"transfer: {said}, and a ranking needs {FEWEST}")
    run_ids = [record.run_id for record in chosen]
    arrangement = arrange(read_past(store, run_ids), len(run_ids), node, overrides(), store.experiment)
    if not any(word.lstrip("+").startswith(CHANGES) for word in overrides()):
        wanted = "such as data_fraction=1.0, base=... or search.seed=1"
        raise UserError(f"transfer: the scale is what it was; say what is other now, {wanted}")
    begin(arrangement, Terminal(), config.dry_run, _conclude)


def picked(ranked: Sequence[RunRecord], top: int, spread: int) -> list[RunRecord]:
    """The first `top`, and `spread` of the rest at even distances, the last one included."""
    rest = ranked[top:]
    if spread >= len(rest):
        return list(ranked)
    places = sorted({round((number + 1) * len(rest) / spread) - 1 for number in range(spread)})
    return [*ranked[:top], *(rest[place] for place in places)]


def _store(config: Config) -> RunStore:
    experiment = config.tracking.experiment
    if not open_to_read(config.tracking.uri).experiment_id(experiment):
        raise UserError(f"transfer: the store has no experiment {experiment!r}; set tracking.experiment")
    return RunStore(config.tracking.uri, experiment)


def _ranked(store: RunStore, search: RunRecord) -> list[RunRecord]:
    """What the search chose, best first on its own tasks."""
    settings = read(OmegaConf.create(dict(settings_of(store, search.run_id))))
    tasks = make_outline(replace(settings, actions={}, memory=MemoryConfig())).tasks
    scored = [(value, record) for record in chosen_by(store, search.run_id) if (value := _score(record, tasks))]
    return [record for _, record in sorted(scored, key=lambda pair: -pair[0])]


def _score(record: RunRecord, tasks: Sequence[Task]) -> float | None:
    score = weighted_score(tasks, scores_on(record, tasks, schema.TASK_PREFIX))
    return score.value if score else None


def _conclude(search: Search, history: History) -> None:
    """Say, and write to the search run, how the two rankings agree."""
    assert search.replaying is not None
    replay, results = search.replaying.replay, search.replaying.results(history)
    both = [(step.source, step.trial) for step in results if step.state == "made" and step.trial]
    pairs = [(then, now) for then, now in both if then.score and now.score]
    _show(pairs, replay, search.view)
    left_out = [step.source.run_id for step in results if step.state != "made"]
    top = search.plan.config.transfer.top
    found = None
    if len(pairs) >= FEWEST:
        found = agreement([(then.score, now.score) for then, now in pairs if then.score and now.score], top)
        for line, style in sentences(found, top, len(left_out)):
            search.view.say(line, style)
    else:
        search.view.say("fewer than two pipelines were made again: there is no ranking to compare", "red")
    _write(search, found, pairs, left_out)


def sentences(found: Agreement, top: int, left_out: int) -> list[tuple[str, str]]:
    """What the figures say, with a style for each line."""
    rho = "not defined" if found.spearman is None else f"{found.spearman:+.2f}"
    kept = "the best then is the best now" if found.top1_retained else "the best then is not the best now"
    lines = [
        (f"rank correlation (Spearman) of {found.pipelines} pipelines: {rho}", ""),
        (f"{kept}; taking it costs {100 * found.regret:.1f} points against the best of these", ""),
        (f"of the best {min(top, found.pipelines)} then, {found.top_overlap:.0%} are among the best as many now", ""),
    ]
    if found.gap < SURVIVES:
        ahead = (
            f"the best was {100 * found.gap:.1f} points ahead of the next one (standard error {100 * found.noise:.1f})"
        )
        said = f"{ahead}; in the paper only gaps of {100 * SURVIVES:.0f} points survived: take several along"
        lines.append((said, "yellow"))
    if left_out:
        lines.append((f"{left_out} pipelines could not be made again and are left out", "red"))
    return lines


def _show(pairs: Sequence[tuple[Trial, Trial]], replay: Replay, view: Terminal) -> None:
    table = Table(title="The same pipelines at the two scales; +- is one standard error", title_justify="left")
    for head in ("then", "now", "score then", "score now", "model now", "pipeline"):
        table.add_column(head, overflow="fold", justify="left" if head in ("model now", "pipeline") else "right")
    now_first = sorted((now.score.value for _, now in pairs if now.score), reverse=True)
    for place, (then, now) in enumerate(pairs, 1):
        assert then.model and now.model and now.score
        rank = str(now_first.index(now.score.value) + 1)
        cells = (
            str(place),
            rank,
            figure(then.score),
            figure(now.score),
            now.model.name,
            chain(then.model, replay.history),
        )
        table.add_row(*map(Text, cells))
    view.console.print(table)


def _write(
    search: Search, found: Agreement | None, pairs: Sequence[tuple[Trial, Trial]], left_out: Sequence[str]
) -> None:
    """Metrics and an artifact of the search run."""
    store, run_id = search.journal.store, search.journal.session.run_id
    rows = [
        {
            "then": {"run_id": then.run_id, "score": then.score.value, "stderr": then.score.stderr},
            "now": {"run_id": now.run_id, "score": now.score.value, "stderr": now.score.stderr},
        }
        for then, now in pairs
        if then.score and now.score
    ]
    figures = found.record if found else {}
    metrics = {f"transfer.{key}": float(value) for key, value in figures.items() if value is not None}
    text = json_text({**figures, "pairs": rows, "left_out": list(left_out)})
    store.update(run_id, metrics=metrics, texts={schema.TRANSFER: text})
