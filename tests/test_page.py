"""`mlflow server --app-name lamdagent`: the pages as a browser shows them, beside all of MLflow; behind basic auth."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from lamdagent.evaluation.task import Task
from lamdagent.report.document import scales
from lamdagent.report.render import page
from lamdagent.tracking.searches import end_search, start_search
from lamdagent.tracking.store import RunStore
from mlflow_plugin.reading import search_document
from tests.servers import ADMIN_PASSWORD, PATIENCE_S, auth_settings, get, server

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
HOSTILE = '</script><script>document.title="broken"</script>"><img src=x onerror=document.title="broken">\u202e'
TASKS = (Task("calls", "", "", 0.7), Task("style", "", "", 0.3))

pytestmark = pytest.mark.slow


def browse(url: str, folder: Path, *options: str) -> str:
    """The page's elements once its script has run."""
    assert CHROMIUM, "no Chromium on the PATH (Debian, Ubuntu: apt install chromium); or leave out: -m 'not browser'"
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/browser"]
    command += ["--virtual-time-budget=5000", *options, "--dump-dom", url]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S).stdout


def fill(folder: Path, experiment: str) -> tuple[str, dict[str, str]]:
    """A search of a base, two trainings, a merge of both with a run of another experiment, and a failure."""
    uri = f"sqlite:///{folder}/mlflow.db"
    store, other = RunStore(uri, experiment), RunStore(uri, f"{experiment}-before")
    runs: dict[str, str] = {}
    before = start_search(other, "x", "before", {}, "")
    runs["far"] = trial(other, before, "far", 0.3, kind="base")
    search = start_search(store, "s", f"search {HOSTILE}", {"agent": HOSTILE, "tasks": "calls x 0.7"}, "", HOSTILE)
    store.update(search, tags={"lamdagent.scales": scales(TASKS), "lamdagent.reflection": HOSTILE})
    runs["base"] = trial(store, search, "base", 0.2, kind="base")
    runs["sft"] = trial(store, search, HOSTILE, 0.4, [runs["base"]], **{"lamdagent.reason": HOSTILE})
    runs["dpo"] = trial(store, search, "A" * 250, 0.35, [runs["base"]], **{"lamdagent.reason": "R" * 7900})
    runs["merge"] = trial(store, search, "merge", 0.5, [runs["sft"], runs["dpo"], runs["far"]])
    runs["bad"] = trial(store, search, "bad", None, [runs["merge"]])
    for step, value in enumerate((0.2, 0.4, 0.4, 0.5, 0.5)):
        store.update(search, metrics={"score": value}, step=step)
    end_search(store, search, "FINISHED")
    return search, runs


def trial(
    store: RunStore, search: str, name: str, value: float | None, parents: Any = (), kind: Any = "action", **tags: str
) -> str:
    tags |= {"lamdagent.tasks": '{"calls": "1", "style": "2"}', "lamdagent.action": name}
    params = {"lr": "0.1", "note": HOSTILE}
    run_id = store.open(search, kind, name, tags, params, parents=list(parents))
    if value is None:
        store.fail(run_id, f"the loss is not a number {HOSTILE}", "", "nan_loss")
    else:
        store.finish(run_id, metrics={"score": value, "task.calls": value, "task.style": 1 - value, "cost.seconds": 2})
    return run_id


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, dict[str, str]]:
    folder = tmp_path_factory.mktemp("page")
    return folder, *fill(folder, "tooluse")


@pytest.fixture(scope="module")
def address(filled: tuple[Path, str, dict[str, str]]) -> Iterator[str]:
    with server(filled[0], "/team") as found:
        yield found


@pytest.fixture
def report(filled: tuple[Path, str, dict[str, str]], tmp_path: Path) -> Path:
    """What a search leaves as `report.html`."""
    folder, search, _ = filled
    document = search_document(MlflowClient(f"sqlite:///{folder}/mlflow.db"), search, lambda ids: ids)
    assert document is not None
    (tmp_path / "report.html").write_text(page(document), encoding="utf-8")
    return tmp_path / "report.html"


class TestServer:
    def test_mlflow_is_all_there(self, address, filled):
        status, text, _ = get(f"{address}/")
        assert status == 200 and 'id="root"' in text
        assert get(f"{address}/ajax-api/2.0/mlflow/runs/get?run_id={filled[1]}")[0] == 200
        client = MlflowClient(address)
        run = client.create_run(client.create_experiment("rest"))
        client.log_metric(run.info.run_id, "score", 1.0)
        assert client.get_run(run.info.run_id).data.metrics == {"score": 1.0}

    def test_list_leads_to_the_searches(self, address, filled):
        status, text, headers = get(f"{address}/lamdagent/")
        links = re.findall(r'href="(search\?run_id=\w+)"', text)
        assert status == 200 and len(links) == 2 and "<img" not in text and "tooluse-before" in text
        assert [get(f"{address}/lamdagent/{link}")[0] for link in links] == [200, 200]

    def test_page_may_load_nothing_and_be_framed_by_nobody_else(self, address, filled):
        _, _, headers = get(f"{address}/lamdagent/search?run_id={filled[1]}")
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'self'" in policy and "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"

    @pytest.mark.parametrize("what", ["", "?run_id=", "?run_id=nothing", "?run_id='; DROP TABLE runs", "?run_id=BASE"])
    def test_what_is_no_search_is_not_found(self, address, filled, what):
        query = what.replace("BASE", filled[2]["base"]).replace(" ", "%20")
        assert get(f"{address}/lamdagent/search{query}")[0] == 404

    @pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
    def test_it_only_reads(self, address, filled, method):
        for path in ("", f"search?run_id={filled[1]}"):
            assert get(f"{address}/lamdagent/{path}", data={}, method=method)[0] == 405


@pytest.mark.browser
class TestInTheBrowser:
    def test_page_draws_every_figure(self, address, filled, tmp_path):
        _, search, runs = filled
        text = browse(f"{address}/lamdagent/search?run_id={search}#{runs['merge']}", tmp_path)
        assert 'data-ready="1"' in text
        seen = {name: text.count(f'data-node="{run_id}"') for name, run_id in runs.items()}
        # Graph and table; the trials also as dots of the curve; what has both scores also in the trade-offs.
        assert seen == {"far": 3, "base": 3, "sft": 4, "dpo": 4, "merge": 4, "bad": 3}
        for parent in ("sft", "dpo", "far"):
            assert f'data-from="{runs[parent]}" data-to="{runs["merge"]}"' in text
        assert f'href="../#/experiments/1/runs/{runs["merge"]}"' in text  # its details are open
        assert f'href="../#/experiments/1/runs/{search}"' in text

    def test_text_of_runs_stays_text(self, address, filled, tmp_path):
        _, search, runs = filled
        for run in ("sft", "bad", "dpo"):
            text = browse(f"{address}/lamdagent/search?run_id={search}#{runs[run]}", tmp_path)
            assert "<img" not in text and "<title>broken" not in text and text.count("<script") == 2
            assert "onerror" in text  # it is there, as text
        assert "R" * 1900 in text and "R" * 2100 not in text

    def test_links_of_the_page_open_the_plain_ui(self, address, filled, tmp_path):
        text = browse(f"{address}/lamdagent/../#/experiments/1/runs/{filled[1]}", tmp_path, "--window-size=1200,900")
        assert "Artifacts" in text or "Overview" in text

    def test_file_alone_is_enough(self, report, filled, tmp_path):
        """Drawn from disk, and without links that lead nowhere."""
        text = browse(f"file://{report}#{filled[2]['merge']}", tmp_path)
        assert 'data-ready="1"' in text and "<a " not in text and f"search run {filled[1]}" in text

    def test_on_a_phone_nothing_is_wider_than_the_screen(self, report, tmp_path):
        """In a frame of 390 px: a headless window is never that narrow."""
        wide = "document.querySelector('iframe').contentDocument.documentElement.scrollWidth"
        script = f"onload=()=>document.title='width '+{wide}"
        frame = f'<iframe width="390" height="800" style="border:0" src="file://{report}"></iframe>'
        (tmp_path / "phone.html").write_text(f"<title>x</title><script>{script}</script>{frame}")
        text = browse(f"file://{tmp_path}/phone.html", tmp_path, "--allow-file-access-from-files")
        width = re.search(r"<title>width (\d+)", text)
        assert width and int(width[1]) <= 390


class TestBehindBasicAuth:
    def test_one_sees_what_one_may_read(self, tmp_path):
        search, _ = fill(tmp_path, "tooluse")
        admin = ("admin", ADMIN_PASSWORD)
        with server(tmp_path, app="lamdagent-auth", **auth_settings(tmp_path)) as address:
            for user in ("reader", "other"):
                made = {"username": user, "password": "a password of twelve"}
                assert get(f"{address}/api/2.0/mlflow/users/create", *admin, data=made)[0] == 200
            grant = {"username": "reader", "resource_type": "experiment", "resource_id": "1", "permission": "READ"}
            granted = get(f"{address}/api/3.0/mlflow/users/permissions/grant", *admin, data=grant)
            assert granted[0] == 200, granted
            one, every = f"{address}/lamdagent/search?run_id={search}", f"{address}/lamdagent/"
            reader, other = ("reader", "a password of twelve"), ("other", "a password of twelve")
            assert [get(one, *who)[0] for who in ((), ("reader", "wrong"), reader, other, admin)] == [
                401,
                401,
                200,
                403,
                200,
            ]
            assert [get(every, *who)[0] for who in ((), reader, other)] == [401, 200, 200]
            found = {who[0]: get(every, *who)[1].count("search?run_id=") for who in (reader, other, admin)}
            assert found == {"reader": 1, "other": 0, "admin": 2}
            # The merge has a parent in an experiment that only the admin may read.
            assert "not readable here" in get(one, *reader)[1] and "not readable here" not in get(one, *admin)[1]
            assert get(f"{address}/api/2.0/mlflow/runs/get?run_id={search}", *other)[0] == 403
