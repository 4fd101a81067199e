"""Whole searches end to end, each a process of its own. The store is read with MLflow's client, not with our reader."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from mlflow.entities import Run

from tests.searches import begin, client_of, end, fingerprints, of_kind, runs_of, search, tag
from tests.stunts import FOLDER

pytestmark = pytest.mark.slow
SMOKE = ("+experiment=smoke", "execution=local")
WEIGHTS = {"repeat": 0.3, "spell": 0.7}
TRIALS = 7
TESTED = 2


@dataclass
class Done:
    """A search that has ended, and the store as it was then."""

    folder: Path
    code: int
    output: str
    runs: list[Run]

    @property
    def actions(self) -> list[Run]:
        return of_kind(self.runs, "action")

    @property
    def base(self) -> Run:
        (base,) = of_kind(self.runs, "base")
        return base

    def by_id(self, run_id: str) -> Run:
        return next(run for run in self.runs if run.info.run_id == run_id)


def parents_of(run: Run) -> list[str]:
    return list(json.loads(tag(run, "parents")))


def slots_of(run: Run) -> list[str]:
    return [name for names in json.loads(tag(run, "slots")).values() for name in names if name.startswith("model-")]


def made(run: Run) -> str:
    """The LoggedModel that the run made."""
    (output,) = run.outputs.model_outputs
    return str(output.model_id)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder = tmp_path_factory.mktemp("smoke")
    code, output = end(begin(folder, *SMOKE))
    assert [path.name for path in folder.glob("mlflow.db*")] == ["mlflow.db"], "who copies the file has everything"
    assert code == 0, output
    return Done(folder, code, output, runs_of(folder, "lamdagent-smoke"))


@pytest.fixture(scope="module")
def loaded(smoke: Done, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a fresh process, without our package, gets from the store."""
    script = tmp_path_factory.mktemp("fresh") / "fresh.py"
    script.write_text(FRESH)
    best = max(smoke.actions, key=lambda run: run.data.metrics["score"])
    folders = [str(artifacts(run) / "model") for run in (best, smoke.actions[-1])]
    command = [sys.executable, "-P", str(script), f"sqlite:///{smoke.folder}/mlflow.db", *folders]
    ended = subprocess.run(command, cwd=script.parent, capture_output=True, text=True, timeout=600, check=False)
    assert ended.returncode == 0, ended.stderr
    return dict(json.loads(ended.stdout.splitlines()[-1]))


FRESH = """
import json, sys
sys.modules["lamdagent"] = sys.modules["mlflow_plugin"] = None  # as where this package was never installed
import mlflow
uri, *folders = sys.argv[1:]
mlflow.set_tracking_uri(uri)
mlflow.set_registry_uri(uri)
pipe = mlflow.transformers.load_model("models:/lamdagent-smoke@champion")
found = {"answer": pipe("Repeat the word apple.", max_new_tokens=4)[0]["generated_text"]}
from transformers import AutoModelForCausalLM, AutoTokenizer
for number, folder in enumerate(folders):
    model = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True, dtype="auto", local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    found[f"{number}"] = f"{model.dtype} {bool(tokenizer.chat_template)} {len(tokenizer) <= model.config.vocab_size}"
best = AutoModelForCausalLM.from_pretrained(folders[0], dtype="auto")
found["same"] = str(all((a == b).all() for a, b in zip(best.parameters(), pipe.model.parameters(), strict=True)))
print(json.dumps(found))
"""


def artifacts(run: Run) -> Path:
    return Path(run.info.artifact_uri.removeprefix("file://"))


class TestStore:
    def test_kinds_and_states(self, smoke: Done) -> None:
        assert [tag(run, "kind") for run in smoke.runs] == ["search", "base"] + ["action"] * TRIALS
        assert {run.info.status for run in smoke.runs} == {"FINISHED"}

    def test_every_run_is_nested_under_the_search_and_says_whose_it_is(self, smoke: Done) -> None:
        found, *others = smoke.runs
        assert tag(found, "search_id") and "mlflow.parentRunId" not in found.data.tags
        assert {run.data.tags["mlflow.parentRunId"] for run in others} == {found.info.run_id}
        assert {tag(run, "schema") for run in smoke.runs} == {"1"}
        assert "config.yaml" in names(smoke, found) and found.data.params["seed"] == "0"

    def test_tags_of_actions(self, smoke: Done) -> None:
        for run in smoke.actions:
            assert tag(run, "action") == run.data.params["action"]
            assert tag(run, "policy") == "surrogate" and tag(run, "reason")
            assert not tag(run, "status_reason") and not tag(run, "prompt_version")
        assert len(set(fingerprints(smoke.runs))) == TRIALS
        assert {tag(run, "action") for run in smoke.actions} == {"sft_full", "dpo_lora", "merge_linear", "merge_ties"}

    def test_params_have_plain_names(self, smoke: Done) -> None:
        for run in smoke.actions:
            expected = {"action", "seed", "data_fraction", *json.loads(tag(run, "slots"))}
            assert expected <= set(run.data.params)
            for slot, objects in json.loads(tag(run, "slots")).items():
                assert run.data.params[slot] == ", ".join(objects)
        assert {"learning_rate", "steps", "batch_size"} <= set(smoke.actions[0].data.params)

    def test_scores_costs_and_curves(self, smoke: Done) -> None:
        for run in [smoke.base, *smoke.actions]:
            metrics = run.data.metrics
            assert metrics["cost.seconds"] > 0 and metrics["cost.gpu_seconds"] >= 0 and "score_stderr" in metrics
            assert {f"task.{name}_stderr" for name in WEIGHTS} <= set(metrics)
            weighed = sum(weight * metrics[f"task.{name}"] for name, weight in WEIGHTS.items())
            assert metrics["score"] == pytest.approx(weighed)
        sft = next(run for run in smoke.actions if tag(run, "action") == "sft_full")
        curve = client_of(smoke.folder).get_metric_history(sft.info.run_id, "loss")
        assert len(curve) > 1 and len({point.step for point in curve}) == len(curve)

    def test_test_split_is_scored_for_the_base_and_the_top_only(self, smoke: Done) -> None:
        tested = [run for run in smoke.runs if "test.score" in run.data.metrics]
        assert len(tested) == TESTED + 1 and smoke.base in tested
        others = [run for run in smoke.actions if run not in tested]
        least = min(run.data.metrics["score"] for run in tested if run is not smoke.base)
        assert all(run.data.metrics["score"] <= least for run in others)
        for run in tested:
            assert {"test.repeat", "test.repeat_stderr", "test.spell", "test.score_stderr"} <= set(run.data.metrics)

    def test_finalists_have_gains_with_errors_and_a_standing(self, smoke: Done) -> None:
        finalists = [run for run in smoke.actions if tag(run, "state")]
        assert len(finalists) == TESTED and {tag(run, "state") for run in smoke.actions} == {"selected", "eligible", ""}
        base = smoke.base.data.metrics
        for run in finalists:
            found = run.data.metrics
            for prefix in ("", "test."):
                assert found[f"{prefix}gain"] == pytest.approx(found[f"{prefix}score"] - base[f"{prefix}score"])
                assert found[f"{prefix}gain_low"] <= found[f"{prefix}gain"] <= found[f"{prefix}gain_high"]
            assert json.loads(tag(run, "pairing")) == {"search": "paired", "test": "paired"}
            assert "on the search split" in tag(run, "state_reason") and f"{tag(run, 'state')}  model-" in smoke.output
        intervals = re.findall(r" [+-]0\.\d{3} \[[+-]0\.\d{3}, [+-]0\.\d{3}\] +[│|]", smoke.output)
        assert len(intervals) == TESTED, "in the table"
        (selected,) = (run for run in finalists if tag(run, "state") == "selected")
        assert tag(smoke.runs[0], "champion") == selected.info.run_id

    def test_best_so_far_is_a_curve_on_the_search_run(self, smoke: Done) -> None:
        points = client_of(smoke.folder).get_metric_history(smoke.runs[0].info.run_id, "score")
        by_step = [point.value for point in sorted(points, key=lambda point: point.step)]
        assert by_step == sorted(by_step) and by_step[0] == smoke.base.data.metrics["score"]
        assert by_step[-1] == max(run.data.metrics["score"] for run in [smoke.base, *smoke.actions])

    def test_artifacts(self, smoke: Done) -> None:
        for run in smoke.actions:
            assert {"model", "recipe.yaml", "memory.md", "decision.json", "samples"} <= names(smoke, run)
            files = {path.name for path in (artifacts(run) / "model").iterdir()}
            assert {"config.json", "model.safetensors", "tokenizer.json"} <= files
            assert not [name for name in files if name.endswith((".bin", ".pt", ".pkl"))]
            assert not (artifacts(run).parent / "staging").exists()
            learnt = artifacts(run) / "adapter" / "adapter_model.safetensors"
            assert learnt.exists() == tag(run, "action").endswith("_lora")
        assert any(tag(run, "action").endswith("_lora") for run in smoke.actions)
        assert "samples" in names(smoke, smoke.base) and "model" not in names(smoke, smoke.base)
        memory = (artifacts(smoke.actions[-1]) / "memory.md").read_text()
        assert "Best pipelines" in memory and "sft_full(" in memory


class TestLineage:
    def test_parents_are_in_slot_order(self, smoke: Done) -> None:
        names = {f"model-{tag(run, 'model_fingerprint')[:8]}": run.info.run_id for run in smoke.runs[1:]}
        assert parents_of(smoke.base) == []
        for run in smoke.actions:
            assert parents_of(run) == [names[model] for model in slots_of(run)]
        assert max(len(parents_of(run)) for run in smoke.actions) >= 2

    def test_models_are_inputs_and_outputs(self, smoke: Done) -> None:
        for run in smoke.actions:
            given = {model.model_id for model in run.inputs.model_inputs}
            assert given == {made(smoke.by_id(parent)) for parent in parents_of(run)}
            model = client_of(smoke.folder).get_logged_model(made(run))
            assert model.source_run_id == run.info.run_id
            assert model.tags["lamdagent.weights"] == f"runs:/{run.info.run_id}/model"

    def test_description_links_every_parent(self, smoke: Done) -> None:
        for run in smoke.actions:
            text = run.data.tags["mlflow.note.content"]
            places = [text.index(f"#/experiments/{run.info.experiment_id}/runs/{id_})") for id_ in parents_of(run)]
            assert places == sorted(places)

    def test_recipe_leads_from_the_base_to_the_run(self, smoke: Done) -> None:
        for run in smoke.actions:
            steps = yaml.safe_load((artifacts(run) / "recipe.yaml").read_text())["steps"]
            assert steps[0]["fingerprint"] == tag(smoke.base, "fingerprint") and steps[0]["source"]
            assert steps[-1]["fingerprint"] == tag(run, "fingerprint")
            assert {step["run_id"] for step in steps[1:]} >= {*parents_of(run), run.info.run_id} - {
                smoke.base.info.run_id
            }
            for step in steps[1:]:
                known = client_of(smoke.folder).get_run(step["run_id"]).data
                assert known.tags["lamdagent.fingerprint"] == step["fingerprint"]
                assert {k: str(v) for k, v in step["hyperparameters"].items()}.items() <= known.params.items()


class TestChampion:
    def test_alias_leads_to_the_best_run(self, smoke: Done) -> None:
        best = max(smoke.actions, key=lambda run: run.data.metrics["score"])
        versions = client_of(smoke.folder).search_model_versions("name = 'lamdagent-smoke'")
        first = min(versions, key=lambda version: int(version.version))
        assert first.run_id == best.info.run_id and first.description.strip().startswith(
            f"# model-{fingerprints([best])[0][:8]}"
        )
        assert "@champion" in smoke.output and "mlflow ui" in smoke.output

    def test_its_run_has_what_it_needs_to_live_on(self, smoke: Done) -> None:
        best = max(smoke.actions, key=lambda run: run.data.metrics["score"])
        assert {"model_card.md", "rebuild"} <= names(smoke, best)
        assert {"rebuild.sh", "requirements.txt", "README.md"} <= {
            f.name for f in (artifacts(best) / "rebuild").iterdir()
        }
        card = (artifacts(best) / "model_card.md").read_text()
        assert card.startswith("---\n") and "license: apache-2.0" in card
        assert (artifacts(best) / "model" / "README.md").read_text() == card, "so that model/ can go to a hub as it is"
        others = [run for run in smoke.actions if run is not best]
        assert not any({"model_card.md", "rebuild"} & names(smoke, run) for run in others)

    def test_its_weights_are_on_the_disk_once(self, smoke: Done) -> None:
        best = max(smoke.actions, key=lambda run: run.data.metrics["score"])
        model = client_of(smoke.folder).get_logged_model(made(best))
        registered = Path(model.artifact_location.removeprefix("file://")) / "model" / "model.safetensors"
        assert registered.samefile(artifacts(best) / "model" / "model.safetensors")
        assert registered.stat().st_mode & 0o777 == 0o644, "not private, as safetensors writes it"

    def test_loads_in_a_process_that_does_not_know_us(self, loaded: dict[str, str]) -> None:
        assert loaded["answer"].startswith("Repeat the word apple.")
        assert loaded["same"] == "True"

    def test_weights_are_a_plain_model_of_the_same_precision(self, loaded: dict[str, str]) -> None:
        assert loaded["0"] == loaded["1"] == "torch.bfloat16 True True"

    def test_answers_over_http(self, served: str) -> None:
        asked = {"messages": [{"role": "user", "content": "Spell the word apple."}], "max_tokens": 5}
        request = urllib.request.Request(
            f"{served}/invocations", json.dumps(asked).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as reply:
            (answer,) = json.load(reply)
        assert answer["object"] == "chat.completion" and 1 <= answer["usage"]["completion_tokens"] <= 5
        # A pico model may well sample its end token first: an empty answer is an answer.
        (choice,) = answer["choices"]
        assert choice["message"]["role"] == "assistant" and isinstance(choice["message"]["content"], str)
        assert answer["model"].startswith("runs:/"), "where its weights are, not a path of this machine"


@pytest.fixture(scope="module")
def served(smoke: Done) -> Iterator[str]:
    """`mlflow models serve` of the champion, as a user starts it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).parent / "mlflow"), "models", "serve", "--env-manager", "local"]
    environment = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{smoke.folder}/mlflow.db"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with (smoke.folder / "serve.log").open("w") as log:
        process = subprocess.Popen(
            [*command, "-m", "models:/lamdagent-smoke@champion", "-p", str(port)],
            cwd=smoke.folder,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        while not answers(f"http://127.0.0.1:{port}/ping"):
            assert process.poll() is None, (smoke.folder / "serve.log").read_text()
            time.sleep(0.3)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def answers(url: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as reply:
        return bool(reply.status == 200)
    return False


def test_same_command_again_goes_on(smoke: Done, loaded: dict[str, str]) -> None:
    code, output = search(smoke.folder, *SMOKE, "budget.trials=2", "champion.beyond=1000")
    assert code == 0, output
    assert "no gain on the search split is beyond the noise (champion.beyond=1000): the base stays" in output
    runs = runs_of(smoke.folder, "lamdagent-smoke")
    searches = of_kind(runs, "search")
    assert len(searches) == 2 and tag(searches[0], "search_id") == tag(searches[1], "search_id")
    assert len(of_kind(runs, "base")) == 1
    assert tag(searches[1], "champion") == of_kind(runs, "base")[0].info.run_id
    assert {tag(run, "state") for run in of_kind(runs, "action")} <= {"", "evaluated", "eligible"}
    assert len(set(fingerprints(runs))) == len(fingerprints(runs)) == TRIALS + 2
    assert {run.info.status for run in runs} == {"FINISHED"}
    memory = (artifacts(of_kind(runs, "action")[-1]) / "memory.md").read_text()
    assert f"model-{fingerprints(runs)[0][:8]}" in memory


def names(done: Done, run: Run) -> set[str]:
    return {artifact.path for artifact in client_of(done.folder).list_artifacts(run.info.run_id)}


BUDGET = 5
GATED = ("+experiment=stunts", "+action=gated", "~actions.nudge", f"budget.trials={BUDGET}")


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> list[Done]:
    """One search, ended three times in the middle of an action, each time in another way; then it goes to its end."""
    folder = tmp_path_factory.mktemp("stops")
    stops = []
    for call, how in ((2, signal.SIGKILL), (4, signal.SIGINT), (6, signal.SIGTERM), (0, None)):
        (folder / "block").write_text(str(call))
        process = begin(folder, *GATED, **{FOLDER: str(folder)})
        if how is not None:
            send_in_the_middle(process, folder, how)
        if how == signal.SIGINT:
            read_until(process, "Ctrl-C once more")
            os.kill(process.pid, how)
        code, output = end(process)  # waits for the worker too: it holds the other end of the pipe
        stops.append(Done(folder, code, output, runs_of(folder, "stunts")))
    return stops


def send_in_the_middle(process: "subprocess.Popen[str]", folder: Path, how: signal.Signals) -> None:
    """Wait until the worker says that it is inside the action that never ends, then signal the driver."""
    read_until(process, "blocked")
    assert [run.info.status for run in of_kind(runs_of(folder, "stunts"), "action")][-1] == "RUNNING"
    os.kill(process.pid, how)


def read_until(process: "subprocess.Popen[str]", words: str) -> None:
    """Read the search's output up to a line with `words`."""
    assert process.stdout is not None
    seen = ""
    while words not in seen:
        line = process.stdout.readline()
        assert line, f"the search ended before it said {words!r}:\n{seen}"
        seen += line


class TestStops:
    REASONS = ("gone", "interrupted", "interrupted")

    def test_exit_codes(self, stopped: list[Done]) -> None:
        assert [done.code for done in stopped] == [-signal.SIGKILL, 130, 130, 0], [done.output for done in stopped]
        assert "the same command goes on" in stopped[1].output
        assert "Traceback" not in stopped[1].output + stopped[2].output

    def test_states_after_each_stop(self, stopped: list[Done]) -> None:
        states = [done.runs[0].info.status for done in stopped]
        assert states == ["RUNNING", "KILLED", "KILLED", "FINISHED"]  # nobody is left to say that SIGKILL came
        for done in stopped[1:]:
            assert "RUNNING" not in {run.info.status for run in done.runs[1:]}

    def test_it_is_one_search_run_throughout(self, stopped: list[Done]) -> None:
        runs = stopped[-1].runs
        assert len(of_kind(runs, "search")) == len(of_kind(runs, "base")) == 1
        assert not tag(runs[0], "status_reason")

    def test_only_the_action_in_flight_is_lost(self, stopped: list[Done]) -> None:
        runs = stopped[-1].runs
        failed = [run for run in runs if run.info.status == "FAILED"]
        assert len(failed) == len(self.REASONS)
        for run, reason in zip(failed, self.REASONS, strict=True):
            assert reason in tag(run, "status_reason")
        finished = fingerprints(runs)
        assert len(finished) == len(set(finished)) == BUDGET
        assert not list(stopped[-1].folder.rglob("staging"))


FAULTS = ("+experiment=faults", "agent=random", "search.seed=3", "budget.trials=20")


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder = tmp_path_factory.mktemp("faults")
    code, output = search(folder, *FAULTS, "execution=local")
    return Done(folder, code, output, runs_of(folder, "faults"))


class TestFaultyActions:
    """Actions of a user that raise, end the worker or hang: the search outlives them, and its seed repeats it."""

    def test_the_search_ends_well(self, faults: Done) -> None:
        assert faults.code == 0, faults.output
        assert "every legal action has been tried" in faults.output
        assert faults.runs[0].info.status == "FINISHED"
        assert "RUNNING" not in {run.info.status for run in faults.runs}

    def test_reasons_are_for_people(self, faults: Done) -> None:
        reasons = {
            tag(run, "action"): tag(run, "status_reason") for run in faults.actions if run.info.status == "FAILED"
        }
        assert set(reasons) == {"raises", "exits", "hangs"}
        assert "the teacher is ill" in reasons["raises"]
        assert "exit code 7" in reasons["exits"]
        assert "longer than its limit" in reasons["hangs"]
        raised = next(run for run in faults.actions if tag(run, "action") == "raises")
        assert "Traceback" in (artifacts(raised) / "failure.txt").read_text()

    def test_good_actions_go_on_and_a_lost_worker_is_tried_once_more(self, faults: Done) -> None:
        tried = [tag(run, "action") for run in faults.actions]
        assert {name: tried.count(name) for name in tried} == {"nudge": 3, "raises": 1, "hangs": 1, "exits": 2}
        assert all("score" in run.data.metrics for run in faults.actions if tag(run, "action") == "nudge")

    def test_failures_reach_the_memory(self, faults: Done) -> None:
        texts = [(artifacts(run) / "memory.md").read_text() for run in faults.actions]
        place = [tag(run, "action") for run in faults.actions].index("raises")
        assert all("the teacher is ill" in text for text in texts[place + 1 :])

    def test_same_seed_same_choices(self, faults: Done, tmp_path: Path) -> None:
        code, output = search(tmp_path, *FAULTS, "execution=local", "budget.trials=5")
        assert code == 0, output
        again = [
            (tag(run, "fingerprint"), tag(run, "reason")) for run in of_kind(runs_of(tmp_path, "faults"), "action")
        ]
        assert len(again) >= 5, "a lost worker is no trial"
        assert again == [(tag(run, "fingerprint"), tag(run, "reason")) for run in faults.actions][: len(again)]

    def test_another_experiment_uses_what_is_finished_and_runs_the_rest_inline(self, faults: Done) -> None:
        more = "actions.nudge.hyperparameters.amount=[0.1,0.2,0.3,0.4]"
        only = ("~actions.raises", "~actions.exits", "~actions.hangs", "tracking.experiment=other", "execution=inline")
        code, output = search(faults.folder, *FAULTS, *only, more)
        assert code == 0, output
        runs = runs_of(faults.folder, "other")
        reused = [run for run in of_kind(runs, "action") if tag(run, "reused_from")]
        known = {run.info.run_id: run for run in faults.actions}
        assert len(reused) == 3 and len(fingerprints(runs)) == len(set(fingerprints(runs))) == 4
        for run in reused:
            first = known[tag(run, "reused_from")]
            assert tag(run, "fingerprint") == tag(first, "fingerprint")
            assert run.data.metrics["score"] == first.data.metrics["score"]
            assert tag(run, "weights") == f"runs:/{first.info.run_id}/model"
            assert set(json.loads(tag(run, "parents"))) <= {other.info.run_id for other in runs}, "of this experiment"
        (fresh,) = (run for run in of_kind(runs, "action") if not tag(run, "reused_from"))
        assert fresh.data.params["amount"] == "0.4" and (artifacts(fresh) / "model" / "config.json").exists()


def test_wall_clock_ends_a_search_cleanly(tmp_path: Path) -> None:
    endless = ("actions.nudge.slots.model.role=any", "budget.trials=null", "budget.wall_clock_minutes=0.1")
    code, output = search(tmp_path, "+experiment=stunts", "agent=random", *endless)
    assert code == 0, output
    assert "would not fit into 0.1 minutes" in output
    runs = runs_of(tmp_path, "stunts")
    cut_off = [run for run in runs if run.info.status != "FINISHED"]
    assert {tag(run, "failure_kind") for run in cut_off} <= {"budget"}, "only an action that was slower than the others"
    assert "test.score" in runs[1].data.metrics or len(runs) == 2  # a machine too slow for one action tests nothing
