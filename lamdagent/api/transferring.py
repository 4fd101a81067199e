"""`lamdagent.transfer`: does the ranking of a search's pipelines hold at another scale (paper, section 5)?"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from lamdagent.api.composing import Composed, Overrides, compose
from lamdagent.api.replaying import Pair, Replayed, carried_out, pairs_of
from lamdagent.api.searching import terminal
from lamdagent.config import Config, MemoryConfig, read
from lamdagent.errors import UserError
from lamdagent.evaluation.task import Task, weighted_score
from lamdagent.libraries import quiet_libraries
from lamdagent.memory.trial import Trial
from lamdagent.scaling.rank_agreement import RankAgreement, rank_agreement
from lamdagent.text import json_text
from lamdagent.tracking import schema

if TYPE_CHECKING:
    from lamdagent.api.session import Ended
    from lamdagent.loop.terminal import Terminal
    from lamdagent.scaling.replay_setup import ReplaySetup
    from lamdagent.tracking.runs import RunRecord
    from lamdagent.tracking.store import RunStore

FEWEST = 2
"""Pipelines that a ranking needs."""
CHANGES = ("data_fraction=", "base=", "search.seed=", "datasets.", "actions.", "evaluation.", "tasks.")
"""Beginnings of overrides that make another scale."""


@dataclass(frozen=True)
class Transferred(Replayed):
    """The best pipelines of a search and a spread of its others at another scale."""

    top: int = 5
    """How many of the best pipelines were taken."""
    agreement: RankAgreement | None = None
    """How the two rankings agree; None with `dry_run`, and where fewer than two pipelines could be made."""
    left_out: tuple[str, ...] = ()
    """Run ids of the pipelines that could not be made again."""


def transfer(
    search_run_id: str | None = None,
    overrides: Overrides = (),
    *,
    experiment: str | None = None,
    config_dir: str | Path | None = None,
    dry_run: bool = False,
    progress: bool = True,
) -> Transferred:
    """The best pipelines of a search and a spread of its others made again, and whether their ranking holds.

    Args:
        search_run_id: MLflow run of a search; None: the newest finished search of `tracking.experiment`.
        overrides: What is other than it was, as for `replay`; `transfer.top` and `transfer.spread` say how many.
        experiment: As for `search`.
        config_dir: As for `search`.
        dry_run: Only list the steps.
        progress: As for `search`.

    Raises:
        UserError: there is no such search, too little in it, or nothing would be other than it was.
        NotReplayed: not one pipeline could be made.
        KeyboardInterrupt: as for `search`.
    """
    composed = compose(experiment, overrides, config_dir)
    return transferred(composed, search_run_id, terminal(progress), dry_run)


def transferred(composed: Composed, search_run_id: str | None, view: "Terminal", dry_run: bool = False) -> Transferred:
    """`transfer` with a configuration that is composed already."""
    config = read(composed.node)
    top, dry_run = config.transfer.top, dry_run or config.dry_run
    setup = _arranged(composed, config, search_run_id)
    replayed, ended = carried_out(setup, view, dry_run, lambda ended: _write(ended, top))
    if ended is None:
        return Transferred(**vars(replayed), top=top)
    return Transferred(**vars(replayed), top=top, agreement=_compared(ended, top), left_out=_left_out(ended))


def picked(ranked: "Sequence[RunRecord]", top: int, spread: int) -> "list[RunRecord]":
    """The first `top`, and `spread` of the rest at even distances, the last one included."""
    rest = ranked[top:]
    if spread >= len(rest):
        return list(ranked)
    places = sorted({round((number + 1) * len(rest) / spread) - 1 for number in range(spread)})
    return [*ranked[:top], *(rest[place] for place in places)]


def _arranged(composed: Composed, config: Config, search_run_id: str | None) -> "ReplaySetup":
    quiet_libraries()
    from lamdagent.scaling.pipeline_records import read_pipelines
    from lamdagent.scaling.replay_setup import make_replay_setup

    store, search = _search_to_compare(config, search_run_id)
    chosen = picked(_ranked(store, search), config.transfer.top, config.transfer.spread)
    if len(chosen) < FEWEST:
        said = f"the search {search.run_id} has {len(chosen)} pipelines with a score on its tasks"
        raise UserError(f"transfer: {said}, and a ranking needs {FEWEST}")
    run_ids = [record.run_id for record in chosen]
    past = read_pipelines(store, run_ids)
    setup = make_replay_setup(past, len(run_ids), composed.node, composed.overrides, store.experiment)
    if not any(word.lstrip("+").startswith(CHANGES) for word in composed.overrides):
        wanted = "such as data_fraction=1.0, base=... or search.seed=1"
        raise UserError(f"transfer: the scale is what it was; say what is other now, {wanted}")
    return setup


def _search_to_compare(config: Config, search_run_id: str | None) -> "tuple[RunStore, RunRecord]":
    from lamdagent.api.trials import existing_store
    from lamdagent.scaling.pipeline_records import last_search
    from lamdagent.tracking.reading import open_store_of, read_run

    if search_run_id is None:
        store = existing_store(config, "transfer")
        search = last_search(store)
    else:
        store = open_store_of(config.tracking.uri, search_run_id)
        search = read_run(store, search_run_id)
    if search.kind != "search" or search.status == "RUNNING":
        state = "has not ended" if search.kind == "search" else "is no search"
        raise UserError(f"transfer: the run {search.run_id} {state}; give the run id of a search that has ended")
    return store, search


def _ranked(store: "RunStore", search: "RunRecord") -> "list[RunRecord]":
    """Runs that the search chose, best first on its own tasks."""
    from lamdagent.planning.plan import make_outline
    from lamdagent.scaling.pipeline_records import chosen_by, settings_of

    settings = read(OmegaConf.create(dict(settings_of(store, search.run_id))))
    tasks = make_outline(replace(settings, actions={}, memory=MemoryConfig())).tasks
    scored = [(value, record) for record in chosen_by(store, search.run_id) if (value := _score(record, tasks))]
    return [record for _, record in sorted(scored, key=lambda pair: -pair[0])]


def _score(record: "RunRecord", tasks: Sequence[Task]) -> float | None:
    from lamdagent.memory.scores import scores_on

    score = weighted_score(tasks, scores_on(record, tasks, schema.TASK_PREFIX))
    return score.value if score else None


def _scored(pairs: Sequence[Pair]) -> list[Pair]:
    return [pair for pair in pairs if pair.then.score and pair.now.score]


def _compared(ended: "Ended", top: int) -> RankAgreement | None:
    pairs = _scored(pairs_of(ended.steps))
    scores = [(pair.then.score, pair.now.score) for pair in pairs]
    known = [(then, now) for then, now in scores if then and now]
    return rank_agreement(known, top) if len(known) >= FEWEST else None


def _left_out(ended: "Ended") -> tuple[str, ...]:
    return tuple(step.source.run_id for step in ended.steps if step.state != "made")


def _write(ended: "Ended", top: int) -> None:
    """Metrics and an artifact of the search run."""
    store, run_id = ended.store, ended.result.search_run_id
    found = _compared(ended, top)
    figures = found.record if found else {}
    rows = [{"then": _plain(pair.then), "now": _plain(pair.now)} for pair in _scored(pairs_of(ended.steps))]
    text = json_text({**figures, "pairs": rows, "left_out": list(_left_out(ended))})
    metrics = {f"transfer.{key}": float(value) for key, value in figures.items() if value is not None}
    store.update(run_id, metrics=metrics, texts={schema.TRANSFER: text})


def _plain(trial: Trial) -> dict[str, Any]:
    assert trial.score
    return {"run_id": trial.run_id, "score": trial.score.value, "stderr": trial.score.stderr}
