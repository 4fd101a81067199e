"""LoRA adapters as initial models: on their own base, on another one, stacked; merged, searched and rebuilt."""

import dataclasses
import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lamdagent import pico
from lamdagent.actions.context import Context
from lamdagent.actions.merging import merge
from lamdagent.actions.sft import sft
from lamdagent.config import ModelConfig
from lamdagent.errors import UserError
from lamdagent.export.initial import initial
from lamdagent.export.part import place
from lamdagent.objects.adapters import spec_of
from lamdagent.objects.model import Model, Origin
from lamdagent.objects.sources import check_source, full_spec
from lamdagent.worker.prepare import Prepared, prepare_model
from tests import python_shim
from tests.searches import lamdagent, of_kind, runs_of, search, tag
from tests.test_rebuild import run

LORA: dict[str, Any] = {"steps": 3, "batch_size": 4, "micro_batch_size": 2, "max_length": 128, "learning_rate": 1e-2}


@dataclasses.dataclass
class Stack:
    """A base, an adapter on it, and one more on what both give."""

    base: str
    first: str
    middle: str
    """The model that `first` made: what `second` was trained on."""
    second: str
    last: str


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, pico_folder: str) -> Stack:
    folder = tmp_path_factory.mktemp("stack")
    rows = folder / "rows"
    rows.write_text("".join(json.dumps(row) + "\n" for row in pico.sft_rows()), encoding="utf-8")

    def train(name: str, model: str, seed: int) -> tuple[str, str]:
        context = Context(folder / name, seed=seed, adapter=folder / f"{name}-adapter")
        for part in sft(context, model=model, dataset=str(rows), lora_rank=4, **LORA):
            part.save_pretrained(folder / name)
        return str(folder / f"{name}-adapter"), str(folder / name)

    first, middle = train("first", pico_folder, 1)
    second, last = train("second", middle, 2)
    return Stack(pico_folder, first, middle, second, last)


def prepare(**spec: Any) -> Prepared:
    return prepare_model(lambda progress: None, spec=spec)


def equal(one: str | Path, other: str | Path) -> bool:
    first, second = (load_file(f"{folder}/model.safetensors") for folder in (one, other))
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def edited(source: str, target: Path, **changes: Any) -> str:
    shutil.copytree(source, target)
    path = target / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return str(target)


class TestPrepared:
    def test_an_adapter_becomes_the_model_that_its_training_made(self, stack: Stack) -> None:
        assert check_source({"source": stack.first}) == []
        made = prepare(source=stack.first)
        assert equal(made.folder, stack.middle) and not equal(made.folder, stack.base)
        plain = prepare(source=stack.middle)
        assert (made.frame, made.vocabulary, made.architecture) == (plain.frame, plain.vocabulary, plain.architecture)
        for name in ("config.json", "tokenizer.json", "chat_template.jinja"):
            assert (Path(made.folder) / name).read_text() == (Path(stack.middle) / name).read_text()
        assert prepare(source=stack.first) == made, "once"

    def test_adapters_are_stacked(self, stack: Stack, tmp_path: Path) -> None:
        """On an adapter that the user names as the base, and on one that the files name."""
        models = {"one": ModelConfig(stack.base), "two": ModelConfig(stack.first, base="one")}
        lost = edited(stack.second, tmp_path / "lost", base_model_name_or_path="/gone")
        models["three"] = ModelConfig(lost, base="two")
        assert equal(prepare(**spec_of("three", models)).folder, stack.last)
        named = edited(stack.second, tmp_path / "named", base_model_name_or_path=stack.first)
        assert equal(prepare(source=named).folder, stack.last)
        assert full_spec({"source": named})["base"]["base"]["source"] == stack.base

    def test_adapters_are_merged_with_full_models(self, stack: Stack, tmp_path: Path) -> None:
        adapted = prepare(source=stack.first).folder
        merge(Context(tmp_path / "ours"), models=[adapted, stack.base])
        merge(Context(tmp_path / "plain"), models=[stack.middle, stack.base])
        assert equal(tmp_path / "ours", tmp_path / "plain")


class TestRefusals:
    def only(self, **spec: Any) -> str:
        (fault,) = check_source(spec)
        return fault

    def test_faults_of_an_adapter_are_told_at_the_door(self, stack: Stack, tmp_path: Path) -> None:
        gone = edited(stack.first, tmp_path / "gone", base_model_name_or_path="/not/here")
        assert "/not/here does not exist" in self.only(source=gone) and "as `base`" in self.only(source=gone)
        assert "does not say which model" in self.only(
            source=edited(stack.first, tmp_path / "mute", base_model_name_or_path=None)
        )
        assert "type IA3; only LORA" in self.only(source=edited(stack.first, tmp_path / "odd", peft_type="IA3"))
        pickled = Path(edited(stack.first, tmp_path / "pickled"))
        (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
        assert "could run code" in self.only(source=str(pickled))
        assert "for LoRA adapters" in self.only(source=stack.base, base={"source": stack.base})

    def test_bases_that_are_no_models_or_go_round(self) -> None:
        with pytest.raises(UserError, match="no model 'nope'; allowed: a"):
            spec_of("a", {"a": ModelConfig("x", base="nope")})
        with pytest.raises(UserError, match="a -> b -> a"):
            spec_of("a", {"a": ModelConfig("x", base="b"), "b": ModelConfig("y", base="a")})

    def test_an_adapter_of_another_model_is_refused(self, stack: Stack, tmp_path: Path) -> None:
        """Peft passes over matrices that have no place, in silence."""
        other = Path(edited(stack.first, tmp_path / "other"))
        tensors = load_file(other / "adapter_model.safetensors")
        deeper = {name.replace(".layers.3.", ".layers.7."): tensor for name, tensor in tensors.items()}
        save_file(deeper, other / "adapter_model.safetensors")
        with pytest.raises(UserError, match="have no counterpart in the model"):
            prepare(source=str(other))
        rows = {name: torch.zeros(tensor.shape[0] + 1, *tensor.shape[1:]) for name, tensor in tensors.items()}
        save_file(rows, other / "adapter_model.safetensors")
        with pytest.raises(UserError, match="cannot be applied"):
            prepare(source=str(other))


@pytest.mark.slow
def test_plain_commands_apply_stacked_adapters(stack: Stack, tmp_path: Path) -> None:
    named = edited(stack.second, tmp_path / "named", base_model_name_or_path=stack.first)
    origin = Origin.of(full_spec({"source": named}))
    assert Origin.of(origin.told()) == origin, "as it comes back from the store"
    model = Model("b" * 32, "", origin=origin)
    part = initial(model, "01")
    for name, text in part.files.items():
        (tmp_path / name).write_text(text)
    lines = ["set -e", 'cd "$(dirname "$0")"', "mkdir -p models", *part.commands]
    (tmp_path / "rebuild.sh").write_text("\n".join(lines))
    with TemporaryDirectory() as commands, python_shim.on_path(Path(commands)) as path:
        done = run(tmp_path, path)
    assert done.returncode == 0, done.stderr
    assert equal(tmp_path / place(model), stack.last)


@pytest.mark.slow
def test_a_search_merges_an_adapter_with_its_base(stack: Stack, tmp_path: Path) -> None:
    lost = edited(stack.first, tmp_path / "lost", base_model_name_or_path="/gone")
    models = ["~models.pico", f"+models.plain.source={stack.base}", f"+models.tuned={{source: {lost}, base: plain}}"]
    only = ["~actions.sft_full", "~actions.dpo_lora", "~actions.merge_ties", "budget.trials=1", "~tasks.spell"]
    code, output = search(tmp_path, "+experiment=smoke", *models, *only)
    assert code == 0, output
    runs = runs_of(tmp_path, "lamdagent-smoke")
    (merged,) = of_kind(runs, "action")
    assert merged.info.status == "FINISHED" and tag(merged, "action") == "merge_linear"
    assert sorted("base" in json.loads(tag(base, "origin")) for base in of_kind(runs, "base")) == [False, True]

    code, output = lamdagent(tmp_path, "replay", merged.info.run_id, "search.seed=7")
    assert code == 0, output
    again = of_kind(runs_of(tmp_path, "lamdagent-smoke"), "action")[-1]
    assert again.data.params["seed"] == "7" and tag(again, "parents") == tag(merged, "parents")
