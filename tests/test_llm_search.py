"""A whole search whose LLM answers well, then nonsense, then 429, then never: it ends, and tells who decided what."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run, Trace

from tests.endpoint import Answer, Endpoint, Fails, Hangs, Says, obedient
from tests.searches import client_of, of_kind, runs_of, search, tag

pytestmark = pytest.mark.slow
KEY = "sk-secret-0123456789"
TROUBLE = ("works", "nonsense", "429", "hangs")
"""What the endpoint does to the decisions of each trial."""


@dataclass
class Moody:
    """Well for the first trial, worse for each further one; tells the trials apart by the reflections between them."""

    trial: int = 0
    seen: list[str] = field(default_factory=list)
    """The mood in which each request was answered."""

    def __call__(self, index: int, request: Mapping[str, Any]) -> Answer:
        mood = TROUBLE[min(self.trial, len(TROUBLE) - 1)]
        self.seen.append(mood)
        if not any("### " in message["content"] for message in request["messages"]):
            self.trial += 1  # the reflection after a trial; it is answered, so that the endpoint never counts as down
            return Says(f"Notes after trial {self.trial}: training helps.")
        moods = {"works": obedient(index, request), "nonsense": Says("I would rather not."), "429": Fails(429)}
        return moods.get(mood, Hangs())


@dataclass
class Done:
    policy: str
    folder: Path
    code: int
    output: str
    runs: list[Run]
    traces: list[Trace]
    requests: list[Mapping[str, Any]]
    headers: list[Mapping[str, str]]
    moods: list[str]

    @property
    def actions(self) -> list[Run]:
        return of_kind(self.runs, "action")


@pytest.fixture(scope="module", params=["llm", "hybrid"])
def done(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Done:
    folder = tmp_path_factory.mktemp(request.param)
    moody = Moody()
    with Endpoint(moody) as endpoint:
        named = ["agent=llm"] if request.param == "llm" else []  # the hybrid is the default with an LLM
        agent = (
            *named,
            "agent.model=openai/test",
            f"agent.api_base={endpoint.url}",
            "agent.timeout_s=5",  # a first call on a busy machine takes more than a second
            "agent.retries=1",
        )
        budget = f"budget.trials={len(TROUBLE)}"
        code, output = search(
            folder, "+experiment=smoke", *agent, "agent.corrections=1", budget, "search.test_top=1", OPENAI_API_KEY=KEY
        )
    runs = runs_of(folder, "lamdagent-smoke")
    traces = client_of(folder).search_traces(locations=[runs[0].info.experiment_id], max_results=500)
    return Done(
        request.param, folder, code, output, runs, list(traces), endpoint.requests, endpoint.headers, moody.seen
    )


def traces_of(done: Done, run: Run) -> list[Trace]:
    experiment = run.info.experiment_id
    return list(client_of(done.folder).search_traces(locations=[experiment], run_id=run.info.run_id, max_results=100))


def test_the_search_ends_well(done: Done) -> None:
    assert done.code == 0, done.output
    assert {run.info.status for run in done.runs} == {"FINISHED"}
    assert len(done.actions) == len(TROUBLE) == len({tag(run, "fingerprint") for run in done.actions})
    assert "openai/test chooses" in done.output
    assert set(done.moods) == set(TROUBLE)


def test_policy_and_reason_say_who_decided(done: Done) -> None:
    assert [tag(run, "policy") for run in done.actions] == [done.policy, "surrogate", "surrogate", "surrogate"]
    first, *others = [tag(run, "reason") for run in done.actions]
    assert first.startswith("looks promising")
    assert all("fallback" in reason and "no usable choice" in reason for reason in others)
    assert "RateLimit" in others[1] and "Timeout" in others[2]


def test_prompt_version_and_raw_replies_are_kept(done: Done) -> None:
    versions = {tag(run, "prompt_version") for run in done.actions}
    assert len(versions) == 1 and versions != {""}
    for run, mood in zip(done.actions, TROUBLE, strict=True):
        decision = json.loads((Path(run.info.artifact_uri) / "decision.json").read_text())
        assert decision["offered"] and decision["chosen"]
        replies = [call["reply"] for call in decision.get("llm", [])]
        assert (replies == ["I would rather not."] * 2) == (mood == "nonsense")


def test_every_call_is_a_trace_on_the_run_it_decided(done: Done) -> None:
    linked = [len(traces_of(done, run)) for run in done.actions]
    # Questions, corrections and retries of the decision, and the reflection that came after the run.
    own = linked[0] == 1 + 2 + 1  # the hybrid's shortlist, then an action of the LLM's own
    assert linked[1:] == [2 + 1] * 3 and (linked[0] == (2 + 1 if done.policy == "llm" else 1 + 1) or own)
    assert sum(linked) == len(done.traces) == len(done.requests)
    good = traces_of(done, done.actions[0])
    assert all(trace.info.state.value == "OK" for trace in good)
    assert all("messages" in json.dumps(trace.data.spans[0].inputs) for trace in good)
    states = [trace.info.state.value for trace in traces_of(done, done.actions[3])]
    assert states.count("ERROR") == 2


def test_notes_reach_the_memory_of_the_next_trial(done: Done) -> None:
    texts = [(Path(run.info.artifact_uri) / "memory.md").read_text() for run in done.actions]
    assert "Notes after" not in texts[0]
    assert all(f"Notes after trial {n}" in text for n, text in enumerate(texts[1:], 1))
    assert tag(done.runs[0], "reflection") == f"Notes after trial {len(TROUBLE)}: training helps."


def test_the_key_went_to_the_endpoint_and_nowhere_else(done: Done) -> None:
    assert {headers.get("Authorization") for headers in done.headers} == {f"Bearer {KEY}"}
    assert KEY not in done.output
    files = [path for path in done.folder.rglob("*") if path.is_file()]
    assert any(path.name == "mlflow.db" for path in files) and len(files) > 20
    assert [path.name for path in files if KEY.encode() in path.read_bytes()] == []


@pytest.mark.slow
def test_an_endpoint_that_was_never_there(tmp_path: Path) -> None:
    """Down at the start and for ever: the surrogate searches, and the search says so."""
    agent = ("agent.model=openai/test", "agent.api_base=http://127.0.0.1:9/v1", "agent.timeout_s=1", "agent.retries=0")
    code, output = search(
        tmp_path, "+experiment=smoke", *agent, "budget.trials=3", "search.test_top=1", OPENAI_API_KEY=KEY
    )
    assert code == 0, output
    actions = of_kind(runs_of(tmp_path, "lamdagent-smoke"), "action")
    assert len(actions) == 3 and {run.info.status for run in actions} == {"FINISHED"}
    assert all(tag(run, "policy") == "surrogate" and "no usable choice" in tag(run, "reason") for run in actions)
