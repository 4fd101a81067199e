"""lm-eval in process on a pico model: scores, samples, faults; and what decides that two scores may be compared."""

import dataclasses
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lamdagent.errors import ActionFailed, UserError
from lamdagent.evaluation.fingerprint import BUILTIN, task_files, task_fingerprint
from lamdagent.evaluation.task import Task
from lamdagent.execution.progress import Progress
from tests import forkserver

SPLITS = {"search": "search", "test": "test"}
BFCL = Task("bfcl", "bfcl", "right_call,none", folder="builtin", splits=SPLITS, limits={"search": 3})

ECHO = """
task: echo
custom_dataset: !function items.load
validation_split: search
test_split: test
output_type: generate_until
doc_to_text: "{{prompt}}"
doc_to_target: "{{target}}"
generation_kwargs: {until: [], max_gen_toks: 8, do_sample: false}
process_results: !function items.judge
metric_list:
  - {metric: long, aggregation: mean, higher_is_better: true}
  - {metric: odd, aggregation: !function items.odd, higher_is_better: true}
"""
ITEMS = """
from datasets import Dataset

SHARED = "Repeat the word apple. Spell the word bridge. What is the first letter of cloud? The word is dragon. "

def load(**_):
    rows = [{"id": f"item-{n}", "prompt": SHARED + "a" * n + " kettle", "target": "x"} for n in range(12)]
    return {"search": Dataset.from_list(rows[:6]), "test": Dataset.from_list(rows[6:])}

def judge(doc, results):
    return {"long": float(len(results[0]) % 2), "odd": 1.0}

def odd(values):
    return float("nan")
"""


@pytest.fixture(scope="module")
def loaded(pico_folder: str) -> tuple[Any, Any]:
    """A pico model that says letters, since an untrained one may well say nothing."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(pico_folder)
    model = AutoModelForCausalLM.from_pretrained(pico_folder).float()
    silent = [not word_of(tokenizer, token) for token in range(model.config.vocab_size)]
    model.lm_head.bias = torch.nn.Parameter(-1000.0 * torch.tensor(silent))
    return model, tokenizer


def word_of(tokenizer: Any, token: int) -> str:
    """The token's letters; empty for one that has other signs or none."""
    word = tokenizer.decode(token, skip_special_tokens=True).strip()
    return word if word.isalpha() else ""


@pytest.fixture(scope="module")
def talking(pico_folder: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pico model in a folder that says something, whatever it is asked."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path_factory.mktemp("talking")
    tokenizer = AutoTokenizer.from_pretrained(pico_folder)
    model = AutoModelForCausalLM.from_pretrained(pico_folder, dtype="float32")
    torch.manual_seed(0)
    with torch.no_grad():
        model.lm_head.weight.normal_()  # of many logits one is above 0
        model.lm_head.weight[[token for token in range(len(tokenizer)) if not word_of(tokenizer, token)]] = 0.0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def echo(tmp_path: Path) -> Task:
    (tmp_path / "echo.yaml").write_text(ECHO)
    (tmp_path / "items.py").write_text(ITEMS)
    return Task("echo", "echo", "long,none", folder=str(tmp_path), splits=SPLITS)


def evaluate(loaded: tuple[Any, Any], task: Task, split: Any = "search", **keywords: Any) -> Any:
    from lamdagent.evaluation.harness import evaluate

    seen: list[Progress] = []
    return evaluate(*loaded, [task], split, seen.append, **keywords)[task.name], seen


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_scores_samples_and_progress(loaded: tuple[Any, Any], echo: Task, tmp_path: Path) -> None:
    loaded[0].train()
    before = json.dumps(loaded[1].init_kwargs, default=str), loaded[1].padding_side
    score, seen = evaluate(loaded, echo, samples=tmp_path / "samples", batch_size=4)
    rows = lines(tmp_path / "samples" / "echo.jsonl")
    values = [row["score"] for row in rows]
    assert [row["id"] for row in rows] == [f"item-{n}" for n in range(6)]
    assert all(row["reply"] and row["prompt"].startswith("<|im_start|>user\nRepeat") for row in rows)
    assert score.value == pytest.approx(sum(values) / 6)
    assert score.stderr == pytest.approx((score.value * (1 - score.value) / 5) ** 0.5)
    assert [(step.phase, step.done, step.total) for step in seen] == [("evaluate echo", n, 6) for n in (0, 4, 6)]
    assert loaded[0].training and before == (json.dumps(loaded[1].init_kwargs, default=str), loaded[1].padding_side)
    again, _ = evaluate(loaded, echo, samples=tmp_path / "again", batch_size=1)
    assert again == score and lines(tmp_path / "again" / "echo.jsonl") == rows  # with and without a shared prefix


def test_lm_eval_keeps_its_lines_to_itself(
    loaded: tuple[Any, Any], echo: Task, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        evaluate(loaded, echo)
    assert not [record.getMessage() for record in caplog.records if record.name.startswith("lm_eval")]


def test_split_limit_and_options(loaded: tuple[Any, Any], echo: Task, tmp_path: Path) -> None:
    options = {"generation_kwargs": {"until": [], "max_gen_toks": 2, "do_sample": False}}
    task = dataclasses.replace(echo, limits={"test": 4}, options=options)
    evaluate(loaded, task, "test", samples=tmp_path)
    rows = lines(tmp_path / "echo.jsonl")
    assert [row["id"] for row in rows] == ["item-6", "item-7", "item-8", "item-9"]
    assert all(len(loaded[1](row["reply"])["input_ids"]) <= 4 for row in rows)


def test_not_a_number_is_a_failed_action(loaded: tuple[Any, Any], echo: Task) -> None:
    import copy

    import torch

    broken = copy.deepcopy(loaded[0])
    with torch.no_grad():
        broken.model.norm.weight.fill_(float("nan"))
    with pytest.raises(ActionFailed, match="not a number") as failure:
        evaluate((broken, loaded[1]), echo)
    assert failure.value.kind == "bad_model"
    assert not loaded[0]._forward_hooks


def test_score_that_is_not_a_number(loaded: tuple[Any, Any], echo: Task) -> None:
    with pytest.raises(ActionFailed, match="score of echo is not a number"):
        evaluate(loaded, dataclasses.replace(echo, metric="odd,none"))


def test_only_empty_replies(loaded: tuple[Any, Any], echo: Task) -> None:
    import copy

    import torch

    silent = copy.deepcopy(loaded[0])
    ends = torch.zeros(silent.config.vocab_size)
    ends[loaded[1].eos_token_id] = 1000.0
    silent.lm_head.bias = torch.nn.Parameter(ends)
    with pytest.raises(ActionFailed, match="empty reply to all 6 items") as failure:
        evaluate((silent, loaded[1]), echo)
    assert failure.value.kind == "bad_model"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metric": "acc,none"}, "no metric 'acc,none'; it has: long,none"),
        ({"task": "missing"}, "no lm-eval task 'missing'"),
        ({"folder": "/no/such"}, "does not exist"),
        ({"splits": {"search": "dev"}}, "which its dataset lacks"),
        ({"splits": {"test": "test"}}, "does not say"),
    ],
)
def test_user_faults(loaded: tuple[Any, Any], echo: Task, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        evaluate(loaded, dataclasses.replace(echo, **change))


def test_likelihood_task(loaded: tuple[Any, Any], tmp_path: Path) -> None:
    task = Task("smoke", "pico_repeat", "acc,none", folder="builtin", splits=SPLITS)
    score, _ = evaluate(loaded, task, samples=tmp_path)
    assert 0 <= score.value <= 1
    assert len(lines(tmp_path / "smoke.jsonl")) > 0


def test_evaluation_and_training_send_the_same_prompt(loaded: tuple[Any, Any], tmp_path: Path) -> None:
    from lamdagent.tooluse import bfcl
    from lamdagent.tooluse.prompt import messages

    evaluate(loaded, BFCL, samples=tmp_path)
    item = bfcl.items("search", calls=True)[0]
    chat = messages(item.functions, item.question)
    expected = loaded[1].apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert lines(tmp_path / "bfcl.jsonl")[0]["prompt"] == expected


@pytest.mark.slow
def test_command_line_of_lm_eval_gives_the_same_scores_and_replies(talking: Path, tmp_path: Path) -> None:
    """`lm_eval run` on our folder of tasks, as anybody would check a score of ours."""
    command = [sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--device", "cpu", "--batch_size", "4"]
    command += ["--model_args", f"pretrained={talking},dtype=float32", "--include_path", str(BUILTIN)]
    command += ["--tasks", "bfcl,restraint,instructions,pico_spell,letters_first", "--limit", "6", "--log_samples"]
    command += ["--apply_chat_template", "--fewshot_as_multiturn", "--output_path", str(tmp_path / "theirs")]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    result = forkserver.run(command, capture_output=True, text=True, env=offline, timeout=300, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    (found,) = (tmp_path / "theirs").rglob("results_*.json")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    same = AutoModelForCausalLM.from_pretrained(talking, dtype="float32"), AutoTokenizer.from_pretrained(talking)
    metrics = {"bfcl": "right_call", "restraint": "no_call", "instructions": "followed", "pico_spell": "acc"}
    for name, metric in {**metrics, "letters_first": "acc"}.items():
        task = Task(name, name, f"{metric},none", folder="builtin", splits=SPLITS, limits={"test": 6})
        score, _ = evaluate(same, task, "test", samples=tmp_path / "ours", batch_size=4)
        theirs = json.loads(found.read_text())["results"][name]
        assert score.value == pytest.approx(theirs[task.metric]), name
        assert score.stderr == pytest.approx(theirs[f"{metric}_stderr,none"]), name
        (samples,) = (tmp_path / "theirs").rglob(f"samples_{name}_*.jsonl")
        ours, rows = lines(tmp_path / "ours" / f"{name}.jsonl"), sorted(lines(samples), key=lambda row: row["doc_id"])
        assert [row["reply"] for row in ours] == [one(row["resps"][0][0]) for row in rows], name
        assert [row["score"] for row in ours] == [row[metric] for row in rows] and len(ours) == 6, name


def one(reply: Any) -> Any:
    """A reply as lm-eval writes it: a text, or the text of a log-likelihood and whether it is the greedy choice."""
    return [float(reply[0]), reply[1] == "True"] if isinstance(reply, list) else reply


def test_a_metric_may_be_a_function_of_ones_own(loaded: tuple[Any, Any], tmp_path: Path) -> None:
    """In YAML without any network: the function gets target and reply of an item, its mean is the score."""
    (tmp_path / "words.yaml").write_text(
        "task: words\ncustom_dataset: !function items.load\nvalidation_split: search\ntest_split: test\n"
        'output_type: generate_until\ndoc_to_text: "{{prompt}}"\ndoc_to_target: "{{target}}"\n'
        "generation_kwargs: {until: [], max_gen_toks: 8, do_sample: false}\n"
        "metric_list: [{metric: !function items.length, aggregation: mean, higher_is_better: true}]\n"
    )
    (tmp_path / "items.py").write_text(
        ITEMS + "\ndef length(references, predictions):\n    return len(predictions[0])\n"
    )
    task = Task("words", "words", "length,none", folder=str(tmp_path), splits=SPLITS, high=100.0)
    score, _ = evaluate(loaded, task, samples=tmp_path / "samples")
    lengths = [len(row["reply"]) for row in lines(tmp_path / "samples" / "words.jsonl")]
    assert score.value == pytest.approx(sum(lengths) / 6) and score.value > 1 and score.stderr > 0
    assert [path.name for path in task_files(task)] == ["items.py", "words.yaml"], "another function, another score"


def test_tasks_that_lm_eval_ships_are_known_by_name_without_the_hub() -> None:
    """Their data needs it: here is no more to be seen than that the name is found and checked."""
    task = Task("math", "gsm8k", "exact_match,strict-match")
    assert task_files(task) == [] and task_fingerprint(task) != task_fingerprint(dataclasses.replace(task, task="piqa"))
    from lm_eval.tasks import TaskManager

    assert {"gsm8k", "piqa", "ifeval"} <= set(TaskManager().all_tasks)


def test_fingerprint_follows_what_decides_the_score(echo: Task) -> None:
    first = task_fingerprint(echo)
    assert [path.name for path in task_files(echo)] == ["echo.yaml", "items.py"]
    assert first == task_fingerprint(dataclasses.replace(echo, weight=3.0, low=0.2, name="other", fingerprint="x"))
    others = [{"metric": "odd,none"}, {"limits": {"search": 2}}, {"options": {"num_fewshot": 1}}, {"splits": {}}]
    assert first not in [task_fingerprint(dataclasses.replace(echo, **other)) for other in others]
    (Path(echo.folder) / "unrelated.yaml").write_text("task: another\n")
    assert first == task_fingerprint(echo)
    (Path(echo.folder) / "items.py").write_text(ITEMS + "\n# changed\n")
    assert first != task_fingerprint(echo)


def test_fingerprint_needs_no_torch() -> None:
    code = (
        "import sys; from lamdagent.evaluation.fingerprint import task_fingerprint as f; "
        "from lamdagent.evaluation.task import Task; f(Task('a', 'bfcl', 'm', folder='builtin')); "
        "sys.exit('torch' in sys.modules or 'lm_eval' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_another_prompt_item_set_or_rule_is_another_version() -> None:
    """Change `metadata.version` in the YAML together with this digest: old scores are then not compared with new."""
    import hashlib

    from lamdagent.tooluse import bfcl, constraints
    from lamdagent.tooluse.prompt import messages

    asked: list[Any] = [messages(i.functions, i.question) for c in (True, False) for i in bfcl.items("test", calls=c)]
    asked += [task.prompt for task in constraints.writings("test")]
    assert hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:12] == "5eab8545adba"


def test_a_model_is_scored_on_the_gpu_wherever_it_was_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU is needed: only where to it is moved is looked at."""
    import torch

    from lamdagent.evaluation.harness import _on_gpu

    class Model:
        def __init__(self, place: str) -> None:
            self.device, self.moves = torch.device(place), list[str]()

        def to(self, place: str) -> None:
            self.moves.append(place)

    def moves(place: str, gpu: bool) -> list[str]:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
        model = Model(place)
        with _on_gpu(model):
            model.moves.append("scored")
        return model.moves

    assert moves("cpu", True) == ["cuda", "scored", "cpu"]
    assert moves("cpu", False) == moves("cuda:1", True) == ["scored"]


def test_vllm_is_refused_where_it_is_not_installed_and_its_scores_are_its_own(echo: Task) -> None:
    from lamdagent.config import Config, EvaluationConfig
    from lamdagent.errors import ConfigError
    from lamdagent.planning.plan import make_plan

    with pytest.raises(ConfigError, match="evaluation.backend: vllm is not installed here"):
        make_plan(Config(evaluation=EvaluationConfig(backend="vllm")))
    with pytest.raises(ConfigError, match="evaluation.backend: got 'sglang'; allowed: hf, vllm, or module:Name"):
        make_plan(Config(evaluation=EvaluationConfig(backend="sglang")))
    fast = dataclasses.replace(echo, backend="vllm", backend_options={"max_model_len": 512})
    usual = dataclasses.replace(fast, backend_options={})
    assert task_fingerprint(fast) == task_fingerprint(usual) != task_fingerprint(echo)


def test_backend_vllm_hands_folder_and_options_to_the_class_of_lm_eval(
    talking: Path, echo: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM itself needs a GPU: here lm-eval's class for it is its class for transformers, with the same interface."""
    from types import ModuleType

    from lm_eval.models.huggingface import HFLM

    from lamdagent.worker.make import score

    given: dict[str, Any] = {}

    class Stand(HFLM):  # type: ignore[misc]
        def __init__(self, pretrained: str, dtype: str, batch_size: str, **options: Any) -> None:
            given.update(options, pretrained=pretrained, batch_size=batch_size)
            super().__init__(pretrained=pretrained, dtype=dtype, batch_size=4, device="cpu")

    module = ModuleType("lm_eval.models.vllm_causallms")
    vars(module)["VLLM"] = Stand
    monkeypatch.setitem(sys.modules, module.__name__, module)
    found = {}
    for name, options in (("hf", {}), ("vllm", {"max_model_len": 512})):
        task = dataclasses.replace(echo, backend=name, backend_options=options)
        folders = {"folder": str(talking), "output": str(tmp_path / name)}
        outcome = score(lambda progress: None, tasks=[task], split="search", batch_size=4, **folders)
        found[name] = outcome.scores, lines(tmp_path / name / "samples" / "echo.jsonl")
    assert found["hf"] == found["vllm"] and given["max_model_len"] == 512
    assert given["pretrained"] == str(talking) and given["trust_remote_code"] is False
