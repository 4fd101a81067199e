"""Every action runs on the pico model and leaves a model that plain transformers loads."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from lamdagent import pico
from lamdagent.actions.context import Context, Loaded
from lamdagent.actions.merging import merge
from lamdagent.actions.preference import dpo
from lamdagent.actions.recipe import Recipe
from lamdagent.actions.sft import sft, sft_packed
from lamdagent.errors import ActionFailed
from lamdagent.execution.progress import Progress

SHORT: dict[str, Any] = {"steps": 3, "batch_size": 4, "micro_batch_size": 2, "max_length": 128, "learning_rate": 1e-3}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("rows")
    paths = {"sft": pico.sft_rows(), "spell": pico.sft_rows("spell"), "preference": pico.preference_rows()}
    for name, rows in paths.items():
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return {name: str(folder / name) for name in paths}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Three models of one family."""
    folder = tmp_path_factory.mktemp("models")
    for seed in range(3):
        pico.build(folder / str(seed), seed=seed)
    return [str(folder / str(seed)) for seed in range(3)]


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def changed(model: Any, folder: str) -> set[str]:
    before = weights(AutoModelForCausalLM.from_pretrained(folder, dtype="auto"))
    return {name for name, tensor in weights(model).items() if not torch.equal(tensor, before[name])}


def saved(made: Loaded, folder: Path) -> tuple[Any, Any]:
    """What the worker does with what an action returns, and what a user does with the folder."""
    for part in made:
        part.save_pretrained(folder)
    return AutoModelForCausalLM.from_pretrained(folder, dtype="auto"), AutoTokenizer.from_pretrained(folder)


class TestTraining:
    """What holds for every trainer, full and LoRA."""

    @pytest.fixture(params=["sft-full", "sft-lora", "dpo-full", "dpo-lora"])
    def case(self, request: pytest.FixtureRequest, files: dict[str, str]) -> tuple[Any, dict[str, Any]]:
        name, adapter = request.param.split("-")
        lora = {"lora_rank": 4, "lora_alpha": 8} if adapter == "lora" else {}
        function, rows = {"sft": (sft, "sft"), "dpo": (dpo, "preference")}[name]
        return function, {"dataset": files[rows], **SHORT, **lora}

    def test_a_full_model_in_the_stored_precision_comes_out(self, case: Any, pico_folder: str, tmp_path: Path) -> None:
        function, arguments = case
        seen: list[Progress] = []
        made = function(Context(tmp_path / "out", report=seen.append), model=pico_folder, **arguments)
        model, tokenizer = saved(made, tmp_path / "saved")
        assert changed(model, pico_folder)
        assert changed(made[0], str(tmp_path / "saved")) == set(), "what is scored is what is saved"
        assert {tensor.dtype for tensor in weights(model).values()} == {torch.bfloat16}
        original = AutoTokenizer.from_pretrained(pico_folder)
        assert tokenizer.chat_template == original.chat_template
        assert tokenizer.special_tokens_map == original.special_tokens_map
        written, before = (json.loads((Path(f) / "config.json").read_text()) for f in (tmp_path / "saved", pico_folder))
        assert written == before
        assert [(p.phase, p.done, p.total) for p in seen] == [("train", step, 3) for step in (1, 2, 3)]
        assert {"loss", "learning_rate"} <= set(seen[-1].metrics)

    def test_the_seed_decides(self, case: Any, pico_folder: str, tmp_path: Path) -> None:
        function, arguments = case
        first, again, other = (
            weights(function(Context(tmp_path, seed=seed), model=pico_folder, **arguments)[0]) for seed in (5, 5, 6)
        )
        assert all(torch.equal(first[name], again[name]) for name in first)
        assert not all(torch.equal(first[name], other[name]) for name in first)

    def test_nothing_but_reports_is_said(
        self, case: Any, pico_folder: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], recwarn: Any
    ) -> None:
        function, arguments = case
        function(Context(tmp_path), model=pico_folder, **arguments)
        assert capfd.readouterr() == ("", "")
        assert [str(warning.message) for warning in recwarn] == []


@pytest.mark.parametrize("name", ["sft", "dpo"])
def test_the_adapter_alone_gives_the_same_model(
    name: str, pico_folder: str, files: dict[str, str], tmp_path: Path
) -> None:
    """So that a store of adapters would do: what it adds to the input model is all that the action made."""
    from peft import PeftModel

    function, rows = {"sft": (sft, "sft"), "dpo": (dpo, "preference")}[name]
    context = Context(tmp_path / "out", adapter=tmp_path / "adapter")
    made, _ = function(context, model=pico_folder, dataset=files[rows], lora_rank=4, **SHORT)
    assert {file.name for file in (tmp_path / "adapter").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    base = AutoModelForCausalLM.from_pretrained(pico_folder, dtype="auto")
    merged = PeftModel.from_pretrained(base, str(tmp_path / "adapter")).merge_and_unload()
    assert changed(made, pico_folder)
    expected = weights(made)
    assert all(torch.equal(tensor, expected[key]) for key, tensor in weights(merged).items())


def test_full_training_leaves_no_adapter(pico_folder: str, files: dict[str, str], tmp_path: Path) -> None:
    context = Context(tmp_path / "out", adapter=tmp_path / "adapter")
    sft(context, model=pico_folder, dataset=files["sft"], **SHORT)
    assert not (tmp_path / "adapter").exists()


def test_training_learns(pico_folder: str, files: dict[str, str], tmp_path: Path) -> None:
    losses: list[float] = []
    context = Context(tmp_path, report=lambda progress: losses.append(progress.metrics["loss"]))
    sft(context, model=pico_folder, dataset=files["sft"], **{**SHORT, "steps": 30, "learning_rate": 1e-2})
    assert losses[-1] < 0.5 * losses[0]


def test_dpo_prefers_the_chosen(pico_folder: str, files: dict[str, str], tmp_path: Path) -> None:
    margins: list[float] = []
    context = Context(tmp_path, report=lambda progress: margins.append(progress.metrics["rewards/margins"]))
    dpo(context, model=pico_folder, dataset=files["preference"], **{**SHORT, "steps": 20, "learning_rate": 2e-2})
    assert margins[0] == 0.0, "at the first step, policy and reference are one"
    assert margins[-1] > 0.1


def test_only_the_last_layers_get_an_adapter(pico_folder: str, files: dict[str, str], tmp_path: Path) -> None:
    made, _ = sft(Context(tmp_path), model=pico_folder, dataset=files["sft"], lora_rank=4, lora_layers=1, **SHORT)
    touched = changed(made, pico_folder)
    assert touched and all(name.startswith("model.layers.3.") for name in touched)


def test_only_completions_carry_loss(pico_folder: str, tmp_path: Path) -> None:
    """Rows with equal completions and unlike prompts, cut where the completion starts: nothing is left to learn."""
    row = {"prompt": "repeat the word apple " * 20, "completion": "apple"}
    (tmp_path / "rows").write_text(json.dumps(row) + "\n")
    with pytest.raises(ActionFailed, match="max_length=16") as failure:
        sft(Context(tmp_path), model=pico_folder, dataset=str(tmp_path / "rows"), **{**SHORT, "max_length": 16})
    assert failure.value.kind == "bad_data"


@pytest.mark.parametrize("rank", [0, 4], ids=["full", "lora"])
def test_packed_rows_teach_the_same_as_padded_ones(
    rank: int, pico_folder: str, files: dict[str, str], tmp_path: Path
) -> None:
    """All twelve rows in one step: neither sees the others, and none is cut."""
    seen: dict[str, list[Progress]] = {"padded": [], "packed": []}
    shared: dict[str, Any] = {"model": pico_folder, "dataset": files["sft"], "steps": 2, "lora_rank": rank}
    shared |= {"learning_rate": 1e-3, "max_length": 512, "warmup": 0.0}
    padded, _ = sft(Context(tmp_path, report=seen["padded"].append), batch_size=12, **shared)
    packed, _ = sft_packed(Context(tmp_path, report=seen["packed"].append), batch_size=1, **shared)
    for key in ("loss", "grad_norm"):
        first, second = ([progress.metrics[key] for progress in seen[how]] for how in ("packed", "padded"))
        assert first == pytest.approx(second, rel=2e-3 if not rank else 2e-2)
    assert changed(packed, pico_folder) == changed(padded, pico_folder) != set()
    assert {tensor.dtype for tensor in packed.state_dict().values()} == {torch.bfloat16}


def test_a_missing_column_is_named(pico_folder: str, tmp_path: Path) -> None:
    (tmp_path / "rows").write_text(json.dumps({"prompt": "repeat the word apple"}) + "\n")
    with pytest.raises(ActionFailed, match="no column completion, which SFT needs; it has prompt") as failure:
        sft(Context(tmp_path), model=pico_folder, dataset=str(tmp_path / "rows"), **SHORT)
    assert failure.value.kind == "bad_data"


def test_a_loss_that_is_no_number_is_a_failure(pico_folder: str, files: dict[str, str], tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    model, tokenizer = Context(tmp_path).load(pico_folder)
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    saved((model, tokenizer), broken)
    with pytest.raises(ActionFailed, match="at step 1 of 3") as failure:
        sft(Context(tmp_path / "out"), model=str(broken), dataset=files["sft"], **SHORT)
    assert failure.value.kind == "nan_loss"


@pytest.mark.parametrize(("batch", "micro", "expected"), [(16, 4, 4), (6, 4, 3), (7, 4, 1), (2, 8, 2)])
def test_the_effective_batch_is_exact(batch: int, micro: int, expected: int) -> None:
    recipe = Recipe(1e-3, 1, 1.0, batch, micro, 128, 0.1, 0, 0, 0)
    assert recipe.micro() == expected


def test_smaller_fractions_are_inside_larger_ones(files: dict[str, str], tmp_path: Path) -> None:
    def texts(fraction: float) -> list[str]:
        return [str(row) for row in Context(tmp_path, data_fraction=fraction).rows(files["sft"])]

    assert [len(texts(fraction)) for fraction in (0.01, 0.25, 0.5, 1.0)] == [1, 3, 6, 12]
    assert set(texts(0.01)) < set(texts(0.25)) < set(texts(0.5)) < set(texts(1.0))
    turned = tmp_path / "turned"
    turned.write_text("\n".join(reversed(Path(files["sft"]).read_text().splitlines())))
    assert [str(row) for row in Context(tmp_path, data_fraction=0.5).rows(str(turned))] == texts(0.5)


@pytest.mark.parametrize("method", ["linear", "slerp", "ties", "dare_ties"])
def test_a_merge_leaves_a_model(method: str, models: list[str], tmp_path: Path) -> None:
    base = models[2] if method in ("ties", "dare_ties") else ""
    made, tokenizer = merge(Context(tmp_path), models=models[:2], base=base, method=method)
    assert all(changed(made, parent) for parent in models[:2])
    assert made.dtype == torch.bfloat16
    assert tokenizer.chat_template == AutoTokenizer.from_pretrained(models[0]).chat_template
    assert json.loads((tmp_path / "config.json").read_text()) == json.loads(Path(models[0], "config.json").read_text())
    assert list(tmp_path.glob("*.safetensors"))


def test_linear_is_the_weighted_average(models: list[str], tmp_path: Path) -> None:
    made, _ = merge(Context(tmp_path), models=models[:2], weight=0.3)
    first, second = (load_file(f"{folder}/model.safetensors") for folder in models[:2])
    for name, tensor in load_file(tmp_path / "model.safetensors").items():
        expected = (0.3 * first[name].float() + 0.7 * second[name].float()).bfloat16()
        torch.testing.assert_close(tensor, expected, rtol=0.01, atol=1e-6)
        assert torch.equal(made.state_dict()[name], tensor)


def test_three_models_share_equally(models: list[str], tmp_path: Path) -> None:
    merge(Context(tmp_path), models=models, weight=0.9)
    each = [load_file(f"{folder}/model.safetensors") for folder in models]
    for name, tensor in load_file(tmp_path / "model.safetensors").items():
        expected = (sum(one[name].float() for one in each) / 3).bfloat16()
        torch.testing.assert_close(tensor, expected, rtol=0.01, atol=1e-6)


@pytest.mark.parametrize(("weight", "nearest"), [(0.999, 0), (0.001, 1)])
def test_slerp_weighs_the_first_model(models: list[str], tmp_path: Path, weight: float, nearest: int) -> None:
    made, _ = merge(Context(tmp_path), models=models[:2], method="slerp", weight=weight)
    name = "model.layers.0.mlp.up_proj.weight"
    distances = [(made.state_dict()[name] - load_file(f"{m}/model.safetensors")[name]).norm() for m in models[:2]]
    assert distances.index(min(distances)) == nearest


def test_ties_without_conflict_and_cut_adds_the_mean_difference(models: list[str], tmp_path: Path) -> None:
    """Base + the same change in both models = that change, whatever the method trims when it keeps all."""
    shifted, copy = tmp_path / "shifted", tmp_path / "copy"
    model, tokenizer = Context(tmp_path).load(models[0])
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight.add_(0.125)
    saved((model, tokenizer), shifted)
    saved((model, tokenizer), copy)
    arguments: dict[str, Any] = {
        "models": [str(shifted), str(copy)],
        "base": models[0],
        "density": 1.0,
        "method": "ties",
    }
    made, _ = merge(Context(tmp_path / "out"), **arguments)
    torch.testing.assert_close(made.state_dict(), model.state_dict())
    double, _ = merge(Context(tmp_path / "double"), scale=2.0, **arguments)
    assert changed(double, str(shifted)) == {"model.layers.0.mlp.up_proj.weight"}


def test_the_seed_decides_what_dare_drops(models: list[str], tmp_path: Path) -> None:
    def digest(seed: int, folder: Path) -> str:
        merge(Context(folder, seed=seed), models=models[:2], base=models[2], method="dare_ties")
        return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()

    first, again, other = (digest(seed, tmp_path / str(i)) for i, seed in enumerate((1, 1, 2)))
    assert first == again != other


@pytest.fixture
def larger(tmp_path: Path, models: list[str]) -> Iterator[str]:
    """A model with one more row in its embedding."""
    folder = tmp_path / "larger"
    folder.mkdir()
    for file in Path(models[0]).iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": config["vocab_size"] + 1}))
    tensors = load_file(folder / "model.safetensors")
    name = "model.embed_tokens.weight"
    save_file({**tensors, name: torch.cat([tensors[name], tensors[name][:1]])}, folder / "model.safetensors")
    yield str(folder)


def test_models_that_do_not_fit_are_both_named(models: list[str], larger: str, tmp_path: Path) -> None:
    with pytest.raises(ActionFailed, match="vocab_size") as failure:
        merge(Context(tmp_path / "out"), models=[models[0], larger])
    assert models[0] in str(failure.value) and larger in str(failure.value)
    assert failure.value.kind == "mismatch"
    assert not (tmp_path / "out").exists(), "before compute"


@pytest.mark.parametrize(
    ("count", "arguments", "message"),
    [
        (1, {}, "at least 2"),
        (3, {"method": "slerp"}, "exactly 2"),
        (2, {"method": "ties"}, "needs a base"),
        (2, {"method": "nonsense"}, "linear, slerp, ties, dare_ties"),
    ],
)
def test_a_call_that_makes_no_sense_is_refused(
    count: int, arguments: dict[str, Any], message: str, models: list[str], tmp_path: Path
) -> None:
    with pytest.raises(ActionFailed, match=message):
        merge(Context(tmp_path / "out"), models=models[:count], **arguments)
