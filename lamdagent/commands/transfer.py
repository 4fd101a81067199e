"""`python -m lamdagent transfer`: does the ranking of a search's pipelines hold at another scale (paper, section 5)?"""

from typing import TYPE_CHECKING

from lamdagent.commands import Command, Request

if TYPE_CHECKING:
    from lamdagent.api.transferring import Transferred
    from lamdagent.loop.terminal import Terminal
    from lamdagent.scaling.rank_agreement import RankAgreement

HELP = """python -m lamdagent transfer [RUN_ID] [+experiment=NAME] [top=5] [spread=5] [key=value ...]

Makes the best pipelines of a search and a spread of its others again at another scale, and tells whether the ranking
holds there: rank correlation, whether the best stays the best, and what is lost if it does not. RUN_ID is that of a
search run; without it, the newest finished search of the experiment is taken. What may change is as for replay.

  top=5                        so many of the best pipelines
  spread=5                     and so many others, at even distances in the ranking, the worst included
  dry_run=true                 only lists the steps"""
HEADS = ("then", "now", "score then", "score now", "model now", "pipeline")


def run(request: Request) -> None:
    """Replay the best pipelines of a search and a spread of its others, and compare.

    Raises:
        UserError: there is no such search, too little in it, or nothing would be other than it was.
        NotReplayed: not one pipeline could be made.
    """
    from lamdagent.api.transferring import transferred
    from lamdagent.commands.replay import show_steps
    from lamdagent.loop.terminal import Terminal

    view = Terminal()
    found = transferred(request.composed, request.run_id, view)
    if found.result is None:
        show_steps(found, view)
        return
    _show(found, view)
    lines = [("fewer than two pipelines were made again: there is no ranking to compare", "red")]
    for line, style in sentences(found.agreement, found.top, len(found.left_out)) if found.agreement else lines:
        view.say(line, style)
    from lamdagent.commands.search import report

    report(found.result, found.plan, view)


def sentences(found: "RankAgreement", top: int, left_out: int) -> list[tuple[str, str]]:
    """Lines that put the figures into words, each with its style."""
    from lamdagent.scaling.rank_agreement import SURVIVES

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


def _show(found: "Transferred", view: "Terminal") -> None:
    title = "The same pipelines at the two scales; +- is one standard error"
    view.table(title, HEADS, _rows(found), right={*HEADS} - {"model now", "pipeline"})


def _rows(found: "Transferred") -> list[list[str]]:
    from lamdagent.memory.lineage import format_score, lineage_string

    pairs = [pair for pair in found.pairs if pair.then.score and pair.now.score]
    best_first = sorted((pair.now.score.value for pair in pairs if pair.now.score), reverse=True)
    rows = []
    for place, pair in enumerate(pairs, 1):
        then, now = pair.then, pair.now
        assert then.model and now.model and now.score
        rank = best_first.index(now.score.value) + 1
        line = lineage_string(then.model, found.past)
        rows.append([str(place), str(rank), format_score(then.score), format_score(now.score), now.model.name, line])
    return rows


COMMAND = Command(
    "transfer", HELP, run, takes_run_id=True, shorthands={"top": "transfer.top", "spread": "transfer.spread"}
)
