"""`import lamdagent`: what the command line can do, as functions in this process; one search serves most tests."""

import contextlib
import io
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import mlflow
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

import lamdagent
from lamdagent.api import composing
from lamdagent.config import conf_folder, read
from lamdagent.tracking.fluent import ADDRESS, fluent_state_kept
from tests.searches import ROOT, client_of, of_kind, runs_of
from tests.stunts import FOLDER

SMOKE = {"execution": "inline", "budget.trials": 4, "search.test_top": 1}
CONF = ROOT / "tests" / "conf"


def python(code: str, folder: Path, **environment: str) -> str:
    """What the code prints in a process of its own."""
    (folder / "script.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class TestImport:
    def test_it_loads_nothing_else(self, tmp_path: Path) -> None:
        code = "import sys, typing\nbefore = {*sys.modules}\nimport lamdagent\nprint({*sys.modules} - before)"
        assert python(code, tmp_path).strip() == "{'lamdagent'}"

    def test_every_member_is_there_and_says_what_it_is(self) -> None:
        assert lamdagent.__all__ == sorted(lamdagent.__all__) and {*lamdagent.__all__} <= {*dir(lamdagent)}
        for name in {*lamdagent.__all__} - {"__version__"}:
            assert getattr(lamdagent, name).__doc__, name
        with pytest.raises(AttributeError, match="no attribute 'serch'"):
            _ = lamdagent.serch  # type: ignore[attr-defined]

    def test_no_module_can_take_the_name_of_a_member(self) -> None:
        assert not [name for name in lamdagent.__all__ if find_spec(f"lamdagent.{name}")]

    def test_members_stay_when_everything_is_imported(self, tmp_path: Path) -> None:
        code = (
            "import pkgutil, importlib, lamdagent\n"
            "for found in pkgutil.walk_packages(lamdagent.__path__, 'lamdagent.'):\n"
            "    if not found.name.endswith(('__main__', 'worker.register')) and '.tasks.' not in found.name:\n"
            "        importlib.import_module(found.name)\n"
            "print([getattr(lamdagent, name).__name__ for name in ('rebuild', 'search', 'history', 'prune')])\n"
        )
        assert python(code, tmp_path).strip() == "['rebuild', 'search', 'history', 'prune']"

    def test_types_travel_with_the_package(self) -> None:
        assert Path(lamdagent.__file__).with_name("py.typed").is_file()


VALUES = [
    None,
    True,
    4,
    -2.5e-07,
    "word",
    "null",
    "3",
    "",
    "it's a \\'quoted\\' text, {with} [all] of: it = # and \\",
    [1, "two", [None]],
    {"a": {"b c": "d"}, "e": []},
]


class TestComposing:
    @pytest.mark.parametrize("value", VALUES, ids=repr)
    def test_a_value_arrives_as_it_is(self, value: Any) -> None:
        node = composing.compose("smoke", {"datasets.pico_spell.arguments": {"given": value}}).node
        assert composing.OmegaConf.to_container(node.datasets.pico_spell.arguments)["given"] == value

    def test_words_and_mapping_compose_to_what_the_command_line_does(self) -> None:
        words = ["agent=random", "budget.trials=4", "~actions.dpo_lora"]
        with initialize_config_dir(str(conf_folder()), version_base="1.3"):
            expected = compose("config", ["+experiment=smoke", *words])
        mapping = {"agent": "random", "budget.trials": 4, "~actions.dpo_lora": None}
        for overrides in (words, mapping):
            assert composing.compose("smoke", overrides).node == expected

    def test_groups_of_the_user_come_after_ours(self, tmp_path: Path) -> None:
        (tmp_path / "it's mine" / "experiment").mkdir(parents=True)
        (tmp_path / "it's mine" / "experiment" / "own.yaml").write_text("# @package _global_\nsearch: {seed: 11}\n")
        node = composing.compose("own", {"agent": "random"}, tmp_path / "it's mine").node
        assert (node.search.seed, node.agent.kind) == (11, "random")

    def test_a_new_key_is_one_of_all_faults(self) -> None:
        with pytest.raises(lamdagent.ConfigError) as caught:
            read(composing.compose("smoke", {"budget.tirals": 3, "models.pico.sauce": 1}).node)
        assert len(caught.value.faults) == 2 and "did you mean 'trials'" in str(caught.value)

    def test_the_hydra_of_the_caller_is_as_before(self) -> None:
        assert not GlobalHydra.instance().is_initialized()
        composing.compose("smoke")
        assert not GlobalHydra.instance().is_initialized()
        with initialize_config_dir(str(CONF), version_base=None):
            theirs = GlobalHydra.instance().hydra
            composing.compose("smoke")
            assert GlobalHydra.instance().hydra is theirs


FAULTS: dict[str, tuple[Any, ...]] = {
    "no such experiment": ({"experiment": "nothing"}, "nothing"),
    "no such key of Hydra": ({"overrides": ["serch.seed=1"]}, "serch"),
    "no such folder": ({"config_dir": "nowhere"}, "config_dir: got 'nowhere'"),
    "one text": ({"overrides": "budget.trials=1"}, "wanted a mapping or a list"),
    "an unset variable": ({"overrides": ["tracking.experiment=${oc.env:NOT_SET_ANYWHERE}"]}, "NOT_SET_ANYWHERE"),
    "another base": ({"experiment": "smoke", "overrides": {"base": "elsewhere"}}, "base: got 'elsewhere'"),
    "wrong value": ({"experiment": "smoke", "overrides": {"budget.trials": "many"}}, "budget.trials: got 'many'"),
    "paper only": ({"experiment": "smoke", "overrides": {"dry_run": True}}, "lamdagent.plan"),
}


@pytest.mark.parametrize(("arguments", "said"), FAULTS.values(), ids=FAULTS)
def test_faults_are_exceptions(
    arguments: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(lamdagent.UserError, match=said.replace("[", r"\[")):
        lamdagent.search(**arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ask", [lamdagent.history, lamdagent.sources, lamdagent.prune, lamdagent.transfer])
def test_without_a_store_there_is_nothing_to_tell(ask: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(lamdagent.UserError, match="there is no store at"):
        ask(experiment="smoke")
    for again in (lamdagent.replay, lamdagent.rebuild):
        with pytest.raises(lamdagent.UserError, match="there is no store at"):
            again("0" * 32)
    assert not list(tmp_path.iterdir())


def surroundings() -> tuple[Any, ...]:
    """What a function of ours must leave as it was."""
    loggers = [logging.getLogger(name) for name in ("", "lamdagent", "hydra")]
    return (
        os.getcwd(),
        os.environ.get("MLFLOW_TRACKING_URI"),
        [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        [(one.level, [h for h in one.handlers if "pytest" not in type(h).__module__], one.disabled) for one in loggers],
        GlobalHydra.instance().is_initialized(),
    )


def test_mlflow_in_the_same_process_keeps_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    before = mlflow.get_tracking_uri()
    for variable in ("sqlite:///of-the-user.db", None):
        monkeypatch.delenv(ADDRESS, raising=False)
        if variable is not None:
            monkeypatch.setenv(ADDRESS, variable)
        expected = mlflow.get_tracking_uri()
        level = logging.getLogger("mlflow").level
        with fluent_state_kept():
            mlflow.set_tracking_uri("sqlite:///of-a-search.db")
            logging.getLogger("mlflow").setLevel(logging.CRITICAL)
        assert mlflow.get_tracking_uri() == expected and os.environ.get(ADDRESS) == variable
        assert logging.getLogger("mlflow").level == level
    monkeypatch.undo()
    assert mlflow.get_tracking_uri() == before


@dataclass
class Shelf:
    """A search that has ended, its folder, and what was printed."""

    folder: Path
    result: lamdagent.Result
    output: str
    before: tuple[Any, ...]
    after: tuple[Any, ...]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    """The folder of the search is the current one as long as these tests last."""
    folder = tmp_path_factory.mktemp("api")
    output = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        before = surroundings()
        with contextlib.redirect_stdout(output):
            result = lamdagent.search("smoke", SMOKE)
        yield Shelf(folder, result, output.getvalue(), before, surroundings())


@pytest.mark.slow
class TestSearch:
    def test_what_comes_back_is_what_the_store_has(self, shelf: Shelf) -> None:
        result, runs = shelf.result, runs_of(shelf.folder, "lamdagent-smoke")
        assert result.search_run_id == runs[0].info.run_id and runs[0].info.status == "FINISHED"
        assert [trial.run_id for trial in result.history] == [run.info.run_id for run in runs[1:]]
        assert result.champion is not None and result.champion in result.history.best
        assert {promotion.trial.run_id for promotion in result.promotions} <= {t.run_id for t in result.history}
        assert result.reason == "4 trials are done" and result.experiment == "lamdagent-smoke"
        assert result.tracking_uri == f"sqlite:///{shelf.folder}/mlflow.db"

    def test_progress_is_plain_lines_and_no_table(self, shelf: Shelf) -> None:
        assert "> 4/4 " in shelf.output and "store: sqlite" in shelf.output and "\x1b" not in shelf.output
        assert "Best first" not in shelf.output and "┏" not in shelf.output

    def test_a_copy_of_the_file_has_everything_while_this_process_lives(self, shelf: Shelf, tmp_path: Path) -> None:
        shutil.copy(shelf.folder / "mlflow.db", tmp_path)
        here = [(run.info.run_id, run.info.status) for run in runs_of(shelf.folder, "lamdagent-smoke")]
        assert [(run.info.run_id, run.info.status) for run in runs_of(tmp_path, "lamdagent-smoke")] == here

    def test_surroundings_are_as_before(self, shelf: Shelf) -> None:
        assert shelf.after == shelf.before

    def test_it_shows_its_leaderboard(self, shelf: Shelf) -> None:
        best = shelf.result.history.best[0]
        assert best.model is not None and best.score is not None
        for shown in (repr(shelf.result), shelf.result._repr_html_()):
            assert best.model.name in shown and f"{best.score.value:.3f} +- " in shown and "Champion: model-" in shown
        assert repr(shelf.result.history) == "<5 trials: 5 finished>"

    def test_the_report_is_the_page(self, shelf: Shelf) -> None:
        page = shelf.result.report_html()
        assert page.startswith("<!DOCTYPE html>") and shelf.result.search_run_id in page

    def test_a_password_is_not_shown(self, shelf: Shelf) -> None:
        result = lamdagent.Result(**{**vars(shelf.result), "tracking_uri": "postgresql://me:secret@host/db"})
        assert result.address == "postgresql://me:***@host/db" or "secret" not in result.address
        assert "secret" not in repr(result) + result._repr_html_()

    def test_the_plan_runs_nothing(self, shelf: Shelf) -> None:
        before = len(runs_of(shelf.folder, "lamdagent-smoke"))
        plan = lamdagent.plan("smoke", {"budget.trials": 9})
        assert plan.config.budget.trials == 9 and {kind.name for kind in plan.types} >= {"sft_full", "merge_ties"}
        assert plan.datasets[0].rows > 0 and len(runs_of(shelf.folder, "lamdagent-smoke")) == before

    def test_again_in_the_same_process_and_elsewhere(self, shelf: Shelf, tmp_path: Path) -> None:
        uri = f"sqlite:///{tmp_path}/other.db"
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            other = lamdagent.search("smoke", {**SMOKE, "budget.trials": 1, "tracking.uri": uri}, progress=False)
        assert len(other.history) == 2 and other.tracking_uri == uri and output.getvalue() == ""
        assert len(lamdagent.history("smoke")) == len(shelf.result.history)
        assert surroundings() == shelf.before


@pytest.mark.slow
class TestHistory:
    def test_a_frame_has_a_row_for_each_trial(self, shelf: Shelf) -> None:
        frame = lamdagent.history("smoke").to_frame().set_index("run_id")
        runs = runs_of(shelf.folder, "lamdagent-smoke")[1:]
        assert list(frame.index) == [run.info.run_id for run in runs]
        assert {*"kind status action parents policy reason seconds pipeline failure".split()} <= {*frame.columns}
        for run in of_kind(runs, "action"):
            row = frame.loc[run.info.run_id]
            assert row["action"] == run.data.params["action"] and row["status"] == "finished"
            for key in ("score", "score_stderr", "task.repeat", "task.spell", "task.spell_stderr"):
                assert row[key] == pytest.approx(run.data.metrics[key])
        assert frame["started"].is_monotonic_increasing and str(frame["started"].dtype).endswith("UTC]")

    def test_the_tasks_of_the_last_search_will_do(self, shelf: Shelf) -> None:
        known = lamdagent.history(overrides={"tracking.experiment": "lamdagent-smoke"})
        assert [trial.score for trial in known] == [trial.score for trial in lamdagent.history("smoke")]
        assert known.tasks == shelf.result.history.tasks

    def test_what_others_have_is_an_experiment_with_a_suggestion(self, shelf: Shelf) -> None:
        client = client_of(shelf.folder)
        theirs = client.create_experiment("theirs")
        run = client.create_run(theirs)
        client.log_param(run.info.run_id, "learning_rate", "0.1")
        client.log_metric(run.info.run_id, "accuracy", 0.5)
        found = lamdagent.sources("smoke")
        assert "theirs" in {one.name for one in found.experiments} and "lamdagent-smoke" not in str(found.to_dict())
        assert list(found.suggested["memory"]["sources"]) == ["theirs"]
        given = {"memory.sources.theirs": {"mapping": "params", "experiments": ["theirs"]}}
        (reading,) = lamdagent.sources("smoke", given).readings["theirs"]
        assert reading.run_id == run.info.run_id and (reading.trial or reading.skipped)

    def test_an_experiment_that_is_not_there(self, shelf: Shelf) -> None:
        for ask in (lamdagent.history, lamdagent.prune):
            with pytest.raises(lamdagent.UserError, match="no experiment 'nowhere'"):
                ask("smoke", {"tracking.experiment": "nowhere"})
        with pytest.raises(lamdagent.UserError, match="no tasks are given"):
            lamdagent.prune()


@pytest.mark.slow
class TestAgain:
    def test_pruned_weights_are_rebuilt(self, shelf: Shelf) -> None:
        scarce = {"retention.keep_best": 1, "search.test_top": 1, "~tasks.spell": None}
        shown = lamdagent.prune("smoke", scarce, dry_run=True)
        assert shown.gone and shown.kept and shown.freed_bytes == 0
        assert {one.trial.run_id for one in shown.weights} == {t.run_id for t in shelf.result.history.history.actions}
        done = lamdagent.prune("smoke", scarce)
        assert done.freed_bytes == sum(one.bytes for one in shown.gone) > 0
        run_id = done.gone[0].trial.run_id
        weights = Path(client_of(shelf.folder).get_run(run_id).info.artifact_uri) / "model"
        assert not weights.exists()
        rebuilt = lamdagent.rebuild(run_id, {"execution": "inline"}, progress=False)
        assert (rebuilt.run_id, rebuilt.proof) == (run_id, "the same weights, by checksum") and weights.exists()
        with pytest.raises(lamdagent.UserError, match="has its weights"):
            lamdagent.rebuild(run_id)

    def test_a_pipeline_is_replayed(self, shelf: Shelf) -> None:
        first = next(t for t in shelf.result.history if t.kind == "action")
        given = {"search.seed": 5, "execution": "inline"}
        paper = lamdagent.replay(first.run_id, given, dry_run=True)
        assert [step.run_id for step in paper.steps] == [first.run_id] and paper.changes == {"search.seed": 5}
        assert paper.result is None and paper.pairs == ()
        done = lamdagent.replay(first.run_id, given, progress=False)
        (pair,) = done.pairs
        assert pair.then.run_id == first.run_id and pair.now.action and pair.now.action.seed == 5
        assert done.result is not None and pair.now.run_id in {trial.run_id for trial in done.result.history}

    def test_a_ranking_is_transferred(self, shelf: Shelf) -> None:
        given = {"search.seed": 6, "execution": "inline", "transfer.top": 1, "transfer.spread": 1}
        done = lamdagent.transfer(shelf.result.search_run_id, given, progress=False)
        assert len(done.pairs) == 2 and done.agreement is not None and done.agreement.pipelines == 2
        assert done.left_out == () and done.result is not None
        path = client_of(shelf.folder).download_artifacts(done.result.search_run_id, "transfer.json")
        assert json.loads(Path(path).read_text())["regret"] == done.agreement.regret
        with pytest.raises(lamdagent.UserError, match="the scale is what it was"):
            lamdagent.transfer(shelf.result.search_run_id)
        with pytest.raises(lamdagent.UserError, match="wanted|is a search"):
            lamdagent.replay(shelf.result.search_run_id, dry_run=True)


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shelf: Shelf) -> Path:
    """The first call of the action `gated` waits until the file `block` says 0."""
    monkeypatch.setenv(FOLDER, str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "block").write_text("1")
    return tmp_path


GATED = ["+action=gated", "~actions.nudge", "budget.trials=2", "execution=inline"]


def interrupting(gate: Path, times: int) -> threading.Thread:
    """Presses Ctrl-C so often while the first action runs, then lets it end."""

    def press() -> None:
        while not (gate / "ran").exists():
            time.sleep(0.05)
        for _ in range(times):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.5)
        (gate / "block").write_text("0")

    thread = threading.Thread(target=press)
    thread.start()
    return thread


@pytest.mark.slow
@pytest.mark.parametrize(
    ("times", "states"), [(1, ["KILLED", "FINISHED", "FINISHED"]), (2, ["KILLED", "FINISHED", "FAILED"])]
)
def test_ctrl_c_ends_a_search_cleanly(gate: Path, shelf: Shelf, times: int, states: list[str]) -> None:
    """Once: after what runs now; twice: at once. The same call goes on."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    thread, before = interrupting(gate, times), surroundings()
    with pytest.raises(KeyboardInterrupt, match="the same call goes on"):
        lamdagent.search("stunts", GATED, config_dir=CONF, progress=False)
    thread.join()
    assert surroundings() == before
    assert [run.info.status for run in runs_of(gate, "stunts")] == states, "search, base, action"
    done = lamdagent.search("stunts", GATED, config_dir=CONF, progress=False)
    runs = runs_of(gate, "stunts")
    assert len(of_kind(runs, "search")) == 1 and runs[0].info.run_id == done.search_run_id


@pytest.mark.slow
def test_a_search_in_another_thread_handles_no_signals(gate: Path) -> None:
    (gate / "block").write_text("0")
    found: list[Any] = []

    def work() -> None:
        found.append(signal.getsignal(signal.SIGINT))
        found.append(lamdagent.search("stunts", [*GATED, "budget.trials=1"], config_dir=CONF, progress=False))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(found[1].history) == 2 and signal.getsignal(signal.SIGINT) is found[0]


def test_a_script_needs_no_guard(tmp_path: Path) -> None:
    """Its worker does not run it again; nor need the worker be started in the main thread."""
    code = (
        "import threading\n"
        "from lamdagent.execution.executor import Job\n"
        "from lamdagent.execution.local import LocalExecutor\n"
        "def work():\n"
        "    worker = LocalExecutor(warm_up=())\n"
        "    worker.submit(Job('job', 'tests.jobs:add', {'a': 1, 'b': 2}, 60.0))\n"
        "    print(worker.next_event(60.0).progress.phase, worker.next_event(60.0).value)\n"
        "    worker.close()\n"
        "work()\n"
        "thread = threading.Thread(target=work)\n"
        "thread.start()\n"
        "thread.join()\n"
    )
    assert python(code, tmp_path).splitlines() == ["add 3", "add 3"]
