"""The report: what a document says of given runs, and that no text of a run becomes anything but text."""

import json
import re
from html.parser import HTMLParser

import pytest

from lamdagent.evaluation.task import Task
from lamdagent.report.document import document, scales, shown_records, tasks_of
from lamdagent.report.graph import parents_of
from lamdagent.report.render import index, page, policy
from lamdagent.tracking.runs import RunRecord

TASKS = (Task("calls", "", "", 0.75), Task("loss", "", "", 0.25, higher_is_better=False, low=0.0, high=4.0))
TAG = json.dumps({"calls": "f1", "loss": "f2"})


def search(status: str = "FINISHED", name: str = "search auto seed 0", **tags: str) -> RunRecord:
    tags = {"lamdagent.kind": "search", "lamdagent.scales": scales(TASKS)} | tags
    return RunRecord("s", "1", name, status, 1, 90_000, "", {"agent": "auto", "tasks": "x x 1"}, {}, tags)


def run(
    name: str, start: int, calls: float | None, loss: float = 2.0, parents: list[str] | None = None, **more
) -> RunRecord:
    kind = more.pop("kind", "action" if parents else "base")
    tags = {"lamdagent.kind": kind, "mlflow.parentRunId": more.pop("of", "s"), "lamdagent.tasks": TAG}
    tags |= {"lamdagent.parents": json.dumps(parents or []), "lamdagent.action": "sft" if parents else ""}
    tags |= {"lamdagent.slots": json.dumps({"model": ["model-1"], "dataset": ["support"]})} | more.pop("tags", {})
    metrics = (
        {} if calls is None else {"task.calls": calls, "task.calls_stderr": 0.04, "task.loss": loss, "score": 0.99}
    )
    metrics |= {"cost.seconds": 2.0} | more.pop("metrics", {})
    status = "FAILED" if calls is None else "FINISHED"
    return RunRecord(
        name, more.pop("experiment", "1"), name, status, start, start + 9, "", {"lr": "0.1"}, metrics, tags
    )


PAIRED = '{"search": "paired", "test": "paired"}'
BASE = run("base", 1, 0.2)
RUNS = [BASE, run("a", 2, 0.4, parents=["base"]), run("b", 3, 0.3, 0.0, ["base"]), run("m", 4, 0.44, 2.0, ["a", "b"])]


def nodes(made: dict) -> dict:
    return {node["id"]: node for node in made["nodes"]}


class TestDocument:
    def test_scores_gains_and_ranks(self):
        made = document(search(), RUNS, [(0, 0.275), (1, 0.4), (2, 0.4), (3, 0.4)])
        by_id = nodes(made)
        assert by_id["base"]["score"] == pytest.approx(0.75 * 0.2 + 0.25 * 0.5)  # not the metric `score`
        assert by_id["m"]["gain"] == pytest.approx([0.75 * 0.24, (2 * 0.03**2) ** 0.5])
        assert [by_id[n]["rank"] for n in ("b", "m", "a", "base")] == [1, 2, 3, 4]
        assert made["champion"] == "b" and made["base"] == "base" and made["chain"] == ["b", "base"]
        assert made["curve"] == [[0, 0.275], [1, 0.4], [3, 0.4]]

    def test_gains_of_finalists_are_paired_and_the_champion_is_the_selected_one(self):
        test = {"test.calls": 0.3, "test.calls_stderr": 0.04, "test.loss": 2.0, "test.loss_stderr": 0.0}
        told = {"lamdagent.state": "selected", "lamdagent.state_reason": "best", "lamdagent.pairing": PAIRED}
        gain = {"gain": 0.15, "gain_stderr": 0.01, "test.gain": 0.075, "test.gain_stderr": 0.02}
        base = run("base", 1, 0.2, metrics={**test, "test.calls": 0.2})
        sure = run("a", 2, 0.4, parents=["base"], metrics={**test, **gain}, tags=told)
        stale = run("b", 3, 0.5, parents=["base"], metrics={**test, "test.gain": 0.5, "test.gain_stderr": 0.02})
        by_id = nodes(document(search(), [base, sure, stale]))
        assert by_id["a"]["gain"] == pytest.approx([0.15, 0.01]) and by_id["a"]["state"] == "selected"
        assert by_id["a"]["test_gain"][:4] == pytest.approx([0.075, 0.02, 0.0358, 0.1142], abs=1e-4)
        assert by_id["a"]["test_gain"][4] == "paired"
        assert by_id["b"]["test_gain"][1] == pytest.approx(2**0.5 * 0.03) and by_id["b"]["test_gain"][4] == "unpaired"
        assert document(search(), [base, sure, stale])["champion"] == "b"
        assert document(search(**{"lamdagent.champion": "a"}), [base, sure, stale])["champion"] == "a"
        assert document(search(**{"lamdagent.champion": "base"}), [base, sure, stale])["champion"] == "base"
        assert document(search(**{"lamdagent.champion": "gone"}), [base, sure, stale])["champion"] == "b"

    def test_every_parent_is_kept(self):
        far = run("far", 1, 0.3, kind="action", parents=["base"], of="other", experiment="7")
        made = document(search(), [*RUNS, far, run("n", 6, 0.1, parents=["m", "far", "gone"])])
        assert [edge for edge in made["edges"] if edge[1] == "n"] == [["m", "n"], ["far", "n"], ["gone", "n"]]
        assert [edge for edge in made["edges"] if edge[1] == "m"] == [["a", "m"], ["b", "m"]]
        by_id = nodes(made)
        assert by_id["gone"]["status"] == "unknown" and by_id["far"]["experiment"] == "7" and not by_id["far"]["own"]
        assert [by_id[n]["depth"] for n in ("base", "a", "m", "n")] == [0, 1, 2, 3]
        assert by_id["n"]["pipeline"] == "[#3 + far + gone] › sft(support)"
        assert by_id["a"]["pipeline"] == "base › sft(support)"

    def test_front_heeds_the_direction_of_each_task(self):
        assert set(document(search(), RUNS)["front"]) == {"b", "m"}  # a loses to m; b has the lowest loss
        alone = search(**{"lamdagent.scales": scales(TASKS[:1])})
        assert document(alone, RUNS)["front"] == []

    def test_scores_of_other_tasks_are_not_compared(self):
        old = run("old", 1, 0.9, parents=["base"], tags={"lamdagent.tasks": '{"calls": "f0", "loss": "f2"}'})
        made = document(search(), [*RUNS, old])
        assert nodes(made)["old"]["score"] is None and not nodes(made)["old"]["comparable"] and made["champion"] == "b"

    def test_failures_say_why_and_interrupted_trials_have_no_number(self):
        bad = run(
            "bad", 5, None, parents=["a"], tags={"lamdagent.status_reason": "NaN", "lamdagent.failure_kind": "nan"}
        )
        cut = run("cut", 6, None, parents=["a"], tags={"lamdagent.failure_kind": "interrupted"})
        made = document(search(), [*RUNS, bad, cut])
        assert nodes(made)["bad"]["failure"] == "NaN" and made["search"]["failed"] == 2
        assert [nodes(made)[n]["trial"] for n in ("a", "m", "bad", "cut")] == [2, 4, 5, None]

    def test_trials_are_numbered_from_the_last_one_back(self):
        made = document(search(), RUNS, [(0, 0.1), (50, 0.4)])
        assert nodes(made)["m"]["trial"] == 50 and made["search"]["trials"] == 50 and made["search"]["shown"] == 3

    def test_tasks_of_a_search_without_the_tag_come_from_its_params(self):
        old = RunRecord("s", "1", "", "FINISHED", 1, 2, "", {"tasks": "bfcl x 0.7, x x y x 0.3"}, {}, {})
        assert [(t.name, t.weight) for t in tasks_of(old)] == [("bfcl", 0.7), ("x x y", 0.3)]
        assert tasks_of(search()) == TASKS

    def test_without_any_tasks_the_metric_stands(self):
        bare = RunRecord("s", "1", "", "RUNNING", 1, None, "", {}, {}, {"lamdagent.kind": "search"})
        assert nodes(document(bare, RUNS))["a"]["score"] == 0.99

    def test_nothing_yet(self):
        made = document(search("RUNNING"), [])
        assert made["champion"] is None and made["nodes"] == [] and json.dumps(made, allow_nan=False)


class TestBounds:
    def test_few_hundred_of_many_with_best_bases_and_all_ancestors(self):
        many = [
            run(f"r{n}", n + 10, 0.2 + n % 7 / 100, parents=[f"r{n - 1}" if n % 9 == 8 else "base"])
            for n in range(5000)
        ]
        many[40] = run("r40", 50, 0.4, parents=["base"], metrics={"score": 1.0})
        shown = {record.run_id for record in shown_records([search(), BASE, *many], "s")}
        assert {"base", "r40", "r4999"} <= shown and 300 <= len(shown) < 900
        by_id = {record.run_id: record for record in [BASE, *many]}
        assert all(parent in shown for name in shown for parent in parents_of(by_id[name]))

    def test_circles_and_endless_texts_end(self):
        loop = [run("x", 1, 0.1, parents=["y"]), run("y", 2, 0.2, parents=["x", "y"])]
        made = document(search(**{"lamdagent.reflection": "z" * 10_000}), [BASE, *loop])
        assert len(made["nodes"]) == 3 and len(made["search"]["reflection"]) == 2000
        wide = run("wide", 3, 0.1, parents=[f"p{n}" for n in range(5000)])
        assert len(document(search(), [wide])["nodes"]) == 65


HOSTILE = (
    "</script><script>alert(1)</script>",
    "<!-- --><![CDATA[",
    '"><img src=x onerror=alert(1)>',
    "javascript:alert(1)",
    "\u202egnp.exe\u2066 \u2028 \u2029 \x00 \ud800",
    "__DATA__ __SCRIPT__ \\1 \\g<0>",
    "=" * 8000,
)


class Elements(HTMLParser):
    """Start tags of a page, as a browser without scripts sees them."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def elements(text: str) -> list[str]:
    parser = Elements()
    parser.feed(text)
    return [tag for tag, _ in parser.found]


class TestPage:
    @pytest.mark.parametrize("text", HOSTILE)
    def test_text_of_runs_stays_text(self, text):
        tags = dict.fromkeys(("lamdagent.reason", "lamdagent.action", "lamdagent.policy", "lamdagent.slots"), text)
        bad = RunRecord(
            text, text, text, text, 2, 3, text, {text: text}, {text: 1.0}, dict.fromkeys((text, *tags), text)
        )
        ours = run("a", 5, 0.3, parents=[text, "base"], tags=tags)
        made = page(document(search(name=text, **{"lamdagent.reflection": text}), [BASE, bad, ours]), "https://host/")
        assert elements(made) == elements(page(document(search(), [BASE]), ""))
        made.encode()
        data = re.search(r'<script type="application/json" id="data">(.*?)</script>', made, re.DOTALL)
        assert data and not set("<>&\u2028\u2029") & set(data[1])
        read = json.loads(data[1])
        assert nodes(read)["a"]["action"][:100] == text[:100] and read["links"] == "https://host/"

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
    def test_figures_that_are_no_numbers_are_left_out(self, value):
        odd = run("odd", 9, 0.3, parents=["a"], metrics={"task.calls_stderr": value, "cost.seconds": value})
        worse = run("worse", 9, value, parents=["a"])
        scale = search(**{"lamdagent.scales": scales([Task("calls", "", "", value)])})
        for one in (search(), scale):
            text = page(document(one, [*RUNS, odd, worse], [(1, value)]))
            assert "NaN" not in text.split('id="data">')[1].split("</script>")[0]

    @pytest.mark.parametrize(
        "text", ["[", "null", "3", '"x"', "{}", '[{"name": 1}]', "[[]]", "[" * 50_000, '[{"name": {}, "weight": "x"}]']
    )
    def test_broken_tags_are_left_out(self, text):
        tags = {f"lamdagent.{key}": text for key in ("parents", "slots", "tasks", "scales")}
        page(document(search(**tags), [BASE, run("a", 2, 0.3, parents=["base"], tags=tags)]))

    def test_nothing_is_fetched_and_only_its_own_script_runs(self):
        text = page(document(search(), RUNS), "https://host/")
        assert f'content="{policy()}"' in text and "unsafe" not in policy() and "http" not in policy()
        assert not re.findall(r"""(?:src|href|action|url)\s*[=(]\s*["']?(?:https?:)?//""", text.split('id="data"')[0])

    def test_list_of_searches_is_escaped(self):
        cells = dict.fromkeys(("name", "experiment", "status", "score", "when"), HOSTILE[2])
        text = index([cells | {"href": "search?run_id=1"}])
        index([dict.fromkeys([*cells, "href"], "\ud800")]).encode()
        assert "<img" not in text and elements(text) == elements(index([dict.fromkeys([*cells, "href"], "x")]))
        assert "No search yet" in index([])
