"""`python -m lamdagent replay RUN_ID`: the pipeline that made a run, made again at another scale."""

from collections.abc import Callable, Sequence

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from lamdagent.commands.search import carry_out
from lamdagent.config import read
from lamdagent.errors import UserError
from lamdagent.libraries import quiet_libraries
from lamdagent.loop.search import Search
from lamdagent.loop.terminal import Terminal
from lamdagent.memory.lineage import figure
from lamdagent.memory.trial import History
from lamdagent.scaling.pipeline_records import read_past
from lamdagent.scaling.replay_setup import Arrangement, arrange
from lamdagent.tracking.reading import open_store_of


def start(node: DictConfig, words: Sequence[str]) -> None:
    """Replay the run that the command line names.

    Raises:
        UserError: there is nothing to replay, or something that it needs is not there.
        NotReplayed: a step failed.
    """
    if len(words) != 1:
        given = " ".join(words) or "none"
        raise UserError(f"replay: got {given}, wanted one run id: python -m lamdagent replay RUN_ID data_fraction=1.0")
    quiet_libraries()
    config = read(node)
    store = open_store_of(config.tracking.uri, words[0])
    view = Terminal()
    arrangement = arrange(read_past(store, words), 1, node, overrides(), store.experiment)
    begin(arrangement, view, config.dry_run, tell)


def begin(arrangement: Arrangement, view: Terminal, dry_run: bool, conclude: Callable[[Search, History], None]) -> None:
    """Carry it out up to `conclude`, or only list its steps."""
    for warning in arrangement.warnings:
        view.say(warning, "yellow")
    if dry_run:
        show_steps(arrangement, view)
    else:
        carry_out(arrangement.plan, arrangement.config_yaml, view, conclude)


def overrides() -> list[str]:
    """The words of the command line that Hydra has taken."""
    return list(HydraConfig.get().overrides.task)


def show_steps(arrangement: Arrangement, view: Terminal) -> None:
    """Every step once, inputs before their uses."""
    replay = arrangement.plan.replay
    assert replay is not None
    for number, trial in enumerate(replay.sources, 1):
        assert trial.action is not None
        view.say(f"{number:3d}  {trial.action.describe()}  (run {trial.run_id}, score {figure(trial.score)})")
    scale = replay.scale
    changes = {"data_fraction": scale.fraction, "search.seed": scale.seed, "base": ", ".join(replay.bases.values())}
    said = [f"{key}={value}" for key, value in changes.items() if value not in (None, "")]
    said += [f"{name}.{key}={value}" for name, values in scale.settings.items() for key, value in values.items()]
    view.say(f"{len(replay.sources)} steps, with {', '.join(said) or 'nothing changed'}; nothing was run")


def tell(search: Search, history: History) -> None:
    """A line for each pipeline: what it scored, and what it scores now."""
    assert search.replaying is not None
    for step in search.replaying.results(history):
        then, now = step.source, step.trial
        if step.state == "made" and now is not None:
            test = f", {figure(now.test_score)} on the test split" if now.test_score else ""
            said = f"{figure(then.score)} then, {figure(now.score)} now{test}"
            search.view.say(f"replayed  {then.run_id}: {said}; the run {now.run_id}", "green")
