"""What people type and write by mistake, from public reports: each ends with exit code 2 and with what to do."""

import shlex
from collections.abc import Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, get_args

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from lamdagent.api.composing import compose
from lamdagent.config import Config, read
from lamdagent.errors import ConfigError, UserError
from lamdagent.settings.hints import choices, core, keys, wanted
from tests.searches import lamdagent, streams


def answer(*words: str, config_dir: Path | None = None) -> str:
    """What is said of a command line and of the folder of a user's groups."""
    with pytest.raises(UserError) as caught:
        read(compose(None, words, config_dir).node)
    return str(caught.value)


def written(folder: Path, group: str, text: str) -> Path:
    """A folder of a user with one file `mine.yaml` in a group."""
    (folder / group).mkdir()
    (folder / group / "mine.yaml").write_text(text)
    return folder


def leaves(hint: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every key of the configuration with its type; an entry of a mapping is called `any`."""
    base = core(hint)[0]
    if is_dataclass(base):
        for key, each in keys(base).items():
            yield from leaves(each, (*path, key))
    elif get_args(base) and is_dataclass(core(get_args(base)[-1])[0]):
        yield from leaves(get_args(base)[1], (*path, "any"))
    else:
        yield ".".join(path), hint


LEAVES = dict(leaves(Config))


class TestEqualsSigns:
    """And other characters that Hydra's grammar keeps for itself."""

    @pytest.mark.parametrize(
        "value",
        [
            "/data/run=3/model",
            "sqlite:///mlflow.db?timeout=30",
            "postgresql://u:p=w@host/db?a=1&b=2",
            "tags.team = 'nlp'",
            "a#b",
            "it's",
            "~/models/pico",
            "modèle",
            "a(b)",
            "=3",
        ],
    )
    def test_the_advice_is_the_argument_that_works(self, value):
        said = answer("+experiment=smoke", f"tracking.uri={value}")
        advised = shlex.split(said[said.index("shell: ") :].removeprefix("shell: "))
        (override,) = OverridesParser.create().parse_overrides(advised)
        assert override.value() == value
        assert compose("smoke", advised).node.tracking.uri == value

    def test_what_is_quoted_already_is_taken(self):
        assert compose(None, ['tracking.uri="/data/run=3/db"']).node.tracking.uri == "/data/run=3/db"

    @pytest.mark.parametrize("torn", [["+datasets.mine={kind:", "sft,"], ["ladder.rungs=[0.1,", "1]"]])
    def test_brackets_that_the_shell_has_torn(self, torn):
        assert "single quotes around it all" in answer(*torn)

    @pytest.mark.parametrize(
        ("word", "words"),
        [
            ("smoke", "Did you mean +experiment=smoke?"),
            ("dry_run", "Settings are given as key=value without spaces"),
            ("+experiment", "Settings are given as key=value without spaces"),
        ],
    )
    def test_words_without_a_value(self, word, words):
        assert words in answer(word)


class TestSwitches:
    """YAML reads the bare words on, off, yes and no as true and false."""

    SWITCHED = sorted(path for path, hint in LEAVES.items() if {"on", "off"} & set(choices(hint)))

    def test_these_keys_have_such_words(self):
        assert {"agent.structured", "execution.memory_check", "evaluation.overlap"} <= set(self.SWITCHED)

    @pytest.mark.parametrize("path", SWITCHED)
    @pytest.mark.parametrize("word", ["on", "off", "yes", "no", "true", "false", "Off", "'off'"])
    def test_a_switch_is_the_word_where_that_is_a_choice(self, path, word, tmp_path):
        name, value = ("on", True) if word in ("on", "yes", "true") else ("off", False)
        section, key = path.split(".")
        folder = written(tmp_path, "experiment", f"# @package _global_\n{section}: {{{key}: {word}}}\n")
        if name in choices(LEAVES[path]):
            for node in (compose("mine", (), folder).node, compose(None, [f"{path}={word}"]).node):
                assert getattr(getattr(read(node), section), key) == name
        else:
            said = answer("+experiment=mine", config_dir=folder)
            assert f"{path}: got {str(value).lower()}, wanted one of" in said and "put a word in quotes" in said

    @pytest.mark.parametrize("path", ["search.seed", "budget.trials", "evaluation.batch_size", "data_fraction"])
    def test_a_switch_is_no_number(self, path):
        assert f"{path}: got true, wanted a" in answer(f"{path}=true")

    @pytest.mark.parametrize("path", ["tracking.experiment", "agent.api_key_env", "tracking.registered_model"])
    def test_a_switch_is_no_text(self, path):
        assert f"{path}: got false, wanted text" in answer(f"{path}=false")

    def test_nor_the_name_of_an_entry(self, tmp_path):
        folder = written(tmp_path, "experiment", "# @package _global_\nmodels: {on: {source: x}}\n")
        assert "models.true: YAML reads on, yes and true alike" in answer("+experiment=mine", config_dir=folder)

    @pytest.mark.parametrize("word", ["on", "off", "yes", "no"])
    def test_true_and_false_may_be_said_so(self, word):
        assert read(compose(None, [f"agent.debias={word}"]).node).agent.debias is (word in ("on", "yes"))


class TestPlusAndPackage:
    @pytest.mark.parametrize("word", ["experiment=smoke", "model=pico", "task=pico_spell", "action=sft_full"])
    def test_a_group_that_nothing_has_chosen_wants_a_plus(self, word):
        assert f"use +{word}" in answer(word)

    @pytest.mark.parametrize(("word", "meant"), [("+agent=llm", "agent=llm"), ("+execution=ray", "execution=ray")])
    def test_a_group_that_has_a_choice_wants_none(self, word, meant):
        assert f"On the command line: {meant}, once, without +" in answer(word)

    @pytest.mark.parametrize(
        ("group", "package"),
        [("experiment", "_global_"), ("model", "models.NAME"), ("task", "tasks.NAME"), ("source", "memory.sources")],
    )
    @pytest.mark.parametrize("text", ["budget: {trials: 1}\n", "# package _global_\nbudget: {trials: 1}\n", "- a\n"])
    def test_a_file_without_its_package_line(self, group, package, text, tmp_path):
        said = answer(f"+{group}=mine", config_dir=written(tmp_path, group, text))
        assert (
            f"{group}: unknown key. A file of your own in {group}/ begins with the line `# @package {package}" in said
        )

    def test_a_package_line_that_is_misspelt(self, tmp_path):
        folder = written(tmp_path, "experiment", "# @package global\nbudget: {trials: 1}\n")
        assert "begins with the line `# @package _global_`" in answer("+experiment=mine", config_dir=folder)

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("defaults:\n  - model: pico\n", "a group begins with a slash: /model: pico"),
            ("defaults: /experiment/smoke\n", "defaults must be a list"),
            ("defaults:\n  - /agent: llm\n", "In a defaults list: override /agent: llm"),
            ("budget: {trials: 1, trials: 2}\n", "found duplicate key trials"),
            ("\tbudget: {trials: 1}\n", "cannot start any token"),
            ('budget: {trials: "${search.seed"}\n', "no viable alternative at input '${search.seed'"),
            ('"budget.trials": 3\n', "Write it nested, budget: {trials: ...}"),
        ],
    )
    def test_files_that_cannot_be_read(self, text, words, tmp_path):
        folder = written(tmp_path, "experiment", f"# @package _global_\n{text}")
        assert words in answer("+experiment=mine", config_dir=folder)

    def test_a_file_that_is_no_utf_8(self, tmp_path):
        folder = written(tmp_path, "experiment", "")
        (folder / "experiment" / "mine.yaml").write_bytes("# @package _global_\n# é\n".encode("latin-1"))
        assert "no text in UTF-8" in answer("+experiment=mine", config_dir=folder)


class TestNamesWithDots:
    @pytest.mark.parametrize("name", ["llama-3.1", "qwen2.5", "a.b.c", "gpt-4.1-mini"])
    @pytest.mark.parametrize("plus", ["", "+"])
    def test_are_given_in_one_piece(self, name, plus):
        said = answer("+experiment=smoke", f"{plus}models.{name}.source=x")
        (advised,) = shlex.split(said[said.index("one piece: ") :].removeprefix("one piece: "))
        assert read(compose("smoke", [advised]).node).models[name].source == "x"

    def test_in_other_groups_too(self):
        assert "'+datasets={my.v1: {rows: 3}}'" in answer("+datasets.my.v1.rows=3")

    def test_from_a_file(self, tmp_path):
        folder = written(tmp_path, "model", "# @package models\nllama-3.1: {source: x}\n")
        assert read(compose(None, ["+model=mine"], folder).node).models["llama-3.1"].source == "x"


class TestVariables:
    def test_what_is_not_set_is_named_with_all_other_faults(self, monkeypatch):
        monkeypatch.delenv("NOT_SET", raising=False)
        words = ("tracking.uri=${oc.env:NOT_SET}", "budget.trials=${nope}", "agent.model=???", "search.test_top=0")
        said = answer("search.seed=${odd:1}", *words)
        assert "5 faults" in said
        assert "tracking.uri: the environment variable NOT_SET is not set; set it, or name a default" in said
        assert "budget.trials: got '${nope}', which refers to nothing" in said
        assert "search.seed: got '${odd:1}', which refers to nothing" in said
        assert "agent.model: ??? stands for a value that you give" in said

    def test_inside_lists_and_longer_texts(self, monkeypatch):
        monkeypatch.delenv("NOT_SET", raising=False)
        said = answer('+datasets.a={source: "/data/${oc.env:NOT_SET}/x"}', "ladder.rungs=[0.1,'${oc.env:NOT_SET}']")
        assert "datasets.a.source: the environment variable NOT_SET" in said
        assert "ladder.rungs.1: the environment variable NOT_SET" in said

    def test_one_that_is_set_is_read_as_its_key_wants_it(self, monkeypatch):
        monkeypatch.setenv("TRIALS", "12")
        words = ["budget.trials=${oc.env:TRIALS}", "tracking.experiment=${oc.env:NOT_SET,mine}"]
        config = read(compose(None, words).node)
        assert config.budget.trials == 12 and config.tracking.experiment == "mine"


class TestKeys:
    RANGED = sorted(path for path, hint in LEAVES.items() if core(hint)[1] and "any" not in path)

    @pytest.mark.parametrize("path", RANGED)
    def test_a_value_out_of_range_is_told_with_the_range(self, path):
        assert f"{path}: got -1, wanted {wanted(LEAVES[path])}" in answer(f"++{path}=-1")

    def test_ranges_are_on_most_numbers(self):
        numbers = [path for path, hint in LEAVES.items() if core(hint)[0] in (int, float)]
        assert len(numbers) - len([path for path in numbers if core(LEAVES[path])[1]]) <= 6

    @pytest.mark.parametrize(
        ("word", "words"),
        [
            ("budget.tirals=3", "budget.tirals: unknown key. did you mean 'trials'?"),
            ("serch.seed=1", "serch: unknown key. did you mean 'search'?"),
            ("+experiments=smoke", "experiments: unknown key. did you mean +experiment=...?"),
            ("budget.trials.x=3", "budget.trials: got {'x': 3}, wanted a whole number"),
            ("budget=3", "budget: got 3, wanted a group of settings: trials, wall_clock_minutes, gpu_hours, usd"),
            ("++models=3", "models: got 3, wanted a mapping from names to a group of settings: source, "),
            ("+models.mine=x", "models.mine: got 'x', wanted a group of settings: source, file"),
            ("budget.trials=", "budget.trials: got '', wanted a whole number of at least 1, or null"),
            ("search.seed=1.5", "search.seed: got 1.5, wanted a whole number"),
            ("search.seed=null", "search.seed: got null, wanted a whole number"),
            ("data_fraction=.inf", "data_fraction: got '.inf', wanted a number above 0 and at most 1"),
            ("+tasks.a.limits={serch: 3}", "tasks.a.limits.serch: there is no such name here; allowed: search, test"),
            ("datasets.pico_words.rows=4", "Where nothing has chosen datasets.pico_words yet: +dataset=pico_words"),
        ],
    )
    def test_what_is_no_key_or_no_value(self, word, words):
        assert words in answer(word)

    def test_faults_of_keys_and_of_what_they_name_come_together(self):
        from lamdagent.planning.plan import read_plan

        words = ["budget.trials=0", "+datasets.mine={kind: sft, source: nowhere.jsonl}", "+tasks.odd={weight: -1}"]
        with pytest.raises(ConfigError) as caught:
            read_plan(compose("smoke", words).node)
        paths = [fault.split(":")[0] for fault in caught.value.faults]
        assert paths == ["budget.trials", "tasks.odd.weight", "datasets.mine.source"]

    def test_a_file_of_a_search_of_ours_is_read_again(self):
        node = compose("smoke").node
        assert read(OmegaConf.create(OmegaConf.to_yaml(node, resolve=True))) == read(node)


class TestProcesses:
    """Once for each kind: exit code, no traceback, no folder left behind."""

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["experiment=smoke"], "use +experiment=smoke"),
            (["--config-dir", "not_there", "+experiment=smoke"], "not_there' not found"),
            (["+experiment=smoke", "tracking.uri=/a=b"], "'tracking.uri=\"/a=b\"'"),
            (["+experiment=smoke", "tracking.uri=${oc.env:NOT_SET}"], "NOT_SET is not set"),
            (["+experiment=smoke", "budget.trials=1,2"], "add --multirun"),
            (["histroy"], "did you mean history?"),
        ],
    )
    def test_ends_with_2(self, words, said, tmp_path):
        code, _, err = streams(tmp_path, *words)
        assert code == 2 and said in err and "Traceback" not in err, err
        assert not list(tmp_path.iterdir())

    @pytest.mark.slow
    def test_a_sweep_is_so_many_searches_and_leaves_no_folder(self, tmp_path):
        words = ("+experiment=smoke", "+datasets.pico_spell.rows=40,50", "dry_run=true", "execution=inline")
        code, output = lamdagent(tmp_path, "--multirun", *words)
        assert code == 0, output
        assert output.count("Budget: trials 7") == 2
        assert not list(tmp_path.iterdir())

    @pytest.mark.slow
    def test_a_fault_in_a_sweep_ends_it_with_2(self, tmp_path):
        code, output = lamdagent(tmp_path, "--multirun", "+experiment=smoke", "search.test_top=0,1", "dry_run=true")
        assert code == 2 and "search.test_top: got 0" in output and "Traceback" not in output
        assert not list(tmp_path.iterdir())
