"""The plain commands of the newer methods: run in one process that cannot import this package."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from safetensors.torch import load_file

from lamdagent import pico
from lamdagent.actions.quantized import dpo_qlora, sft_qlora
from lamdagent.actions.sft import sft_packed
from lamdagent.champion.model_card import model_card
from lamdagent.config import read
from lamdagent.evaluation.task import Score
from lamdagent.export.folder import RecordingContext, write
from lamdagent.export.part import place
from lamdagent.export.steps import _script
from lamdagent.memory.trial import History, Trial
from lamdagent.objects.model import Model
from lamdagent.planning.plan import make_plan
from tests.test_rebuild import BASE, CONF, WITHOUT_US, Family

SHORT = "steps: 2, batch_size: 4, micro_batch_size: 2, learning_rate: 0.003"
SUM = "lamdagent.rewards.calls:near_call + 0.5 * my_rewards:vowels"
ANSWERS = f"generations: 2, completion_length: 8, reward: '{SUM}'"
TYPES = {
    "kto_lora": "max_length: 64, lora_rank: 4",
    "sft_qlora": "max_length: 64, lora_rank: 4",
    "orpo_full": "max_length: 64",
    "rft_full": "max_length: 64, completion_length: 8, reward: 'my_rewards:vowels', threshold: 0.0, answers: 2",
    "sft_full": "max_length: 64",
    "grpo_lora": f"{ANSWERS}, lora_rank: 4",
    "distill_full": "completion_length: 8",
}
MINE = """
def vowels(completions, answer, **_):
    return [sum(letter in "aeiou" for letter in completion[-1]["content"]) / 8 for completion in completions]
"""
ROWS = """
import json
from lamdagent import pico

CALL = json.dumps({"functions": [], "function": "", "answers": None})

def rows():
    return [row | {"call": CALL, "unused": 1} for row in pico.prompt_rows()]
"""
ALL_IN_ONE = "import glob, runpy\nfor script in sorted(glob.glob('[0-9]*.py')):\n    runpy.run_path(script)\n"
"""Every script in one process: the libraries are imported once."""


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a user's own code on the path."""
    folder = tmp_path_factory.mktemp("mine")
    (folder / "my_rewards.py").write_text(MINE)
    (folder / "my_rows.py").write_text(ROWS)
    return folder


@pytest.fixture(scope="module")
def family(mine: Path, tmp_path_factory: pytest.TempPathFactory) -> Family:
    folder = tmp_path_factory.mktemp("family")
    pico.build(folder / "base")
    base = Model(BASE, str(folder / "base"), "run-0", BASE, 0, "LlamaForCausalLM", 512)
    score = Score(0.2, 0.1)
    with pytest.MonkeyPatch.context() as patch, initialize_config_dir(str(CONF), version_base=None):
        patch.syspath_prepend(str(mine))
        chosen = ["+model=pico", "+dataset=[pico_pairs,pico_repeat]", "+task=[pico_spell,pico_repeat]"]
        chosen += ["+datasets.words={kind: prompts, function: 'my_rows:rows'}"]
        actions = [f"+action=[{','.join(TYPES)}]"]
        actions += [f"+actions.{name}.hyperparameters={{{SHORT}, {more}}}" for name, more in TYPES.items()]
        actions += ["actions.sft_qlora.needs=[]"]  # a CPU will do
        plan = make_plan(read(compose("config", [*chosen, *actions])))
        scores = {"spell": score}
        first = Trial("run-0", "base", "finished", None, base, scores, score, scores, score)
        made = Family(plan, base, folder / "made", [first])
        kto = made.make("kto_lora", model=base, dataset="pico_pairs")
        qlora = made.make("sft_qlora", model=kto, dataset="pico_repeat")
        orpo = made.make("orpo_full", model=qlora, dataset="pico_pairs")
        rft = made.make("rft_full", model=base, dataset="words")
        sft = made.make("sft_full", model=rft, dataset=f"of {rft.run_id}")
        grpo = made.make("grpo_lora", model=sft, dataset="words")
        made.make("distill_full", model=orpo, teacher=grpo, dataset="words")
    return made


@pytest.fixture(scope="module")
def folder(family: Family, mine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    written = tmp_path_factory.mktemp("rebuild")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(mine))
        write(family.trials[-1], family.history, family.plan, written)
    return written


@pytest.mark.slow
def test_every_model_comes_out_the_same(family: Family, folder: Path, mine: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_US)
    (folder / "every.py").write_text(ALL_IN_ONE)
    lines = (folder / "rebuild.sh").read_text().splitlines()
    scripts = [line for line in lines if line.startswith("python ")]
    assert [line.split("_", 1)[1] for line in scripts] == [f"{name}.py" for name in TYPES]
    once = "\n".join([line for line in lines if line not in scripts] + ["python every.py"])
    (folder / "once.sh").write_text(once + "\n")
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "MLFLOW_", "LAMDAGENT_"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    modules = f"{tmp_path}{os.pathsep}{mine}"
    environment = inherited | {"PYTHONPATH": modules, "PATH": path, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(["sh", str(folder / "once.sh")], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(family.trials) == 8
    for trial in family.trials[1:]:
        assert trial.model
        expected, found = (
            load_file(where / "model.safetensors")
            for where in (Path(family.weights(trial.model)), folder / place(trial.model))
        )
        assert expected.keys() == found.keys()
        assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items()), trial.name


def test_the_card_says_that_a_model_in_the_past_has_written_down_items(family: Family) -> None:
    told = "Training data hold evaluation items: 1 of 9 rows of answers that the model gave itself (in spell)."
    trials = [replace(t, dataset=replace(t.dataset, overlap=told)) if t.dataset else t for t in family.trials]
    assert f"- {told}" in model_card(trials[-1], History(tuple(trials)), family.plan, "")


def test_our_rewards_travel_and_the_user_s_are_named(folder: Path) -> None:
    script = next(folder.glob("*_grpo_lora.py")).read_text()
    assert "from rewards.calls import near_call as reward_1\n" in script
    assert "from my_rewards import vowels as reward_2  # your own code: my_rewards must be on PYTHONPATH" in script
    files = {file.name: file.read_text() for file in (folder / "rewards").glob("*.py")}
    assert {"calls.py", "reply.py", "checker.py", "call.py"} == set(files)
    assert not any("import lamdagent" in text or "from lamdagent" in text for text in files.values())

    def columns(name: str) -> set[str]:
        return {key for line in (folder / "data" / name).read_text().splitlines() for key in json.loads(line)}

    assert columns("words-0.75-answer-call.jsonl") == {"prompt", "answer", "call"}
    assert columns("words-0.75.jsonl") == {"prompt"}


@pytest.mark.parametrize("function", [sft_qlora, dpo_qlora])
def test_qlora_is_written_down_too(function: object, tmp_path: Path) -> None:
    step, _ = function(RecordingContext(tmp_path), model="./models/a", dataset="data/rows.jsonl")  # type: ignore[operator]
    script = _script(step, "./models/b", 0)
    compile(script, "script", "exec")
    for words in ("bits = BitsAndBytesConfig(", "PeftModel.from_pretrained(whole, './models/b-adapter')"):
        assert words in script
    assert "ref_model" not in script and "model.float()" not in script


def test_packing_is_written_down_too(tmp_path: Path) -> None:
    step, _ = sft_packed(RecordingContext(tmp_path), model="./models/a", dataset="data/rows.jsonl")  # type: ignore[arg-type]
    script = _script(step, "./models/b", 0)
    compile(script, "script", "exec")
    assert "packing=True" in script and "completion_only_loss=True" in script
