"""The paper's two experiments without hub or GPU: rows of the real columns in local folders, a pico model."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from lamdagent.config import Config, conf_folder, read
from lamdagent.errors import UserError
from lamdagent.evaluation.task import Task
from lamdagent.planning.plan import Plan, make_plan
from lamdagent.skills import commonsense_qa, data, gsm8k, trivia_qa
from lamdagent.skills.folding import fold, folded
from lamdagent.skills.hub import load, split_of

SKILLS = ("gsm8k", "commonsense_qa", "trivia_qa")
SPLITS = {"search": "search", "test": "test"}
SHARED = "How many words are in apple and bridge?"
"""A question that is in the train split and among the held-out items."""
MATH = {
    "question": "Natalia sold clips to 48 of her friends in April, and then half as many in May. How many in all?",
    "answer": "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\nNatalia sold 48+24 = <<48+24=72>>72 clips.\n#### 72",
}
SENSE = {
    "id": "075e483d21c29a511267ef62bedc0461",
    "question": "The sanctions against the school were a punishing blow, and they seemed to what the efforts made? ",
    "question_concept": "punishing",
    "choices": {"label": list("ABCDE"), "text": ["ignore", "enforce", "authoritarian", "yell at", "avoid"]},
    "answerKey": "A",
}
TRIVIA = {
    "question": "Which American-born Sinclair won the Nobel Prize for Literature in 1930?",
    "question_id": "tc_1",
    "question_source": "http://www.triviacountry.com/",
    "entity_pages": {"title": []},
    "answer": {
        "aliases": ["(Harry) Sinclair Lewis", "Sinclair Lewis", "Grace Hegger"],
        "normalized_aliases": ["harry sinclair lewis", "sinclair lewis", "grace hegger"],
        "value": "Sinclair Lewis",
    },
}
CONSTRAINTS = {
    "key": 1001,
    "prompt": "Describe a bridge. Do not use any commas and write in all lowercase letters.",
    "instruction_id_list": ["punctuation:no_comma", "change_case:english_lowercase"],
    "kwargs": [{"num_words": None, "keywords": None}, {"num_words": None, "keywords": None}],
}
DOLLY = {"instruction": "When did it start?", "context": "It began in 2000.", "response": "In 2000.", "category": "qa"}
PAIR = {"system": "You are helpful.", "question": "Name a colour.", "chosen": "Blue.", "rejected": "A dog."}
GEMMA_TEMPLATE = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}<start_of_turn>{{ 'model' if message['role'] == 'assistant' else message['role'] }}\n"
    "{{ message['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
"""Gemma 2's, in what matters here."""


def numbered(row: dict[str, Any], count: int, **change: Any) -> list[dict[str, Any]]:
    return [{**row, "question": f"{row['question'].strip()} ({n})", **change} for n in range(count)]


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A folder for every hub data set, with its columns and its official splits."""
    folder = tmp_path_factory.mktemp("hub")
    rows: dict[str, dict[str, list[dict[str, Any]]]] = {
        name: {"train": [*numbered(row, 8), {**row, "question": SHARED}]}
        for name, row in (("gsm8k", MATH), ("commonsense_qa", SENSE), ("trivia_qa", TRIVIA))
    }
    for name, row, held_out in (
        ("gsm8k", MATH, "test"),
        ("commonsense_qa", SENSE, "validation"),
        ("trivia_qa", TRIVIA, "validation"),
    ):
        others = [{**row, "question": f"{SHARED} Held out, {n}."} for n in range(12)]
        rows[name][held_out] = [*others, {**row, "question": SHARED.upper()}]
    rows["ifeval"] = {"train": [{**CONSTRAINTS, "key": n, "prompt": f"{CONSTRAINTS['prompt']} {n}"} for n in range(12)]}
    rows["dolly"] = {"train": [DOLLY, {**DOLLY, "context": ""}, {**DOLLY, "response": " "}]}
    rows["orca_pairs"] = {
        "train": [PAIR, {**PAIR, "system": ""}, {**PAIR, "chosen": ""}, {**PAIR, "rejected": "Blue."}]
    }
    for name, splits in rows.items():
        (folder / name).mkdir()
        for split, found in splits.items():
            (folder / name / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    import datasets

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "cache")
        patch.setenv("HF_DATASETS_CACHE", str(folder / "cache"))  # of the process that reads the tasks' items
        yield folder


def config(experiment: str, *overrides: str) -> Config:
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return read(compose("config", [f"+experiment={experiment}", *overrides]))


def plan(experiment: str, model: str, sources: dict[str, str], tasks: dict[str, str], *overrides: str) -> Plan:
    """The experiment with local folders in place of the hub, checked through the real door."""
    changes = [f"models.{name}.source={model}" for name in config(experiment).models]
    changes += [f"+datasets.{name}.arguments.{key}" for name, key in sources.items()]
    changes += [f"+tasks.{name}.options.dataset_kwargs.source={source}" for name, source in tasks.items()]
    return make_plan(config(experiment, *changes, *overrides))


@pytest.fixture(scope="session")
def multiskill(hub: Path, pico_folder: str) -> Plan:
    sources = {name: f"source={hub / name}" for name in SKILLS}
    sources["every_skill"] = "sources={" + ", ".join(f"{name}: {hub / name}" for name in SKILLS) + "}"
    return plan("multiskill_gemma2", pico_folder, sources, {name: str(hub / name) for name in SKILLS})


@pytest.fixture(scope="session")
def tooluse(hub: Path, pico_folder: str) -> Plan:
    sources = {"instructions": f"source={hub / 'dolly'}", "general_pairs": f"source={hub / 'orca_pairs'}"}
    return plan("tooluse_gemma2", pico_folder, sources, {"ifeval": str(hub / "ifeval")})


def rows(made: Plan, name: str) -> list[dict[str, Any]]:
    found = next(dataset for dataset in made.datasets if dataset.name == name)
    return [json.loads(line) for line in Path(found.path).read_text().splitlines()]


def task(made: Plan, name: str, limit: int = 3) -> Task:
    import dataclasses

    return dataclasses.replace(next(t for t in made.tasks if t.name == name), limits={"search": limit, "test": limit})


@pytest.fixture(scope="module")
def loaded(pico_folder: str) -> tuple[Any, Any]:
    """A pico model that says letters, since an untrained one may well say nothing."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(pico_folder)
    model = AutoModelForCausalLM.from_pretrained(pico_folder).float()
    model.config.max_position_embeddings = 4096
    words = [tokenizer.decode(token, skip_special_tokens=True).strip() for token in range(model.config.vocab_size)]
    model.lm_head.bias = torch.nn.Parameter(torch.tensor([0.0 if word.isalpha() else -1000.0 for word in words]))
    return model, tokenizer


def with_template(tokenizer: Any, template: str | None) -> Any:
    import copy

    changed = copy.deepcopy(tokenizer)
    changed.chat_template = template
    return changed


def samples(loaded: tuple[Any, Any], asked: Task, split: Any, folder: Path) -> tuple[Any, list[dict[str, Any]]]:
    from lamdagent.evaluation.harness import evaluate

    score = evaluate(*loaded, [asked], split, lambda progress: None, folder, 4)[asked.name]
    return score, [json.loads(line) for line in (folder / f"{asked.name}.jsonl").read_text().splitlines()]


# --- the configurations


def test_multiskill_is_the_paper_s_first_experiment(multiskill: Plan) -> None:
    settings = config("multiskill_gemma2")
    assert [m.source for m in settings.models.values()] == ["google/gemma-2-2b"]
    assert {t.name: t.task for t in multiskill.tasks} == {name: f"{name}_split" for name in SKILLS}
    assert sum(t.weight for t in multiskill.tasks) == pytest.approx(1)
    assert max(t.weight for t in multiskill.tasks) - min(t.weight for t in multiskill.tasks) < 0.001
    assert settings.budget.trials == 100 and settings.agent.kind == "auto"
    types = {"sft_full", "sft_lora", "merge_linear", "merge_slerp", "merge_ties", "merge_dare_ties"}
    assert {t.name for t in multiskill.types} == types
    assert {d.name: d.rows for d in multiskill.datasets} == {**dict.fromkeys(SKILLS, 8), "every_skill": 24}


def test_tooluse_is_the_paper_s_second_experiment(tooluse: Plan) -> None:
    settings = config("tooluse_gemma2")
    assert [m.source for m in settings.models.values()] == ["google/gemma-2-2b-it"]
    assert {t.name: t.task for t in tooluse.tasks} == {
        "bfcl": "bfcl_folded",
        "restraint": "restraint_folded",
        "ifeval": "ifeval_split",
    }
    assert sum(t.weight for t in tooluse.tasks) == pytest.approx(1)
    assert settings.budget.trials == 100 and settings.agent.kind == "auto"
    types = {"sft_full", "sft_lora", "dpo_lora", "merge_linear", "merge_slerp", "merge_ties", "merge_dare_ties"}
    assert {t.name for t in tooluse.types} == types
    assert {d.kind for d in tooluse.datasets} == {"sft", "preference"}
    assert all(d.license for d in tooluse.datasets)


def test_what_steers_is_never_the_final_test(multiskill: Plan, tooluse: Plan) -> None:
    for made in (*multiskill.tasks, *tooluse.tasks):
        assert made.splits["search"] != made.splits["test"]


# --- rows


def test_mathematics() -> None:
    assert gsm8k.ask(MATH).startswith("Question: Natalia sold") and gsm8k.ask(MATH).endswith("in all?\nAnswer:")
    assert gsm8k.reply(MATH).startswith("Natalia sold 48/2 = 24 clips in May.\n") and "<<" not in gsm8k.reply(MATH)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("so 48+24 = 72.\n#### 72", 72),
        ("#### $1,234.50 or more, 9", Decimal("1234.5")),
        ("#### -3\n\n12", -3),
        ("First 3 apples, then 10-4 = 6.", 6),
        ("It is 2,125.", 2125),
        ("#### 18.00", 18),
        ("5-3", 3),
        ("none at all", None),
        ("7 ####", None),
    ],
)
def test_number(text: str, number: Any) -> None:
    assert gsm8k.number(text) == number


def test_common_sense() -> None:
    asked = commonsense_qa.ask(SENSE).splitlines()
    assert asked[0].endswith("efforts made?") and asked[1] == "A. ignore" and asked[5:] == ["E. avoid", "Answer:"]
    assert commonsense_qa.reply(SENSE) == "A"


@pytest.mark.parametrize(
    ("text", "right"),
    [
        (" sinclair lewis.", True),
        ("The Sinclair-Lewis", True),
        ("(Harry) Sinclair_Lewis", True),
        ("Upton Sinclair", False),
        ("Sinclair Lewis, I think", False),
        ("the", False),
        ("", False),
    ],
)
def test_trivia(text: str, right: bool) -> None:
    assert trivia_qa.reply(TRIVIA) == "Sinclair Lewis"
    assert trivia_qa.right(text, {**TRIVIA["answer"], "aliases": [*TRIVIA["answer"]["aliases"], "The"]}) is right


def test_training_rows_leave_held_out_questions_out(hub: Path) -> None:
    for name in SKILLS:
        found = getattr(data, name)(source=str(hub / name))
        assert len(found) == 8 and not any(SHARED in row["prompt"][0]["content"] for row in found)
        assert [len(row["prompt"]) for row in found] == [1] * 8
        assert {row["completion"][0]["role"] for row in found} == {"assistant"}
    plain = data.commonsense_qa(source=str(hub / "commonsense_qa"), plain=True)
    assert plain[0]["prompt"].endswith("\nAnswer:") and plain[0]["completion"] == " A"


def test_every_skill_takes_turns(multiskill: Plan) -> None:
    starts = [row["prompt"][:20] for row in rows(multiskill, "every_skill")]
    assert starts[:3] == starts[3:6] and len(set(starts[:3])) == 3


def test_halves_are_stable_and_blind_to_spelling() -> None:
    questions = [f"What is {n}?" for n in range(1000)]
    assert 450 < sum(split_of(q) == "search" for q in questions) < 550
    assert all(split_of(q) == split_of(f"  {q.upper()}") for q in questions)
    assert [split_of(q)[0] for q in questions[:8]] == list("tttsttst")  # another order is another version


def test_general_rows(tooluse: Plan) -> None:
    first, second = rows(tooluse, "instructions")
    assert first["prompt"] == [{"role": "user", "content": "When did it start?\n\nIt began in 2000."}]
    assert second["prompt"][0]["content"] == "When did it start?"
    first, second = rows(tooluse, "general_pairs")
    assert first["prompt"] == [{"role": "user", "content": "You are helpful.\n\nName a colour."}]
    assert second["prompt"][0]["content"] == "Name a colour." and second["chosen"][0]["content"] == "Blue."


def test_folded_rows_lose_only_the_system_role(tooluse: Plan) -> None:
    from lamdagent.tooluse.data import calls

    found = folded("lamdagent.tooluse.data:calls")
    for before, after in zip(calls(), found, strict=True):
        assert after["prompt"][1:] == before["prompt"][2:] and after["completion"] == before["completion"]
        assert after["prompt"][0]["content"] == "\n\n".join(m["content"] for m in before["prompt"][:2])
    for name in ("calls", "mixed", "choices", "pairs", "instructions", "general_pairs"):
        assert {message["role"] for row in rows(tooluse, name) for message in row["prompt"]} <= {"user", "assistant"}
    assert fold(found[0]["prompt"]) == found[0]["prompt"]


def test_sources_that_cannot_be_had(hub: Path) -> None:
    with pytest.raises(UserError, match="does not give the columns nothing of its split 'train'"):
        load(str(hub / "gsm8k"), "main", "train", ("nothing",))
    with pytest.raises(UserError, match="split 'validation'"):
        load(str(hub / "gsm8k"), "main", "validation", ("question",))


def test_no_hub_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    before = datasets.config.HF_HUB_OFFLINE
    with pytest.raises(UserError, match="'nobody/nothing' does not give .*check the network") as caught:
        load("nobody/nothing", "main", "train", ("question",))
    assert "OfflineModeIsEnabled" in str(caught.value)  # no half minute of retries
    assert datasets.config.HF_HUB_OFFLINE is before


# --- evaluation, end to end


@pytest.mark.parametrize("name", SKILLS)
def test_skill_is_scored(loaded: tuple[Any, Any], multiskill: Plan, name: str, tmp_path: Path) -> None:
    """The base model has no chat template: plain prompts, as its training rows have, after the worked examples."""
    bare = loaded[0], with_template(loaded[1], None)
    found = {}
    for split in ("search", "test"):
        score, found[split] = samples(bare, task(multiskill, name), split, tmp_path / split)
        assert 0 <= score.value <= 1 and len(found[split]) == 3
    prompt = found["search"][0]["prompt"]
    examples, trained = prompt.split("\n\n")[:-1], rows(multiskill, name)
    assert examples == [row["prompt"] + row["completion"] for row in trained[: len(examples)]]
    assert len(examples) == (4 if name == "gsm8k" else 5) and prompt.endswith("\nAnswer:")
    last = {split: {line["prompt"].split("\n\n")[-1] for line in lines} for split, lines in found.items()}
    assert not last["search"] & last["test"]


def test_right_replies_score(hub: Path) -> None:
    from lamdagent.evaluation.tasks import skills

    doc = skills.gsm8k(source=str(hub / "gsm8k"), version=1)["search"][0]
    assert skills.judge_number(doc, ["So it is 72"])["right"] == 1
    assert skills.judge_number(doc, ["#### 71"]) == {"right": 0, "reason": "other number"}
    assert skills.judge_number(doc, ["apples"])["reason"] == "no number"
    doc = skills.trivia_qa(source=str(hub / "trivia_qa"))["test"][0]
    assert skills.judge_trivia(doc, [" Sinclair Lewis"])["right"] == 1
    assert skills.judge_trivia(doc, ["Nobel"])["right"] == 0


@pytest.fixture
def no_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """lm-eval's ifeval fetches a sentence splitter when it is imported, which these items do not need."""
    import nltk

    (tmp_path / "tokenizers" / "punkt_tab").mkdir(parents=True)
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])


@pytest.mark.usefixtures("no_download")
def test_ifeval_is_scored(loaded: tuple[Any, Any], tooluse: Plan, tmp_path: Path) -> None:
    from lamdagent.evaluation.tasks import skills

    doc = {**CONSTRAINTS}
    assert skills.judge_ifeval(doc, ["a bridge spans a river and carries a road"])["prompt_level_strict_acc"] == 1
    assert skills.judge_ifeval(doc, ["A bridge spans a river"])["prompt_level_strict_acc"] == 0
    import dataclasses

    options = {"generation_kwargs": {"until": [], "max_gen_toks": 8, "do_sample": False}}
    asked = task(tooluse, "ifeval")
    asked = dataclasses.replace(asked, options={**asked.options, **options})
    score, lines = samples(loaded, asked, "search", tmp_path)
    assert len(lines) == 3 and 0 <= score.value <= 1


@pytest.mark.parametrize("name", ["bfcl", "restraint"])
def test_tool_use_without_a_system_role(loaded: tuple[Any, Any], tooluse: Plan, name: str, tmp_path: Path) -> None:
    """Gemma's template refuses a system message; the folded task sends what the folded training rows hold."""
    from lamdagent.tooluse import bfcl
    from lamdagent.tooluse.prompt import SYSTEM, messages

    tokenizer = with_template(loaded[1], GEMMA_TEMPLATE)
    _, lines = samples((loaded[0], tokenizer), task(tooluse, name, limit=2), "search", tmp_path)
    item = bfcl.items("search", calls=name == "bfcl")[0]
    with pytest.raises(Exception, match="System role not supported"):
        tokenizer.apply_chat_template(messages(item.functions, item.question), tokenize=False)
    chat = fold(messages(item.functions, item.question))
    expected = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert lines[0]["prompt"] == expected and expected.count(SYSTEM) == 1
    _, lines = samples(loaded, task(tooluse, name, limit=2), "test", tmp_path)
    assert lines[0]["prompt"].count(SYSTEM) == 1 and "<|im_start|>system" not in lines[0]["prompt"]


# --- training and merging


@pytest.fixture(scope="session")
def gemma(pico_folder: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Gemma 2 of pico size: its own layers, its own idea of a chat."""
    from transformers import AutoTokenizer, Gemma2Config, Gemma2ForCausalLM

    folder = str(tmp_path_factory.mktemp("gemma"))
    tokenizer = with_template(AutoTokenizer.from_pretrained(pico_folder), GEMMA_TEMPLATE)
    small = Gemma2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        sliding_window=64,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    Gemma2ForCausalLM(small).bfloat16().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("method", ["linear", "slerp", "ties", "dare_ties"])
def test_gemma_can_be_merged(gemma: str, method: str, tmp_path: Path) -> None:
    import torch

    from lamdagent.actions.context import Context
    from lamdagent.actions.merging import merge

    other, _ = Context(output=tmp_path).load(gemma)
    before = other.model.layers[0].mlp.up_proj.weight.detach().clone()
    with torch.no_grad():
        other.model.layers[0].mlp.up_proj.weight.mul_(3)
    other.save_pretrained(tmp_path / "other")
    Context(output=tmp_path).tokenizer(gemma).save_pretrained(tmp_path / "other")
    base = {"base": gemma} if "ties" in method else {}
    made, _ = merge(Context(output=tmp_path / "out"), models=[gemma, str(tmp_path / "other")], method=method, **base)
    after = made.model.layers[0].mlp.up_proj.weight
    assert type(made).__name__ == "Gemma2ForCausalLM" and after.dtype == torch.bfloat16
    assert not torch.equal(after, before) and not torch.equal(after, before * 3)


@pytest.mark.parametrize(
    ("experiment", "dataset"), [("multiskill", "gsm8k"), ("tooluse", "calls"), ("tooluse", "pairs")]
)
def test_rows_train_the_kind_of_model_they_are_for(
    gemma: str, experiment: str, dataset: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Plain rows on a model without a chat template, folded ones on a template without a system role."""
    import shutil

    from lamdagent.actions.context import Context
    from lamdagent.actions.preference import dpo
    from lamdagent.actions.sft import sft

    made: Plan = request.getfixturevalue(experiment)
    folder = shutil.copytree(gemma, tmp_path / "model")
    if experiment == "multiskill":
        (folder / "chat_template.jinja").unlink()
    losses: list[float] = []
    context = Context(output=tmp_path / "out", report=lambda p: losses.append(p.metrics["loss"]))
    path = next(d.path for d in made.datasets if d.name == dataset)
    settings = {"steps": 2, "batch_size": 2, "micro_batch_size": 2, "max_length": 2048, "learning_rate": 1e-3}
    (dpo if dataset == "pairs" else sft)(context, model=str(folder), dataset=path, lora_rank=4, **settings)
    assert len(losses) == 2 and all(loss > 0 for loss in losses)
