"""The `lm-eval` evaluator of MLflow on a real model and real tasks, and the dataset that names them."""

import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
from huggingface_hub import ModelCard

from lamdagent.errors import UserError
from lamdagent.evaluation.task import Task
from lamdagent.execution.progress import Progress
from mlflow_plugin.evaluator import named

TASKS = ["pico_repeat", "pico_spell"]
ASKED = {"model_type": "lm-eval", "evaluators": "lm-eval"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("store")
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    mlflow.create_experiment("evaluator", str(folder / "mlruns"))
    mlflow.set_experiment("evaluator")
    yield
    mlflow.set_tracking_uri(None)


@pytest.fixture
def data(store: None):
    return mlflow.data.from_lm_eval(TASKS, folder="builtin", split="search", limit=6)


@pytest.fixture(scope="module")
def scores(pico_folder: str) -> dict[str, float]:
    """What a search would measure."""
    from lamdagent.actions.context import Context
    from lamdagent.evaluation.harness import evaluate

    tasks = [Task(n, n, "acc,none", folder="builtin", splits={"search": "search"}, limits={"search": 6}) for n in TASKS]
    seen: list[Progress] = []
    found = evaluate(*Context(output=Path()).load(pico_folder), tasks, "search", seen.append)
    values = {f"{name}.acc": score.value for name, score in found.items()}
    return values | {f"{name}.acc_stderr": score.stderr for name, score in found.items()}


def test_a_folder_gets_the_scores_of_a_search(data, pico_folder, scores):
    with mlflow.start_run() as run:
        result = mlflow.models.evaluate(None, data, **ASKED, evaluator_config={"model": pico_folder})
    assert result.metrics == pytest.approx(scores) and len(scores) == 4
    stored = mlflow.get_run(run.info.run_id)
    assert stored.data.metrics == pytest.approx(scores)
    assert [i.dataset.digest for i in stored.inputs.dataset_inputs] == [data.digest]


@pytest.mark.slow
def test_scores_hang_on_a_model_reached_by_its_alias(data, pico_folder, scores):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    parts = {
        "model": AutoModelForCausalLM.from_pretrained(pico_folder),
        "tokenizer": AutoTokenizer.from_pretrained(pico_folder),
    }
    card = ModelCard("pico", ignore_metadata_errors=True)  # without one MLflow asks the hub
    options = {"task": "text-generation", "model_card": card, "pip_requirements": [], "registered_model_name": "pico"}
    with mlflow.start_run():
        model_id = mlflow.transformers.log_model(parts, name="pico", **options).model_id
    mlflow.MlflowClient().set_registered_model_alias("pico", "champion", 1)
    for address in ("models:/pico@champion", f"models:/{model_id}"):
        with mlflow.start_run() as run:
            result = mlflow.models.evaluate(address, data, **ASKED)
        assert result.metrics == pytest.approx(scores)
        linked = [m for m in mlflow.get_logged_model(model_id).metrics if m.run_id == run.info.run_id]
        assert {m.key: m.value for m in linked} == pytest.approx(scores)
        assert {(m.dataset_name, m.dataset_digest) for m in linked} == {(data.name, data.digest)}


def test_a_model_of_a_search_is_found_by_its_id(data, pico_folder, scores):
    model = mlflow.create_external_model("of-a-search", tags={"lamdagent.weights": pico_folder})
    with mlflow.start_run():
        mlflow.models.evaluate(None, data, model_id=model.model_id, **ASKED)
    linked = mlflow.get_logged_model(model.model_id).metrics
    assert {m.key: m.value for m in linked} == pytest.approx(scores)


def test_tasks_may_be_named_beside_any_data(store, pico_folder, scores):
    import pandas as pd

    config = {"model": pico_folder, "tasks": TASKS[:1], "folder": "builtin", "split": "search", "limit": 6}
    with mlflow.start_run():
        result = mlflow.models.evaluate(None, pd.DataFrame({"a": [1]}), **ASKED, evaluator_config=config)
    assert result.metrics == pytest.approx({k: v for k, v in scores.items() if k.startswith(TASKS[0])})


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model": "."}, "No task was named"),
        ({"tasks": ["pico_spell"], "folder": "builtin"}, "needs a model"),
        ({"tasks": ["pico_spel"], "folder": "builtin", "model": None}, "there is no lm-eval task 'pico_spel'"),
        ({"tasks": ["pico_spell"], "folder": "nowhere", "model": None}, "folder 'nowhere' does not exist"),
    ],
)
def test_faults_are_said_plainly(store, pico_folder, config, words):
    import pandas as pd

    config = {key: pico_folder if value is None else value for key, value in config.items()}
    config |= {"model": pico_folder} if config.get("model") == "." else {}
    with mlflow.start_run(), pytest.raises(UserError, match=words):
        mlflow.models.evaluate(None, pd.DataFrame({"a": [1]}), **ASKED, evaluator_config=config)


def test_it_answers_to_its_own_model_type_only(store):
    import pandas as pd

    table = pd.DataFrame({"x": [1.0, 2.0], "y": [1.0, 2.0], "p": [1.0, 2.0]})
    with mlflow.start_run():
        result = mlflow.models.evaluate(data=table, targets="y", predictions="p", model_type="regressor")
    assert result.metrics["mean_absolute_error"] == 0.0 and not [key for key in result.metrics if "pico" in key]


def test_digest_tells_what_was_measured():
    def digest(*tasks: str, **options) -> str:
        return mlflow.data.from_lm_eval(list(tasks), folder="builtin", **options).digest

    assert digest(*TASKS) == digest(*TASKS)
    assert len({digest(*TASKS), digest(TASKS[0]), digest(*TASKS, limit=3), digest(*TASKS, split="test")}) == 4


def test_metric_names_are_ones_that_mlflow_takes():
    figures = {
        "alias": "gsm8k",
        "exact_match,strict-match": 0.5,
        "exact_match_stderr,strict-match": 0.1,
        "n,none": "N/A",
    }
    names = {"gsm8k.exact_match.strict-match": 0.5, "gsm8k.exact_match.strict-match_stderr": 0.1}
    assert named("gsm8k", figures) == names
    assert list(named("a@b", {"f1[x],none": 1})) == ["a_b.f1_x_"]


def test_mlflow_alone_stays_light():
    code = (
        "import mlflow, sys, mlflow.models, mlflow.data; mlflow.data.from_lm_eval; mlflow.models.list_evaluators();"
        "print([name for name in ('torch', 'transformers', 'lm_eval', 'datasets', 'hydra') if name in sys.modules],"
        "'lm-eval' in mlflow.models.list_evaluators())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "[] True"
