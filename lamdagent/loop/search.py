"""A search from its first model to its champion, by the loop of the paper.

The loop: enumerate, select, execute and evaluate, remember.

The design, from the outside in:

- `World` (world.py, frozen) is everything that a search talks to. `Session` (session.py) is the state of one search.
- `Phase` (phases.py, frozen) is a part of the search with one policy: explore, replay, a rung of the ladder, the seed
  repeats. Modes are values of its fields. The phase of a rung is made from the history of the rung below.
- `loop` (turns.py) takes turns in a phase. A turn reads the history and asks the policy; `decide` (decide.py) answers
  `Start`, `Reuse`, `Rescore`, `Wait` or `Stop`, and a start can turn out to be `ClaimedElsewhere`.
- `landed` (landed.py) turns a job that has ended into effects: `Finish`, `Fail`, `Retry`, `Reflect`, `Prune`.
- effects.py performs both; no other file of the loop opens, closes or executes an action.
- `Ledger` (ledger.py) is the one place that counts trials, LLM dollars, GPU time, failures in a row and open runs. It
  is a value: `landed` returns the next one. `Limits` (limits.py) and estimates.py are functions of it.
- preparation.py comes before the first phase, conclusion.py after the last one.

Everything that a search knows is in the store, so resuming is the normal path: the same command opens the same search
run, reads the history and goes on.
"""

from lamdagent.loop.conclusion import conclude
from lamdagent.loop.phases import Phase, phases
from lamdagent.loop.preparation import prepare, read_sources, resume, score_bases
from lamdagent.loop.session import Session, closing
from lamdagent.loop.turns import close_replay, loop
from lamdagent.loop.world import Result, World


def run(world: World) -> Result:
    """Search until the budget ends or nothing is left to try, then test the best. The search run is closed in any case.

    Raises:
        UserError: an initial model cannot be read or scored.
        NotReplayed: a replay could not make any of its pipelines.
        SearchStopped: no action can work now; the other running jobs have ended before.
        KeyboardInterrupt: the user has ended it; no run is left open.
    """
    search, reason = Session(world), ""
    prepare(search)
    with closing(search):
        resume(search)
        score_bases(search)
        read_sources(search)
        for phase in phases(world.plan, search.models, world.agent, search.limits, search.history, world.replay):
            reason = _go_through(phase, search, reason)
        return conclude(phase, search, reason)


def _go_through(phase: Phase, search: Session, before: str) -> str:
    """Why the phase ended; `before`: why the one before it ended."""
    if phase.announcement:
        search.world.view.say(f"{before}; now {phase.announcement}")
    search.enter(phase)
    reason = loop(phase, search)
    close_replay(phase, search, reason)
    return reason
