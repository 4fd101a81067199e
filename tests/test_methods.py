"""KTO, ORPO, GRPO, RLOO, distillation, DPO's losses and QLoRA: each trains the pico model, as TRL would."""

import dataclasses
import gc
import inspect
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import PeftModel
from transformers import AutoModelForCausalLM

from lamdagent import pico
from lamdagent.actions.context import Context, Loaded, ignore_progress
from lamdagent.actions.distillation import distill
from lamdagent.actions.limits import limits_of
from lamdagent.actions.merge_methods import merges
from lamdagent.actions.methods import METHODS, Method, method_of, worker_libraries
from lamdagent.actions.preference import DPO_LOSSES, KTO_LOSSES, dpo, kto, orpo, single_answers
from lamdagent.actions.quantized import dpo_qlora, sft_qlora
from lamdagent.actions.recipe import micro_batch
from lamdagent.actions.reinforcement import grpo, rloo
from lamdagent.errors import ActionFailed
from lamdagent.execution.executor import Failed, Job
from lamdagent.execution.progress import Progress
from lamdagent.functions import load_function
from lamdagent.libraries import known_warnings_ignored
from lamdagent.loop.second_try import rows_at_once, with_less_memory
from lamdagent.worker.make import make
from tests.extending.simpo import SIMPO, simpo

SHORT: dict[str, Any] = {"steps": 2, "batch_size": 4, "micro_batch_size": 2, "learning_rate": 1e-3}
REWARDED: dict[str, Any] = {
    "reward": "tests.test_methods:vowels + 0.5 * lamdagent.rewards.answers:same_answer",
    "generations": 2,
    "completion_length": 8,
}


def vowels(completions: list[Any], **_: Any) -> list[float]:
    """A reward that an untrained model's answers differ in."""
    return [sum(letter in "aeiou" for letter in completion[-1]["content"]) / 8 for completion in completions]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher, right answers, pairs and prompts."""
    folder = tmp_path_factory.mktemp("place")
    pico.build(folder / "teacher", seed=1)
    every = {"right": pico.sft_rows(), "pairs": pico.preference_rows(), "prompts": pico.prompt_rows()}
    for name, rows in every.items():
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


@pytest.fixture
def call(place: Path, pico_folder: str) -> Callable[..., Loaded]:
    """Method -> what it made of the pico model."""
    pairs, prompts = {"dataset": str(place / "pairs"), "max_length": 64}, {"dataset": str(place / "prompts")}
    methods: dict[str, tuple[Any, dict[str, Any]]] = {
        "dpo": (dpo, pairs),
        "sft_qlora": (sft_qlora, pairs | {"dataset": str(place / "right")}),
        "dpo_qlora": (dpo_qlora, pairs),
        "kto": (kto, pairs),
        "orpo": (orpo, pairs),
        "grpo": (grpo, prompts | REWARDED),
        "rloo": (rloo, prompts | REWARDED),
        "distill": (distill, prompts | {"teacher": str(place / "teacher"), "completion_length": 8}),
    }

    def run(method: str, context: Context, **more: Any) -> Loaded:
        function, arguments = methods[method]
        return function(context, model=pico_folder, **{**SHORT, **arguments, **more})  # type: ignore[no-any-return]

    return run


def changed(made: Any, folder: str) -> set[str]:
    before = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").state_dict()
    return {name for name, tensor in made.state_dict().items() if not torch.equal(tensor, before[name])}


@pytest.mark.parametrize("rank", [0, 4], ids=["full", "lora"])
@pytest.mark.parametrize("method", ["kto", "orpo", "grpo", "rloo", "distill"])
def test_a_plain_model_in_the_stored_precision_comes_out_and_nothing_is_said(
    method: str,
    rank: int,
    call: Callable[..., Loaded],
    pico_folder: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    recwarn: Any,
) -> None:
    seen: list[Progress] = []
    made, tokenizer = call(method, Context(tmp_path / "out", report=seen.append), lora_rank=rank)
    assert capfd.readouterr() == ("", "")
    assert [str(warning.message) for warning in recwarn] == []
    assert [(p.phase, p.done, p.total) for p in seen] == [("train", step, 2) for step in (1, 2)]
    assert {"loss", "learning_rate"} <= set(seen[-1].metrics)
    assert changed(made, pico_folder)
    for part in (made, tokenizer):
        part.save_pretrained(tmp_path / "saved")
    assert changed(made, str(tmp_path / "saved")) == set(), "what is scored is what is saved"
    assert {tensor.dtype for tensor in made.state_dict().values()} == {torch.bfloat16}
    for name in ("config.json", "generation_config.json", "chat_template.jinja"):
        assert (tmp_path / "saved" / name).read_text() == (Path(pico_folder) / name).read_text()
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_kto_mixes_wanted_and_unwanted_answers_by_the_seed() -> None:
    rows = [{"prompt": str(i), "chosen": f"good {i}", "rejected": f"bad {i}", "tools": "[]"} for i in range(20)]
    mixed = single_answers(rows, 3)
    assert mixed == single_answers(rows, 3) != single_answers(rows, 4)
    pairs = [(str(i), text, kind) for i in range(20) for text, kind in ((f"good {i}", True), (f"bad {i}", False))]
    assert sorted((row["prompt"], row["completion"], row["label"]) for row in mixed) == sorted(pairs)
    assert all(set(row) == {"prompt", "completion", "label", "tools"} for row in mixed)
    assert 4 < sum(row["label"] for row in mixed[:20]) < 16


def test_kto_never_takes_single_rows(call: Callable[..., Loaded], tmp_path: Path) -> None:
    """Where TRL would refuse: the smallest divisor that is enough, though more than was asked for."""
    call("kto", Context(tmp_path), batch_size=3, micro_batch_size=2, steps=1)
    assert [micro_batch(*sizes) for sizes in ((3, 2, 2), (6, 1, 2), (6, 4, 2), (4, 8, 2), (4, 1))] == [3, 2, 3, 4, 1]


def test_less_memory_stops_at_what_the_method_needs() -> None:
    def second(function: str, micro: int) -> Job | None:
        inputs = {"batch_size": 8, "micro_batch_size": micro}
        job = Job("j", "m:f", {"function": f"lamdagent.actions.preference:{function}", "inputs": inputs}, 60.0)
        return with_less_memory(job, Failed("j", "", "out_of_memory"), "train")

    smaller = second("kto", 4)
    assert smaller is not None and rows_at_once(smaller) == 2
    assert second("kto", 2) is None and second("dpo", 2) is not None


@pytest.mark.parametrize("loss", ["hinge", "ipo", "apo_zero", "sppo_hard"])
def test_dpo_has_losses_that_lead_elsewhere(loss: str, call: Callable[..., Loaded], tmp_path: Path) -> None:
    losses: list[float] = []
    call("dpo", Context(tmp_path, report=lambda p: losses.append(p.metrics["loss"])), loss=loss, steps=1, lora_rank=4)
    # At the first step, policy and reference are one: log-ratios of 0 in every loss's formula, with beta 0.1.
    expected = {"hinge": 1.0, "ipo": 25.0, "apo_zero": 1.0, "sppo_hard": 50.0}
    assert losses == [pytest.approx(expected[loss], rel=1e-3)]


@pytest.mark.parametrize(
    ("method", "loss"),
    [*(("dpo", loss) for loss in DPO_LOSSES.allowed), *(("kto", loss) for loss in KTO_LOSSES.allowed)],
)
def test_every_loss_that_may_be_chosen_trains(
    method: str, loss: str, call: Callable[..., Loaded], pico_folder: str, tmp_path: Path
) -> None:
    losses: list[float] = []
    context = Context(tmp_path, report=lambda progress: losses.append(progress.metrics["loss"]))
    made, _ = call(method, context, loss=loss, lora_rank=4, warmup=0.0)
    assert len(losses) == 2 and all(map(math.isfinite, losses)) and changed(made, pico_folder)


@pytest.mark.parametrize("method", ["grpo", "rloo"])
def test_every_reward_of_ours_and_one_of_the_user_s_are_asked_for_real(
    method: str, call: Callable[..., Loaded], pico_folder: str, tmp_path: Path
) -> None:
    told = {"call": json.dumps({"functions": [], "function": "", "answers": None}), "pattern": ".*"}
    rows = [row | told for row in pico.prompt_rows()]
    (tmp_path / "rows").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    ours = (
        "calls:right_call",
        "calls:near_call",
        "form:is_json",
        "form:matches",
        "length:brief",
        "answers:same_answer",
    )
    terms = ["tests.test_methods:vowels", *(f"0.1 * lamdagent.rewards.{name}" for name in ours)]
    seen: list[Progress] = []
    context = Context(tmp_path / "out", report=seen.append)
    made, _ = call(method, context, dataset=str(tmp_path / "rows"), reward=" + ".join(terms))
    names = {"vowels", *(name.split(":")[1] for name in ours)}
    got = {name: [step.metrics[f"rewards/{name}/mean"] for step in seen] for name in names}
    assert all(value == pytest.approx(1.0) for value in got["brief"]), "eight tokens are brief"
    assert all(0 <= value <= 1 for values in got.values() for value in values) and changed(made, pico_folder)


def test_rewards_are_learnt(call: Callable[..., Loaded], tmp_path: Path) -> None:
    got: list[float] = []
    context = Context(tmp_path, report=lambda progress: got.append(progress.metrics["rewards/vowels/mean"]))
    more = {"steps": 12, "batch_size": 32, "micro_batch_size": 32, "generations": 8, "learning_rate": 1e-2}
    call("grpo", context, **more)
    assert sum(got[-3:]) > 1.5 * sum(got[:3]) > 0


def test_a_student_comes_nearer_to_its_teacher(call: Callable[..., Loaded], tmp_path: Path) -> None:
    losses: list[float] = []
    context = Context(tmp_path, report=lambda progress: losses.append(progress.metrics["loss"]))
    call("distill", context, steps=12, learning_rate=5e-3)
    assert sum(losses[-3:]) < 0.7 * sum(losses[:3])


def test_student_and_teacher_must_share_their_tokens(call: Callable[..., Loaded], place: Path, tmp_path: Path) -> None:
    model, tokenizer = Context(tmp_path).load(str(place / "teacher"))
    tokenizer.add_tokens(["<new>"])
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "other")
    with pytest.raises(ActionFailed, match="other tokens") as failure:
        call("distill", Context(tmp_path / "out"), teacher=str(tmp_path / "other"))
    assert failure.value.kind == "mismatch"


@pytest.mark.parametrize("method", ["sft_qlora", "dpo_qlora"])
def test_an_adapter_learns_beside_4_bits_and_is_merged_into_the_weights_as_they_were(
    method: str, call: Callable[..., Loaded], pico_folder: str, tmp_path: Path
) -> None:
    from bitsandbytes.nn import Params4bit

    losses: list[float] = []
    held: list[torch.Tensor] = []

    def follow(progress: Progress) -> None:
        losses.append(progress.metrics["loss"])
        held[:] = [weight for weight in gc.get_objects() if type(weight) is Params4bit]

    context = Context(tmp_path / "out", report=follow, adapter=tmp_path / "adapter")
    made, tokenizer = call(method, context, steps=20, learning_rate=2e-2, warmup=0.0, lora_rank=4)
    assert len(held) == 28 and {weight.dtype for weight in held} == {torch.uint8}, "7 layers in each of 4 blocks"
    assert sum(losses[-5:]) < 0.97 * sum(losses[:5])
    linear = {name for name in made.state_dict() if name.endswith("_proj.weight")}
    assert changed(made, pico_folder) == linear and len(linear) == 28, "what was in 4 bits, and nothing else"
    assert {tensor.dtype for tensor in made.state_dict().values()} == {torch.bfloat16}
    for part in (made, tokenizer):
        part.save_pretrained(tmp_path / "saved")
    assert changed(made, str(tmp_path / "saved")) == set()
    assert (tmp_path / "saved" / "config.json").read_text() == (Path(pico_folder) / "config.json").read_text()
    whole = AutoModelForCausalLM.from_pretrained(pico_folder, dtype="auto")
    with known_warnings_ignored():
        merged = PeftModel.from_pretrained(whole, str(tmp_path / "adapter")).merge_and_unload()
    assert changed(merged, str(tmp_path / "saved")) == set(), "the weights as they were, and the adapter"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(
    ("needs", "words", "kind"),
    [
        (("gpu", "bitsandbytes"), "needs a GPU and there is none here; leave the action out", "no_gpu"),
        (("no_such_package",), "needs the package no_such_package, which is not installed here", "error"),
    ],
)
def test_what_an_action_needs_is_looked_for_where_it_runs(needs: Any, words: str, kind: str, tmp_path: Path) -> None:
    """On a cluster, the door is on another machine."""
    given: dict[str, Any] = {"run_id": "r", "function": "m:f", "inputs": {}, "seed": 0, "data_fraction": 1.0}
    with pytest.raises(ActionFailed, match=words) as failure:
        make(ignore_progress, **given, tasks=(), batch_size=1, output=str(tmp_path), needs=needs)
    assert failure.value.kind == kind


def test_a_method_of_the_users_own_trains_and_is_known_by_its_function(
    place: Path, pico_folder: str, tmp_path: Path
) -> None:
    made, _ = simpo(Context(tmp_path), model=pico_folder, dataset=str(place / "pairs"), max_length=64, **SHORT)
    assert changed(made, pico_folder)
    assert method_of("tests.extending.simpo:simpo") == SIMPO
    assert method_of(f"{__name__}:vowels") is None is method_of("no.such.module:f")


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_every_record_names_classes_and_parameters_that_are_there(method: Method) -> None:
    trainer, config = method.load()
    assert (trainer.__name__, config.__name__) == (f"{method.title}Trainer", f"{method.title}Config")
    assert set(method.signs) <= {field.name for field in dataclasses.fields(config)}
    parameters = inspect.signature(load_function(method.function)).parameters
    drawn = method.generates
    wanted = {"batch_size", "micro_batch_size", "lora_rank", *([drawn.at_once, drawn.length] if drawn else ())}
    wanted |= {"beta"} if method.reference == "beta" else set()
    assert wanted | ({method.teacher} if method.teacher else set()) <= parameters.keys()
    assert method.least == max(
        (limit.least for limit in limits_of(parameters["micro_batch_size"].annotation)), default=1
    )


def test_every_action_of_the_package_has_a_record_or_is_a_merge() -> None:
    files = sorted((Path(__file__).parents[1] / "conf" / "action").glob("*.yaml"))
    functions = {yaml.safe_load(file.read_text())["function"] for file in files}
    assert {function for function in functions if not merges(function)} == {m.function for m in METHODS.values()}


def test_a_worker_loads_trl_beforehand_only_where_something_is_trained() -> None:
    merge, own = "lamdagent.actions.merging:merge", "tests.stunts:nudge"
    assert worker_libraries([merge, own]) == ("torch", "transformers", "lm_eval")
    assert worker_libraries([merge, "lamdagent.actions.sft:sft"]) == ("torch", "transformers", "trl", "peft", "lm_eval")
    assert simpo and "trl" in worker_libraries(["tests.extending.simpo:simpo"]), "marked by `performs`"
