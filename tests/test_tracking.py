"""The store's contract, on SQLite and on a real tracking server, and what opening a store promises."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from mlflow import MlflowClient

from lamdagent.errors import UserError
from lamdagent.text import hide_passwords
from lamdagent.tracking import connect, schema
from lamdagent.tracking.artifact_layout import inspect
from lamdagent.tracking.leaderboard import VIEW_TAG, leaderboard_path
from lamdagent.tracking.lineage import ModelEntry
from lamdagent.tracking.owner import provably_dead, this_process
from lamdagent.tracking.ownership import claims
from lamdagent.tracking.read_only import sqlite_file
from lamdagent.tracking.reading import read_every_run
from lamdagent.tracking.run_cache import FRESH_S, database_stamp
from lamdagent.tracking.searches import close_orphans, end_search, find_search, reopen_search, start_search
from lamdagent.tracking.store import RunStore
from lamdagent.tracking.traces import traced_call
from lamdagent.tracking.weights import download_model
from tests import forkserver
from tests.servers import server

CHILD = """
import sys
from lamdagent.tracking.searches import end_search, start_search
from lamdagent.tracking.store import RunStore
store = RunStore(sys.argv[1], sys.argv[2])
search = start_search(store, "other", "other search", {}, "")
run = store.open(search, "action", "model-99999999", {}, {})
print(run, flush=True)
if sys.argv[3] == "finish":
    store.finish(run, metrics={"score": 0.9})
    end_search(store, search, "FINISHED")
else:
    sys.stdin.read()
"""


def child(store: RunStore, mode: str) -> subprocess.Popen[str]:
    """Another process that works in the same store."""
    command = [sys.executable, "-c", CHILD, store.uri, store.experiment, mode]
    return forkserver.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def staging_folder(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


@pytest.fixture(scope="module")
def sqlite_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('a store')}/mlflow.db"


@pytest.fixture(scope="module")
def server_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real server with proxied artifacts."""
    with server(tmp_path_factory.mktemp("server"), app="") as uri:
        yield uri


class Contract:
    """What every store must do. A subclass gives the fixture `uri`."""

    @pytest.fixture
    def store(
        self, uri: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> RunStore:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        return RunStore(uri, request.node.name)

    def test_what_is_told_without_reading_is_what_another_reader_finds(self, store: RunStore, tmp_path: Path) -> None:
        search = start_search(store, "s1", "tool use", {"search.seed": 0}, "seed: 0\n")
        store.runs()
        base = store.open(search, "base", "base", {schema.FINGERPRINT: "b", schema.TASKS: "t"}, {"model": "m"})
        store.finish(base, metrics={"score": 0.25}, model=ModelEntry("base", "somewhere"))
        tags = {schema.FINGERPRINT: "f1", schema.TASKS: "t", schema.REASON: "x" * 9000, schema.CLAIM: claims.REQUESTED}
        run = store.open(search, "action", "sft", tags, {"lr": 0.1, "long": "y" * 7000}, parents=[base])
        assert store.claim(run)
        open_now = store.runs()
        curves = [("train.loss", 1.0 / (step + 1), step, 1_700_000_000_000 + step) for step in range(3)]
        metrics = {"score": 0.5, "cost.seconds": float("nan")}
        store.finish(run, metrics=metrics, curves=curves, tags={schema.MODEL_DEPTH: "1", schema.PRUNED: ""})
        store.update(search, metrics={"score": 0.5}, step=1)
        store.update(run, metrics={"test.score": 0.4})
        failed = store.open(search, "action", "dpo", {schema.FINGERPRINT: "f2"}, {}, parents=[run, base])
        store.fail(failed, "no luck", "a traceback", "error")
        told, read = store.runs(), RunStore(store.uri, store.experiment).runs()
        assert told == read and [r.status for r in told] == ["RUNNING", "FINISHED", "FINISHED", "FAILED"]
        assert [r.status for r in open_now] == ["RUNNING", "FINISHED", "RUNNING"] and told[2].parents == (base,)

    def test_a_finished_run_comes_back_with_everything(self, store: RunStore, tmp_path: Path) -> None:
        search = start_search(store, "s1", "tool use", {"search.seed": 0}, "seed: 0\n", "**Eight** trials")
        tags = {schema.ACTION: "sft", schema.FINGERPRINT: "f1", schema.TASKS: "t1", schema.REASON: "x" * 9000}
        run = store.open(search, "action", "model-aaaaaaaa", tags, {"lr": 0.1, "long": "y" * 7000})
        before = {record.run_id: record for record in store.runs()}
        store.finish(
            run,
            metrics={"score": 0.5, "score_stderr": 0.1, "task.bfcl": 0.4, "cost.seconds": float("nan")},
            curves=[("loss", 1.0 / (step + 1), step, 1000 + step) for step in range(1500)],
            texts={schema.RECIPE: "a: 1\n"},
            folders={schema.SAMPLES_FOLDER: staging_folder(tmp_path / "samples")},
            staging=staging_folder(tmp_path / "staging"),
            model=ModelEntry("model-aaaaaaaa", f"runs:/{run}/model", {"depth": 1}),
            tags={schema.MODEL_DEPTH: "1"},
        )
        store.update(run, metrics={"test.score": 0.45})
        found = {record.run_id: record for record in store.runs()}[run]

        assert before[run].status == "RUNNING" and before[run].end_ms is None
        assert found.status == "FINISHED" and found.kind == "action" and found.search_run_id == search
        assert found.params["lr"] == "0.1" and len(found.params["long"]) == 6000
        assert {**tags, schema.REASON: "x" * 7999 + "…"}.items() <= dict(found.tags).items()
        assert found.tags[schema.MODEL_DEPTH] == "1" and json.loads(found.tags[schema.PARENTS]) == []
        assert found.metrics["score"] == 0.5 and found.metrics["test.score"] == 0.45
        assert "cost.seconds" not in found.metrics, "NaN spoils every plot"
        assert len(store.client.get_metric_history(run, "loss")) == 1500
        folder = store.weights(f"runs:/{run}/model")
        assert (folder / "model.safetensors").read_bytes() == b"weights" and not (tmp_path / "staging").exists()
        assert download_model(f"runs:/{run}/model", store.uri) == str(folder)
        assert {"model", "recipe.yaml", "samples"} <= {item.path for item in store.client.list_artifacts(run)}

    def test_a_search_is_found_reopened_and_ended(self, store: RunStore) -> None:
        run = start_search(store, "it's", "tool use", {}, "", tasks=["bfcl"])
        store.update(run, metrics={"score": 0.2}, step=1)
        store.update(run, metrics={"score": 0.3}, step=2)
        end_search(store, run, "KILLED", "stopped by the user")
        ended = find_search(store, "it's")
        reopen_search(store, run)
        again = {record.run_id: record for record in store.runs()}[run]

        assert find_search(store, "unknown") is None
        assert ended and ended.status == "KILLED" and ended.tags[schema.STATUS_REASON] == "stopped by the user"
        assert again.status == "RUNNING" and again.metrics["score"] == 0.3
        described = store.client.get_run(run).data.tags[schema.DESCRIPTION]
        assert leaderboard_path(store.experiment_id, run) in described
        view = json.loads(store.client.get_experiment(store.experiment_id).tags[VIEW_TAG + run])
        assert run in view["searchFilter"] and "metrics.`task.bfcl`" in view["selectedColumns"]

    def test_a_merge_keeps_both_parents(self, store: RunStore) -> None:
        search = start_search(store, "s1", "tool use", {}, "")
        parents = []
        for name in ("model-bbbbbbbb", "model-cccccccc"):
            run = store.open(search, "base", name, {}, {})
            store.finish(run, metrics={"score": 0.1}, model=ModelEntry(name, "/somewhere"))
            parents.append(run)
        merge = store.open(search, "action", "model-dddddddd", {}, {}, parents=parents, text="a merge")
        run = store.client.get_run(merge)
        outputs = [store.client.get_run(parent).outputs.model_outputs[0].model_id for parent in parents]

        assert json.loads(run.data.tags[schema.PARENTS]) == parents
        assert {model.model_id for model in run.inputs.model_inputs} == set(outputs)
        for parent in parents:
            assert f"(#/experiments/{store.experiment_id}/runs/{parent})" in run.data.tags[schema.DESCRIPTION]
        model = store.client.get_logged_model(outputs[0])
        assert (model.name, model.status, model.source_run_id) == ("model-bbbbbbbb", "READY", parents[0])
        assert [(metric.key, metric.value) for metric in model.metrics] == [("score", 0.1)]

    def test_finishing_again_after_a_failure_adds_nothing_twice(self, store: RunStore, tmp_path: Path) -> None:
        run = store.open(start_search(store, "s1", "x", {}, ""), "action", "model-eeeeeeee", {}, {})
        entry = ModelEntry("model-eeeeeeee", f"runs:/{run}/model")
        staging = staging_folder(tmp_path / "staging")
        with pytest.raises(OSError):
            store.finish(run, metrics={}, staging=tmp_path / "missing", model=entry)
        assert store.client.get_run(run).info.status == "RUNNING"
        for _ in range(2):
            store.finish(run, metrics={"score": 1.0}, staging=staging, model=entry)
        assert len(store.client.get_run(run).outputs.model_outputs) == 1
        assert (store.weights(f"runs:/{run}/model") / "config.json").is_file()

    def test_a_foreign_model_is_fetched_without_pickles_and_left_alone(self, store: RunStore, tmp_path: Path) -> None:
        checkpoint = staging_folder(tmp_path / "theirs" / "artifacts" / "checkpoint-1")
        (checkpoint / "tokenizer.json").write_text("{}")
        (checkpoint / "optimizer.pt").write_bytes(b"large")
        (tmp_path / "theirs" / "python_model.pkl").write_bytes(b"evil")
        run = store.client.create_run(store.experiment_id).info.run_id
        store.client.log_artifacts(run, str(tmp_path / "theirs"), "model")
        before = store.client.get_run(run).to_dictionary()
        assert inspect(store.client, f"runs:/{run}/model").architecture == "LlamaForCausalLM"
        folder = store.weights(f"runs:/{run}/model")
        assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors", "tokenizer.json"}
        assert store.weights(f"runs:/{run}/model/artifacts/checkpoint-1").is_dir()
        with pytest.raises(UserError, match="no model in Hugging Face layout"):
            store.weights(f"runs:/{run}/elsewhere")
        with pytest.raises(UserError, match="cannot be read"):
            store.weights("runs:/none/model")
        assert store.client.get_run(run).to_dictionary() == before

    def test_a_failed_run_says_why(self, store: RunStore) -> None:
        run = store.open(start_search(store, "s1", "x", {}, ""), "action", "model-ffffffff", {}, {})
        store.fail(run, "loss became NaN at step 3", "Traceback ...", "nan_loss")
        found = {record.run_id: record for record in store.runs()}[run]
        assert (found.status, found.tags[schema.STATUS_REASON]) == ("FAILED", "loss became NaN at step 3")
        assert found.tags[schema.FAILURE_KIND] == "nan_loss"
        assert [item.path for item in store.client.list_artifacts(run)] == [schema.FAILURE]
        with pytest.raises(UserError, match="no weights|cannot be read"):
            download_model(f"runs:/{run}/model", store.uri)

    def test_a_fingerprint_is_found_in_every_experiment_once_finished(self, store: RunStore) -> None:
        other = RunStore(store.uri, store.experiment + "-other")
        fingerprint = f"fp-{store.experiment}"
        tags = {schema.FINGERPRINT: fingerprint, schema.TASKS: "t1"}
        run = other.open(start_search(other, "s1", "x", {}, ""), "action", "model-11111111", tags, {})
        assert store.find(fingerprint) is None
        other.finish(run, metrics={"score": 1.0})
        for found in (store.find(fingerprint), store.find(fingerprint, "t1")):
            assert found and found.run_id == run
        assert store.find(fingerprint, "t2") is None

    def test_a_refresh_sees_what_another_process_did(self, store: RunStore) -> None:
        assert store.runs() == []
        output, _ = child(store, "finish").communicate()
        time.sleep(FRESH_S)  # the process may have taken less
        found = {record.run_id: record for record in store.runs()}
        assert found[output.strip()].metrics["score"] == 0.9
        assert {record.kind for record in found.values()} == {"search", "action"}
        assert store.runs() == RunStore(store.uri, store.experiment).runs()

    def test_only_what_a_dead_process_left_is_closed(self, store: RunStore) -> None:
        ours = start_search(store, "s1", "mine", {}, "")
        process = child(store, "wait")
        assert process.stdout
        theirs = process.stdout.readline().strip()
        store.runs()
        assert close_orphans(store) == []
        process.kill()
        process.communicate()
        assert theirs in close_orphans(store)
        found = {record.run_id: record for record in store.runs()}
        assert found[theirs].status == "FAILED" and "gone" in found[theirs].tags[schema.STATUS_REASON]
        assert found[ours].status == "RUNNING"
        assert [record.status for record in found.values()].count("RUNNING") == 1

    def test_calls_are_traces_of_the_run_they_decided(self, store: RunStore) -> None:
        run = start_search(store, "s1", "x", {}, "")
        with traced_call(store, "choose", "a/model", [{"role": "user", "content": "1 or 2?"}], seed=1) as good:
            good.answer, good.tokens, good.cost_usd = "2", {"input": 10, "output": 2}, 0.001
        with pytest.raises(TimeoutError), traced_call(store, "choose", "a/model", []) as bad:
            raise TimeoutError("no answer")
        store.update(run, traces=[good.trace_id, bad.trace_id])

        found = {t.info.trace_id: t for t in store.client.search_traces(locations=[store.experiment_id], run_id=run)}
        assert set(found) == {good.trace_id, bad.trace_id}
        assert found[bad.trace_id].info.status == "ERROR"
        assert found[good.trace_id].info.token_usage == {"input_tokens": 10, "output_tokens": 2, "total_tokens": 12}
        assert found[good.trace_id].data.spans[0].outputs == "2"


class TestSqlite(Contract):
    @pytest.fixture
    def uri(self, sqlite_uri: str) -> str:
        return sqlite_uri

    def test_another_program_may_create_the_tables_at_the_same_time(self, tmp_path: Path) -> None:
        """MLflow's migrations break whoever comes second; we wait until all is there."""
        uri = f"sqlite:///{tmp_path}/fresh.db"
        script = f"from mlflow import MlflowClient; MlflowClient('{uri}').search_experiments()"
        other = forkserver.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)
        while not (tmp_path / "fresh.db").exists():
            assert other.poll() is None
            time.sleep(0.01)
        store = RunStore(uri, "x")
        other.wait()
        search = start_search(store, "s1", "x", {}, "")
        assert [record.run_id for record in store.runs()] == [search]

    def test_nothing_is_asked_of_a_file_that_nobody_wrote_to(self, store: RunStore) -> None:
        run = start_search(store, "s1", "x", {}, "")
        files = [file for suffix in ("", "-wal") if (file := Path(f"{sqlite_file(store.uri)}{suffix}")).exists()]
        for file in files:
            os.utime(file)
        assert database_stamp(store.uri) is None, "it was written to a moment ago"
        for file in files:
            os.utime(file, (1, 1))
        before = database_stamp(store.uri)
        read_every_run(store)
        assert before and database_stamp(store.uri) == before
        child(store, "finish").communicate()
        assert database_stamp(store.uri) != before
        time.sleep(FRESH_S + 0.2)
        assert run in {record.run_id for record in store.runs()} and len(store.runs()) == 3

    def test_a_running_run_that_its_owner_deleted_is_forgotten(self, store: RunStore) -> None:
        process = child(store, "wait")
        assert process.stdout
        theirs = process.stdout.readline().strip()
        assert theirs in {record.run_id for record in store.runs()}
        MlflowClient(store.uri).delete_run(theirs)
        time.sleep(FRESH_S + 0.2)
        assert theirs not in {record.run_id for record in store.runs()}
        process.kill()
        process.communicate()

    def test_weights_are_moved_not_copied(self, store: RunStore, tmp_path: Path) -> None:
        run = store.open(start_search(store, "s1", "x", {}, ""), "action", "model-22222222", {}, {})
        staging = staging_folder(tmp_path / "staging")
        inode = (staging / "model.safetensors").stat().st_ino
        store.finish(run, metrics={}, staging=staging)
        folder = store.weights(f"runs:/{run}/model")
        assert (folder / "model.safetensors").stat().st_ino == inode
        assert folder.is_relative_to(Path(store.uri.removeprefix("sqlite:///")).parent / "mlruns"), (
            "beside the database"
        )


@pytest.mark.slow
class TestServer(Contract):
    @pytest.fixture
    def uri(self, server_uri: str) -> str:
        return server_uri


def test_several_processes_open_an_empty_store_at_once(tmp_path: Path) -> None:
    code = (
        "import sys; from lamdagent.tracking.store import RunStore; print(RunStore(sys.argv[1], 'new').experiment_id)"
    )
    command = [sys.executable, "-c", code, f"sqlite:///{tmp_path}/mlflow.db"]
    processes = [forkserver.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    answers = [(*process.communicate(), process.returncode) for process in processes]
    assert answers == [("1\n", "", 0)] * 3


def test_a_store_is_where_mlflow_looks_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert RunStore(None, "x").uri == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/other.db")
    assert RunStore(None, "x").uri == f"sqlite:///{tmp_path}/other.db"


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("./mlruns", "not the address"),
        ("ftp://somewhere/x", "not the address"),
        ("sqlite:///:memory:", "names no file"),
        ("sqlite:////dev/null/x/mlflow.db", "cannot be opened"),
        ("http://127.0.0.1:9", "not reachable"),
        ("http://127.0.0.1:14013", "not reachable"),  # the port has the number of a refusal in it
    ],
)
def test_a_wrong_address_is_the_users_fault(uri: str, message: str) -> None:
    with pytest.raises(UserError, match=f"(?s)tracking.uri: {uri}.*{message}.*Allowed"):
        RunStore(uri, "x")


def _on_a_port_like_a_refusal() -> socket.socket:
    """A listening socket with 401 or 403 in its address."""
    for port in (*range(14010, 14020), *range(14030, 14040)):
        with contextlib.suppress(OSError):
            return socket.create_server(("127.0.0.1", port))
    raise AssertionError("all of twenty ports are taken")


def test_a_server_that_accepts_and_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "ANSWER_TIMEOUT_S", 1)
    with _on_a_port_like_a_refusal() as silent:
        with pytest.raises(UserError, match="does not answer .waited twice 1 s"):
            RunStore(f"http://127.0.0.1:{silent.getsockname()[1]}", "x")


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (401, "Unauthorized", "refused us. Set MLFLOW_TRACKING_USERNAME"),  # a proxy's
        (403, "<html>Forbidden</html>", "refused us. Set MLFLOW_TRACKING_USERNAME"),
        (403, '{"error_code": "PERMISSION_DENIED", "message": "no"}', "refused us. Set MLFLOW_TRACKING_USERNAME"),
        (401, '{"error_code": "UNAUTHENTICATED", "message": "no"}', "refused us. Set MLFLOW_TRACKING_USERNAME"),
        (404, '{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no 401"}', "does not answer like an MLflow store"),
        (405, "error 403 of ours", "does not answer like an MLflow store"),
    ],
)
def test_a_refusal_is_known_by_its_status(status: int, body: str, said: str) -> None:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as answering:
        threading.Thread(target=answering.serve_forever, daemon=True).start()
        with pytest.raises(UserError, match=said):
            RunStore(f"http://127.0.0.1:{answering.server_port}", "x")
        answering.shutdown()


def test_a_file_that_is_no_database_is_refused_and_passwords_are_hidden(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("not a database at all, only some text")
    with pytest.raises(UserError, match="not a database"):
        RunStore(f"sqlite:///{tmp_path}/mlflow.db", "x")
    with pytest.raises(UserError) as caught:
        RunStore("http://me:secret@127.0.0.1:9", "x")
    assert "secret" not in str(caught.value) and "me:***@" in str(caught.value)
    text = "api_base: http://127.0.0.1:8000/v1\nuri: postgresql://me:secret@host/db\n# @package\n"
    assert hide_passwords(text) == text.replace("secret", "***")


def test_a_deleted_experiment_is_refused(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    store = RunStore(uri, "gone")
    store.client.delete_experiment(store.experiment_id)
    with pytest.raises(UserError, match="was deleted"):
        RunStore(uri, "gone")


def test_only_a_dead_process_of_this_host_is_provably_dead() -> None:
    here = json.loads(this_process().dump())
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert not provably_dead(json.dumps(here))
    assert provably_dead(json.dumps({**here, "pid": gone.pid}))
    assert provably_dead(json.dumps({**here, "ticks": here["ticks"] - 1})), "the pid is used again"
    assert provably_dead(json.dumps({**here, "boot": "another"}))
    assert not provably_dead(json.dumps({**here, "host": "another", "boot": "another"}))
    assert not provably_dead(json.dumps({**here, "namespace": "another", "pid": gone.pid}))
    assert not provably_dead("nonsense")


@pytest.mark.slow
def test_the_champion_is_registered_once_and_loads(tmp_path: Path) -> None:
    store = RunStore(f"sqlite:///{tmp_path}/mlflow.db", "x")
    run = store.open(start_search(store, "s1", "x", {}, ""), "action", "model-33333333", {}, {})
    forkserver.run([sys.executable, "-c", PICO, str(tmp_path / "staging")], check=True, capture_output=True)
    entry = ModelEntry("model-33333333", f"runs:/{run}/model")
    store.finish(run, metrics={"score": 1.0}, staging=tmp_path / "staging", model=entry)
    command = [sys.executable, "-c", REGISTER, store.uri, run, str(store.weights(f"runs:/{run}/model"))]
    output = forkserver.run(command, check=True, capture_output=True, text=True).stdout

    assert output.split()[-3:] == ["1", "1", "LlamaForCausalLM"], "registering again makes no second version"
    assert store.client.get_model_version_by_alias("tooluse", "champion").run_id == run
    assert store.client.get_run(run).info.status == "FINISHED"
    assert download_model("models:/tooluse@champion", store.uri) == str(store.weights(f"runs:/{run}/model"))
    shutil.rmtree(tmp_path / "mlruns")


PICO = """
import sys, tokenizers, transformers
words = tokenizers.models.WordLevel({"<unk>": 0, "a": 1}, unk_token="<unk>")
fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizers.Tokenizer(words), unk_token="<unk>")
size = dict(vocab_size=2, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
transformers.LlamaForCausalLM(transformers.LlamaConfig(**size)).save_pretrained(sys.argv[1])
fast.save_pretrained(sys.argv[1])
"""

REGISTER = """
import sys
import mlflow
from lamdagent.worker.register import register
uri, run, folder = sys.argv[1:]
for _ in range(2):
    print(register(lambda *_: None, uri=uri, run_id=run, folder=folder, name="tooluse", card="# A card"))
mlflow.set_tracking_uri(uri)
print(type(mlflow.transformers.load_model("models:/tooluse@champion").model).__name__)
"""
