"""A store that is away costs nothing: what it cannot take is kept, shown, and written later, in order and once."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow.entities import Run

from lamdagent.config import Config
from lamdagent.errors import UserError
from lamdagent.loop.run_writer import RunWriter
from lamdagent.planning.plan import Plan
from lamdagent.tracking import connect, schema
from lamdagent.tracking.connect import open_client
from lamdagent.tracking.delivery import outbox
from lamdagent.tracking.delivery.outbox import outbox_root
from lamdagent.tracking.lineage import ModelEntry
from lamdagent.tracking.patch import PROVISIONAL
from lamdagent.tracking.searches import close_orphans, recover_writes, start_search
from lamdagent.tracking.store import RunStore
from tests import forkserver
from tests.builders import DATASETS, TASKS, TYPES
from tests.proxy import Proxy, proxy
from tests.searches import PATIENCE_S, begin, end, of_kind, tag
from tests.servers import free_port, postgresql, server

VICTIM = """
import sys
from pathlib import Path
from tests.test_outbox import action
from lamdagent.tracking.searches import start_search
from lamdagent.tracking.store import RunStore
store = RunStore(sys.argv[1], sys.argv[2])
search = start_search(store, "s", "a search", {}, "")
print("open", flush=True)
sys.stdin.readline()
for number in range(2):
    action(store, search, Path(sys.argv[3]), number)
print("kept", store.backlog.writes, flush=True)
sys.stdin.readline()
"""

DESERTER = """
import sys
from lamdagent.tracking.searches import start_search
from lamdagent.tracking.store import RunStore
for number in range(int(sys.argv[2])):
    store = RunStore(sys.argv[1], f"{sys.argv[3]} {number}")
    store.open(start_search(store, "s", "a search", {}, ""), "action", "an action", {}, {})
print("open", flush=True)
sys.stdin.readline()
"""


def desert(uri: str, count: int, name: str) -> None:
    """So many experiments, each with a search and an action that a killed process has left open."""
    command = [sys.executable, "-c", DESERTER, uri, str(count), name]
    victim = forkserver.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert victim.stdout and victim.stdout.readline()
    victim.kill()
    victim.communicate()


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with server(tmp_path_factory.mktemp("server")) as uri:
        yield uri


@pytest.fixture
def between(target: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    with proxy(target) as found:
        yield found


def action(store: RunStore, search: str, folder: Path, number: int, parents: tuple[str, ...] = ()) -> str:
    """A whole action run with weights, curves and a model."""
    tags = {schema.FINGERPRINT: f"{number}", schema.CLAIM: "asked"}
    run = store.open(search, "action", f"action {number}", tags, {"lr": 0.1}, parents=parents, text="done")
    assert store.claim(run)
    staging = folder / f"weights{number}"
    staging.mkdir()
    (staging / "config.json").write_text("{}")
    (staging / "model.safetensors").write_bytes(bytes([number]) * 100_000)
    entry = ModelEntry(f"model-{number}", f"runs:/{run}/model")
    curves = [("loss", 1.0 / (step + 1), step, 1000 + step) for step in range(20)]
    metrics = {"score": number / 10}
    tags = {schema.WEIGHTS: f"runs:/{run}/model"}
    store.finish(run, metrics=metrics, curves=curves, staging=staging, model=entry, tags=tags)
    return run


def stored(uri: str, experiment: str) -> list[Run]:
    """All runs, oldest first."""
    client = open_client(uri)
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    page = client.search_runs([found.experiment_id], order_by=["attributes.start_time ASC"], max_results=1000)
    return [client.get_run(run.info.run_id) for run in page]


def check(uri: str, experiment: str, count: int) -> list[Run]:
    """So many complete actions, each once, in order; nothing provisional is left."""
    client = open_client(uri)
    runs = stored(uri, experiment)
    actions = of_kind(runs, "action")
    assert [tag(run, "fingerprint") for run in actions] == [str(number) for number in range(count)]
    for number, run in enumerate(actions):
        run_id = run.info.run_id
        assert run.info.status == "FINISHED" and run.data.params["lr"] == "0.1"
        assert run.data.metrics["score"] == number / 10
        assert len(client.get_metric_history(run_id, "score")) == 1
        assert [m.step for m in client.get_metric_history(run_id, "loss")] == list(range(20))
        assert tag(run, "weights") == f"runs:/{run_id}/model"
        assert len(run.outputs.model_outputs) == 1
        own = {k: v for k, v in run.data.tags.items() if k != schema.PROVISIONAL}
        assert not PROVISIONAL.search(f"{own}")
        folder = RunStore(uri, experiment).weights(f"runs:/{run_id}/model")
        assert (folder / "model.safetensors").read_bytes() == bytes([number]) * 100_000
    return actions


@pytest.mark.slow
class TestOutage:
    def test_a_busy_server_gets_its_time(
        self, between: Proxy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(connect, "PROBE_TIMEOUT_S", 0.2)
        between.delay = 0.5
        try:
            RunStore(between.uri, "outage slow")
        finally:
            between.delay = 0.0
        assert f"Waiting for {between.uri} to answer." in caplog.messages

    @pytest.mark.parametrize("fault", ["drop", "500", "401"])
    def test_what_waits_is_shown_used_and_written_once(
        self, between: Proxy, target: str, tmp_path: Path, fault: str
    ) -> None:
        name = f"outage {fault}"
        store = RunStore(between.uri, name)
        search = start_search(store, "s", "a search", {}, "")
        first = action(store, search, tmp_path, 0)
        assert not store.backlog and not PROVISIONAL.fullmatch(first)
        store.runs()
        between.mode = fault
        second = action(store, search, tmp_path, 1, (first,))
        third = action(store, search, tmp_path, 2, (first, second))
        assert PROVISIONAL.fullmatch(second) and store.backlog
        shown = {run.run_id: run for run in store.runs()}
        assert shown[third].status == "FINISHED" and shown[third].metrics["score"] == 0.2
        assert (store.weights(f"runs:/{second}/model") / "config.json").is_file()
        assert store.find("no such") is None and close_orphans(store) == []
        between.mode = "up"
        assert store.flush(60)
        assert store.resolve_run_id(second) != second
        assert [run.status for run in store.runs() if run.kind == "action"] == ["FINISHED"] * 3
        actions = check(target, name, 3)
        assert tag(actions[2], "parents") == f'["{first}", "{store.resolve_run_id(second)}"]'
        assert f"/runs/{store.resolve_run_id(second)}" in actions[2].data.tags[schema.DESCRIPTION]
        assert not list(store.backlog.folder.parent.glob("*")), "nothing stays on disk"

    @pytest.mark.parametrize("seed", range(3))
    def test_a_bad_line_loses_and_doubles_nothing(self, between: Proxy, target: str, tmp_path: Path, seed: int) -> None:
        name = f"flaky {seed}"
        store = RunStore(between.uri, name)
        search = start_search(store, "s", "a search", {}, "")
        store.runs()
        between.random.seed(seed)
        between.mode, between.share = "flaky", 0.15
        for number in range(4):
            action(store, search, tmp_path, number)
            store.runs()
        between.share = 0.05
        assert store.flush(120)
        check(target, name, 4)

    def test_what_a_killed_process_kept_is_written_by_the_next_one(
        self, between: Proxy, target: str, tmp_path: Path
    ) -> None:
        command = [sys.executable, "-c", VICTIM, between.uri, "killed", str(tmp_path)]
        victim = forkserver.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert victim.stdin and victim.stdout
        assert victim.stdout.readline().strip() == "open"
        between.mode = "drop"
        victim.stdin.write("\n")
        victim.stdin.flush()
        assert victim.stdout.readline().startswith("kept")
        between.mode = "up"
        assert recover_writes(RunStore(between.uri, "killed")) == 0, "its process lives and will write it"
        victim.kill()
        victim.communicate()
        store = RunStore(between.uri, "killed")
        assert recover_writes(store) == 6
        check(target, "killed", 2)
        assert recover_writes(RunStore(between.uri, "killed")) == 0

    def test_a_lost_answer_makes_nothing_twice(self, between: Proxy, target: str, tmp_path: Path) -> None:
        name = "lost answers"
        store = RunStore(between.uri, name)
        search = start_search(store, "s", "a search", {}, "")
        parents: tuple[str, ...] = ()
        steps = (
            "runs/create",
            "log-batch",
            "runs/log-inputs",
            "mlflow-artifacts",
            "logged-models$",
            "outputs",
            "runs/update",
        )
        for number, step in enumerate(steps):
            between.lost = step
            parents = (store.resolve_run_id(action(store, search, tmp_path, number, parents)),)
            assert store.flush(60)
            assert not between.lost, "the request was made, and its answer lost"
        runs = check(target, name, len(steps))
        assert [len(run.inputs.model_inputs) for run in runs] == [0] + [1] * (len(steps) - 1)
        models = open_client(target).search_logged_models([store.experiment_id], max_results=100)
        assert len(models) == len(steps)

    def test_a_run_that_opens_in_an_outage_may_end_after_it(self, between: Proxy, target: str, tmp_path: Path) -> None:
        store = RunStore(between.uri, "over")
        search = start_search(store, "s", "a search", {}, "")
        between.mode = "drop"
        run = store.open(search, "action", "an action", {}, {})
        output = tmp_path / run
        for name in ("model", "samples"):
            (output / name).mkdir(parents=True)
            (output / name / "config.json").write_text("{}")
        between.mode = "up"
        assert store.flush(60) and store.resolve_run_id(run) != run
        folders = {"samples": output / "samples"}
        store.finish(run, metrics={"score": 1.0}, staging=output / "model", folders=folders)
        assert store.available and (store.weights(f"runs:/{run}/model") / "config.json").is_file()
        found = open_client(target).list_artifacts(store.resolve_run_id(run), "samples")
        assert [file.path for file in found] == ["samples/config.json"]

    def test_orphans_are_closed_wherever_the_line_is_cut(self, between: Proxy, target: str, tmp_path: Path) -> None:
        cuts = range(7)
        desert(target, len(cuts), "orphans")
        for cut in cuts:
            store = RunStore(between.uri, f"orphans {cut}")
            assert len(store.runs()) == 2
            between.left = cut
            close_orphans(store)
            between.left = None
            until = time.monotonic() + 60
            while [run for run in store.runs() if run.status == "RUNNING"] or store.backlog:
                assert time.monotonic() < until
                close_orphans(store)
                time.sleep(0.3)
            runs = stored(target, f"orphans {cut}")
            assert [(run.info.status, tag(run, "failure_kind")) for run in runs] == [("FAILED", "orphan")] * 2

    def test_a_search_goes_on_wherever_the_line_is_cut_at_its_start(self, between: Proxy, target: str) -> None:
        cuts = range(12)
        desert(target, len(cuts), "goes on")
        plan = Plan(Config(), TYPES, DATASETS, TASKS)
        for cut in cuts:
            journal = RunWriter(RunStore(between.uri, f"goes on {cut}"), plan, "")
            between.left = cut
            mended = threading.Timer(0.7, setattr, (between, "left", None))
            mended.start()
            assert journal.search_run.open("s").trials == 0, "what a killed process was at is no trial"
            mended.join()
            until = time.monotonic() + 60
            while [r for r in journal.search_run.records() if r.status == "RUNNING" and r.kind == "action"]:
                assert time.monotonic() < until
                time.sleep(0.3)
            journal.search_run.close("FINISHED", "")
            assert journal.store.flush(60)
            runs = stored(target, f"goes on {cut}")
            assert [(tag(run, "kind"), run.info.status) for run in runs] == [
                ("search", "FINISHED"),
                ("action", "FAILED"),
            ], cut

    def test_what_always_fails_is_set_aside_in_the_end(
        self, between: Proxy, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = RunStore(between.uri, "stuck")
        search = start_search(store, "s", "a search", {}, "")
        between.broken = "poison.txt"
        store.update(search, texts={"poison.txt": "no server likes this"})
        action(store, search, tmp_path, 0)
        assert not store.flush(4), "it may still be a fault that passes"
        assert recover_writes(RunStore(between.uri, "stuck")) == 0, "its process lives"
        assert {run.status for run in store.runs()} == {"RUNNING", "FINISHED"}
        monkeypatch.setattr(outbox, "LONGEST_S", 1.0)
        monkeypatch.setattr(outbox, "MOST_FAILURES", 3)
        assert store.flush(60)
        check(target, "stuck", 1)
        (reason,) = (store.backlog.folder.parent / "refused").glob("*/reason.txt")
        assert "500" in reason.read_text()

    def test_a_store_that_never_took_a_write_is_no_outage(self, between: Proxy) -> None:
        store = RunStore(between.uri, "read only")
        between.broken = "runs/create"
        with pytest.raises(UserError, match="takes no writes"):
            start_search(store, "s", "a search", {}, "")

    def test_what_the_store_refuses_for_good_is_set_aside(self, between: Proxy, target: str, tmp_path: Path) -> None:
        store = RunStore(between.uri, "poisoned")
        search = start_search(store, "s", "a search", {}, "")
        store.runs()
        between.mode = "drop"
        poisoned = store.open(search, "action", "poisoned", {schema.FINGERPRINT: "p"}, {})
        store.finish(poisoned, metrics={"an [illegal] name": 1.0})
        action(store, search, tmp_path, 0)
        between.mode = "up"
        assert store.flush(60)
        runs = {run.info.run_name: run for run in stored(target, "poisoned")}
        assert runs["action 0"].info.status == "FINISHED"
        assert runs["poisoned"].info.status == "FAILED" and tag(runs["poisoned"], "failure_kind") == "refused"
        kept = list((store.backlog.folder.parent / "refused").glob("*/change.json"))
        assert len(kept) == 1 and "illegal" in kept[0].with_name("reason.txt").read_text()


@pytest.mark.slow
def test_a_database_that_restarts_costs_nothing(tmp_path: Path) -> None:
    with postgresql(tmp_path / "data") as uri:
        store = RunStore(uri, "restarted")
        search = start_search(store, "s", "a search", {}, "")
        first = action(store, search, tmp_path, 0)
    action(store, search, tmp_path, 1, (first,))
    assert store.backlog.writes > 1
    with postgresql(tmp_path / "data") as uri:
        assert store.flush(60)
        check(uri, "restarted", 2)


@pytest.mark.slow
@pytest.mark.parametrize("killed", [False, True], ids=["goes on", "killed"])
def test_a_search_whose_server_is_dead_loses_nothing(tmp_path: Path, killed: bool) -> None:
    port = free_port()
    (tmp_path / "work").mkdir()
    settings = {"LAMDAGENT_CACHE": os.environ["LAMDAGENT_CACHE"], "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}"}
    arguments = ["+experiment=stunts", "agent=random", "budget.trials=3", "execution=inline"]
    until = time.monotonic() + PATIENCE_S
    with server(tmp_path, port=port, ended_by=signal.SIGKILL) as uri:
        driver = begin(tmp_path / "work", *arguments, **settings)
        while not (open_client(uri).get_experiment_by_name("stunts") and of_kind(stored(uri, "stunts"), "action")):
            assert time.monotonic() < until and driver.poll() is None, end(driver)
            time.sleep(0.5)
    wanted = '"FINISHED"' if killed else '"test.score"'  # who goes on does everything while it is away
    while not any(wanted in path.read_text() for path in outbox_root().glob("stunts-*/*/*/change.json")):
        assert time.monotonic() < until and driver.poll() is None, end(driver)
        time.sleep(0.2)
    if killed:
        driver.kill()
        driver.communicate()
    with server(tmp_path, port=port) as uri:
        code, output = end(begin(tmp_path / "work", *arguments, **settings) if killed else driver)
        assert code == 0, output
        assert ("had waited for this store" in output) == killed
        assert ("The store cannot be used now" in output) != killed
        runs = stored(uri, "stunts")
        actions = [run for run in of_kind(runs, "action") if run.info.status == "FINISHED"]
        assert len(actions) == 3 and len({tag(run, "fingerprint") for run in actions}) == 3, output
        cut_off = [run for run in of_kind(runs, "action") if run.info.status != "FINISHED"]
        assert len(cut_off) <= killed, "at most the action in flight is lost"
        assert [run.info.status for run in of_kind(runs, "search")] == ["FINISHED"]
        for run in actions:
            listed = open_client(uri).list_artifacts(run.info.run_id, "model")
            assert "model/model.safetensors" in [file.path for file in listed]
        finalists = [run for run in actions if tag(run, "state")]
        assert finalists and {tag(run, "pairing") for run in finalists} == {'{"search": "paired", "test": "paired"}'}
        [champion] = {tag(run, "champion") for run in of_kind(runs, "search")}
        assert champion in {run.info.run_id for run in runs} and "refused" not in output, output
    assert not list(outbox_root().glob("stunts-*/*")), "nothing stays on disk"
