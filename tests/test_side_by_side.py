"""Several searches in one experiment at once, on every kind of store: nothing twice, nothing lost, nothing open."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from lamdagent.tracking import schema
from lamdagent.tracking.connect import open_client
from lamdagent.tracking.ownership import claims
from lamdagent.tracking.searches import close_orphans, start_search
from lamdagent.tracking.store import RunStore
from tests import forkserver
from tests.searches import PATIENCE_S, begin, end, of_kind, tag
from tests.servers import ADMIN_PASSWORD, auth_settings, postgresql, server

CLAIMER = """
import sys
from lamdagent.tracking import schema
from lamdagent.tracking.searches import start_search
from lamdagent.tracking.store import RunStore
store = RunStore(sys.argv[1], "claims")
search = start_search(store, sys.argv[2], "a search", {}, "")
print("ready", flush=True)
for fingerprint in sys.stdin:
    tags = {schema.FINGERPRINT: fingerprint.strip(), schema.CLAIM: "asked"}
    run = store.open(search, "action", "an action", tags, {})
    print(run if store.claim(run) else "yields", flush=True)
"""


class Claimer:
    """Another process that claims what it is told to."""

    def __init__(self, uri: str, number: int) -> None:
        command = [sys.executable, "-c", CLAIMER, uri, f"search {number}"]
        self.process = forkserver.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, fingerprint: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(f"{fingerprint}\n")
        self.process.stdin.flush()

    def answer(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()


@pytest.mark.slow
class TestClaims:
    @pytest.fixture
    def uri(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path}/mlflow.db"

    @pytest.fixture
    def claimers(self, uri: str) -> Iterator[list[Claimer]]:
        found = [Claimer(uri, number) for number in range(4)]
        assert {claimer.answer() for claimer in found} == {"ready"}
        yield found
        for claimer in found:
            claimer.process.kill()
            claimer.process.communicate()

    def test_one_of_many_gets_it(self, claimers: list[Claimer], uri: str) -> None:
        winners = []
        for number in range(6):
            for claimer in claimers:
                claimer.ask(f"same{number}")
            answers = [claimer.answer() for claimer in claimers]
            winners.append([a for a in answers if a != "yields"])
        assert [len(found) for found in winners] == [1] * 6, winners
        actions = [r for r in RunStore(uri, "claims").runs() if r.kind == "action"]
        assert {r.run_id for r in actions} == {run_id for found in winners for run_id in found}, (
            "who yields leaves none"
        )

    def test_the_first_waits_for_those_that_may_have_looked_before_it(self, uri: str) -> None:
        store = RunStore(uri, "claims")
        search = start_search(store, "s", "a search", {}, "")
        for answer in (claims.HELD, "yields"):
            tags = {schema.FINGERPRINT: f"seen {answer}", schema.CLAIM: claims.REQUESTED}
            first, second = sorted(store.open(search, "action", "an action", tags, {}) for _ in range(2))
            with ThreadPoolExecutor(1) as pool:
                claimed = pool.submit(store.claim, first)
                with pytest.raises(TimeoutError):
                    claimed.result(timeout=1)
                if answer == claims.HELD:
                    MlflowClient(uri).set_tag(second, schema.CLAIM, claims.HELD)
                else:
                    MlflowClient(uri).delete_run(second)
                assert claimed.result(timeout=20) is (answer == "yields")

    def test_a_claim_ends_with_its_process(self, claimers: list[Claimer], uri: str) -> None:
        first, second = claimers[:2]
        first.ask("one")
        assert first.answer() != "yields"
        second.ask("one")
        assert second.answer() == "yields"
        first.process.kill()
        first.process.wait()
        second.ask("one")
        assert second.answer() != "yields"

    def test_what_is_finished_is_not_claimed_again(self, claimers: list[Claimer], uri: str) -> None:
        claimers[0].ask("done")
        RunStore(uri, "claims").finish(claimers[0].answer(), metrics={})
        claimers[1].ask("done")
        assert claimers[1].answer() == "yields"

    def test_what_others_saw_of_a_run_that_ended_or_yielded_hurts_nobody(
        self, claimers: list[Claimer], uri: str
    ) -> None:
        """Known as running, then finished, deleted or still asking when its process dies."""
        watching = RunStore(uri, "claims")
        first, second = claimers[:2]
        first.ask("kept")
        kept = first.answer()
        asking = watching.open("", "action", "asks", {schema.FINGERPRINT: "x", schema.CLAIM: "asked"}, {})
        gone = watching.open("", "action", "gone", {schema.FINGERPRINT: "y"}, {})
        theirs = watching.client.get_run(kept).data.tags[schema.OWNER]
        for run_id in (asking, gone):
            watching.client.set_tag(run_id, schema.OWNER, theirs)
        seen = {record.run_id for record in watching.runs()}
        assert {kept, gone} <= seen and asking not in seen, "who may still yield is nobody's trial"
        watching.client.delete_run(gone)
        RunStore(uri, "claims").finish(kept, metrics={})
        first.process.kill()
        first.process.wait()
        closed = close_orphans(watching)
        assert asking in closed and not {kept, gone} & set(closed)
        assert watching.client.get_run(kept).info.status == "FINISHED"
        assert gone not in {record.run_id for record in watching.runs()}
        second.ask("kept")
        assert second.answer() == "yields"

    def test_a_silent_search_of_another_host_is_deserted(self, uri: str) -> None:
        store = RunStore(uri, "claims")
        search = start_search(store, "s", "a search", {}, "")
        run = store.open(search, "action", "an action", {schema.FINGERPRINT: "far"}, {})
        elsewhere = '{"host":"another","boot":"b","namespace":"n","pid":1,"ticks":1}'
        for run_id in (search, run):
            store.update(run_id, tags={schema.OWNER: elsewhere})
        store.runs()
        assert close_orphans(store) == [], "it has just been seen"
        long_ago = str(int(time.time() * 1000) - 20 * 60 * 1000)
        store.client.set_tag(search, schema.HEARTBEAT, long_ago)
        assert close_orphans(store) == [], "its clock has jumped, but it gave a sign before our eyes"
        late = RunStore(uri, "claims")
        late.runs()
        assert {search, run} <= set(close_orphans(late)), "who comes later has only the clocks"


def started(folder: Path, uri: str, trials: int, *words: str, **environment: str) -> "subprocess.Popen[str]":
    """A search with the seed of all others, so that all want the same actions."""
    folder.mkdir()
    environment |= {"MLFLOW_TRACKING_URI": uri, "LAMDAGENT_CACHE": os.environ["LAMDAGENT_CACHE"]}
    amounts = "actions.nudge.hyperparameters.amount=[0.1,0.2,0.3,0.4,0.5,0.6]"
    return begin(folder, "+experiment=stunts", amounts, f"budget.trials={trials}", *words, **environment)


def runs_in(uri: str) -> list[Run]:
    client = open_client(uri)
    found = client.get_experiment_by_name("stunts")
    return list(client.search_runs([found.experiment_id], max_results=1000)) if found else []


def check(uri: str, actions: int) -> None:
    """So many actions, each once, each with weights; one base; nothing open."""
    runs = runs_in(uri)
    done = [run for run in of_kind(runs, "action") if run.info.status == "FINISHED"]
    assert len(done) == actions
    assert len({tag(run, "fingerprint") for run in done}) == actions, "an action was done twice"
    assert len([run for run in of_kind(runs, "base") if run.info.status == "FINISHED"]) == 1
    assert not [run.info.run_name for run in runs if run.info.status == "RUNNING"]
    client = MlflowClient(uri)
    for run in done:
        assert "model/model.safetensors" in [a.path for a in client.list_artifacts(run.info.run_id, "model")]


@pytest.mark.slow
class TestTwoSearches:
    def test_on_postgresql_behind_a_server_with_basic_auth(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", ADMIN_PASSWORD)
        who = {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": ADMIN_PASSWORD}
        settings = auth_settings(tmp_path)
        with (
            postgresql(tmp_path / "postgresql") as database,
            server(tmp_path, app="lamdagent-auth", backend=database, **settings) as uri,
        ):
            searches = [started(tmp_path / name, uri, 2, "execution=inline", **who) for name in ("one", "two")]
            ended = [end(search) for search in searches]
            assert [code for code, _ in ended] == [0, 0], ended
            check(uri, 4)
            finalists = [run for run in runs_in(uri) if tag(run, "state")]
            assert finalists, "and their items were read from the server"
            assert {tag(run, "pairing") for run in finalists} == {'{"search": "paired", "test": "paired"}'}
            assert ADMIN_PASSWORD not in ended[0][1]

    def test_on_postgresql_itself(self, tmp_path: Path) -> None:
        with postgresql(tmp_path / "postgresql") as database:
            searches = [started(tmp_path / name, database, 3, "execution=inline") for name in ("one", "two")]
            ended = [end(search) for search in searches]
            assert [code for code, _ in ended] == [0, 0], ended
            check(database, 6)

    def test_on_a_file_one_is_killed(self, tmp_path: Path) -> None:
        uri = f"sqlite:///{tmp_path}/mlflow.db"
        victim, other = (started(tmp_path / name, uri, 5) for name in ("victim", "other"))
        until = time.monotonic() + PATIENCE_S
        while not (tmp_path / "mlflow.db").exists() or not of_kind(runs_in(uri), "action"):
            assert time.monotonic() < until
            assert victim.poll() is None, end(victim)
            time.sleep(0.2)
        victim.kill()
        code, output = end(other)
        end(victim)
        assert code == 0, output
        done = len([r for r in of_kind(runs_in(uri), "action") if r.info.status == "FINISHED"])
        assert done >= 5
        check(uri, done)
