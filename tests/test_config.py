"""What the user writes: every experiment composes, every fault is told at once, nothing heavy is imported for it."""

import json
import subprocess
import sys

import hydra
import pytest
from hydra import initialize_config_dir

from lamdagent.api.composing import compose
from lamdagent.config import conf_folder, read
from lamdagent.errors import ConfigError, UserError
from lamdagent.planning.plan import read_plan
from tests.searches import lamdagent

EXPERIMENTS = sorted(path.stem for path in (conf_folder() / "experiment").glob("*.yaml"))


def composed(*overrides: str):
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return hydra.compose("config", list(overrides))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_composes_and_is_typed(name):
    config = read(composed(f"+experiment={name}"))
    assert config.models and config.actions and config.tasks
    assert sum(task.weight for task in config.tasks.values()) == pytest.approx(1.0)


@pytest.mark.parametrize("group", ["action", "dataset", "model", "source", "task"])
def test_every_file_of_a_group_composes(group):
    names = sorted(path.stem for path in (conf_folder() / group).glob("*.yaml"))
    assert names and read(composed(f"+{group}=[{','.join(names)}]"))


@pytest.mark.parametrize("group", ["agent", "execution"])
def test_every_choice_of_a_group_composes(group):
    for path in (conf_folder() / group).glob("*.yaml"):
        read(composed(f"{group}={path.stem}"))


def test_all_faults_at_once():
    with pytest.raises(ConfigError) as caught:
        read(composed("search.seed=x", "+budget.tirals=3", "+models.a.sauce=1", "+bar=1"))
    assert len(caught.value.faults) == 4
    assert "did you mean 'trials'" in str(caught.value) and "did you mean 'source'" in str(caught.value)


def test_help_and_cfg_import_nothing_heavy(tmp_path):
    code = (
        "import sys, json; sys.argv = ['lamdagent', '+experiment=smoke', '--cfg', 'job']\n"
        "import atexit; atexit.register(lambda: print('HEAVY', json.dumps("
        "[m for m in ('torch', 'mlflow', 'transformers', 'sklearn', 'litellm') if m in sys.modules])))\n"
        "from lamdagent.__main__ import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert json.loads(done.stdout.split("HEAVY ")[1]) == []
    assert "pico" in done.stdout and done.returncode == 0
    code, shown = lamdagent(tmp_path, "--help")
    assert code == 0 and "+experiment=tooluse" in shown and not list(tmp_path.iterdir())


BROKEN = {
    "unknown key": (["+budget.tirals=3"], "budget.tirals: unknown key. did you mean 'trials'"),
    "wrong type": (["budget.trials=many"], "budget.trials: got 'many', wanted a whole number of at least 1, or null"),
    "missing file": (["+datasets.mine={kind: sft, source: nowhere.jsonl}"], "there is no file 'nowhere.jsonl'"),
    "missing column": (["+datasets.mine={kind: sft, source: odd.jsonl}"], "no column 'completion'"),
    "negative weight": (["tasks.repeat.weight=-1"], "tasks.repeat.weight: got -1, wanted a number of at least 0"),
    "no legal action": (["~datasets.pico_pairs"], "its slot 'dataset' takes preference, but there is no such dataset"),
    "unreadable model": (["models.pico.source=broken"], "models.pico"),
    "empty dataset": (["+datasets.mine={kind: sft, source: empty.jsonl}"], "has no rows"),
    "unknown policy": (["agent=oracle"], "Could not find 'agent/oracle'"),
    "unknown override": (["serch.seed=1"], "Could not override 'serch.seed'"),
    "broken YAML": (["+dataset=torn"], "torn.yaml"),
    "unknown kind of policy": (
        ["agent.kind=oracle"],
        "agent.kind: got 'oracle'; allowed: auto, hybrid, llm, surrogate, tpe, random",
    ),
    "weights of nothing": (["tasks.repeat.weight=0", "tasks.spell.weight=0"], "the weights add up to nothing"),
    "value off its type": (["actions.sft_full.hyperparameters.steps=[1.5]"], "got 1.5 (float), wanted int"),
    "unknown hyperparameter": (["+actions.sft_full.hyperparameters.momentum=1"], "momentum: unknown"),
    "llm without a model": (["agent=llm"], "agent.model: not given"),
    "endless": (["budget.trials=null"], "the search would never end"),
}


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory):
    """A folder with files that are wrong in one way each."""
    folder = tmp_path_factory.mktemp("spoilt")
    (folder / "odd.jsonl").write_text('{"question": "a", "prompt": "b"}\n')
    (folder / "empty.jsonl").write_text("")
    (folder / "dataset").mkdir()
    (folder / "dataset" / "torn.yaml").write_text("a: b: c")
    (folder / "broken").mkdir()
    (folder / "broken" / "config.json").write_text("{")
    return folder


@pytest.mark.parametrize("fault", BROKEN)
def test_broken_configurations_are_refused_with_one_message(fault, spoilt, monkeypatch):
    overrides, words = BROKEN[fault]
    monkeypatch.chdir(spoilt)
    with pytest.raises(UserError) as caught:
        read_plan(compose("smoke", overrides, spoilt).node)
    assert words in str(caught.value)


@pytest.mark.slow
def test_a_store_that_cannot_be_reached_ends_the_command_with_2(tmp_path):
    code, said = lamdagent(tmp_path, "+experiment=smoke", "tracking.uri=postgresql://nobody@127.0.0.1:9/none")
    assert code == 2 and "tracking.uri" in said and "Traceback" not in said, said
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.slow
def test_dry_run_shows_the_plan_and_runs_nothing(tmp_path):
    code, said = lamdagent(tmp_path, "+experiment=smoke", "dry_run=true", "execution=inline")
    assert code == 0, said
    for words in ("Pool", "Tasks", "sft_full", "Budget: trials 7", "first prompt", "second prompt", "0 USD"):
        assert words in said
    assert not list(tmp_path.iterdir())
