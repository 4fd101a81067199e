"""Models of a merge must fit together: told from files, at the door, with what differs; and what can never run."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lamdagent import pico
from lamdagent.actions.action import ActionType, Slot
from lamdagent.actions.context import Context
from lamdagent.actions.merging import merge
from lamdagent.enumeration.reachability import unreachable
from lamdagent.errors import ActionFailed
from lamdagent.objects import tokenizer_vocab
from lamdagent.objects.compatibility import differences, signature_of
from tests.builders import DATASETS, DPO, LINEAR, SFT, TIES, model, pool, space
from tests.searches import Said, lamdagent

ROOT = Path(__file__).parents[1]
MERGE_ONLY = ("~actions.sft_full", "~actions.dpo_lora", "~actions.merge_ties", "~models.pico")


def with_other_words(folder: Path) -> None:
    """The pico model with two tokens that have changed places: equal sizes, other meanings. Also a model source."""
    pico.build(folder)
    swap(folder)


def swap(folder: Path) -> None:
    path = folder / "tokenizer.json"
    told = json.loads(path.read_text(encoding="utf-8"))
    words = told["model"]["vocab"]
    words["a"], words["b"] = words["b"], words["a"]
    path.write_text(json.dumps(told), encoding="utf-8")


@pytest.fixture
def copy(pico_folder: str, tmp_path: Path) -> Callable[[str], Path]:
    return lambda name: Path(shutil.copytree(pico_folder, tmp_path / name))


def configured(folder: Path, **changes: Any) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


class TestFrames:
    def test_a_model_fits_itself_whatever_else_its_files_say(self, copy: Any, pico_folder: str) -> None:
        other = configured(copy("other"), transformers_version="0", rope_theta=1.0, head_dim=None, dtype="float32")
        (other / "tokenizer.json").write_text(json.dumps(json.loads((other / "tokenizer.json").read_text()), indent=1))
        here, there = signature_of(Path(pico_folder)), signature_of(other)
        assert differences(here, there) == [] and here.digest == there.digest

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"vocab_size": 513}, "vocab_size is 432 and 513"),
            ({"num_hidden_layers": 5}, "num_hidden_layers is 4 and 5"),
            ({"num_attention_heads": 8}, "num_attention_heads is 4 and 8"),
            ({"head_dim": 32}, "head_dim is 16 and 32"),
            ({"architectures": ["Other"]}, "architectures is ['LlamaForCausalLM'] and ['Other']"),
            ({"num_local_experts": 4}, "num_local_experts is None and 4"),
        ],
    )
    def test_sizes_that_differ_are_named(self, changes: Any, words: str, copy: Any, pico_folder: str) -> None:
        here, there = signature_of(Path(pico_folder)), signature_of(configured(copy("other"), **changes))
        assert words in differences(here, there) and here.digest != there.digest

    def test_tokens_that_differ_are_named(self, copy: Any, pico_folder: str) -> None:
        swap(copy("other"))
        here, there = signature_of(Path(pico_folder)), signature_of(copy("third").parent / "other")
        row = min(here.tokens["a"], here.tokens["b"])
        assert differences(here, there) == [f"2 tokens differ, the first in row {row}: 'a' and 'b'"]
        assert here.digest != there.digest

    def test_a_merge_of_folders_that_do_not_fit_is_refused(self, copy: Any, pico_folder: str, tmp_path: Path) -> None:
        other = copy("other")
        swap(other)
        with pytest.raises(ActionFailed, match="2 tokens differ") as failure:
            merge(Context(tmp_path / "out"), models=[pico_folder, str(other)])
        assert failure.value.kind == "mismatch" and not (tmp_path / "out").exists()


class TestVocabulary:
    """Every kind of tokenizer file."""

    def read(self, folder: Path, **files: Any) -> dict[str, int]:
        folder.mkdir()
        for name, content in files.items():
            text = content if isinstance(content, str) else json.dumps(content)
            (folder / ".".join(name.rsplit("_", 1))).write_text(text)
        return tokenizer_vocab.vocabulary(folder)

    def test_the_kinds_agree(self, tmp_path: Path) -> None:
        words = {"a": 0, "b": 1}
        added = [{"content": "<s>", "id": 2}]
        bpe, unigram = {"vocab": words}, {"vocab": [["a", -1], ["b", -2]]}
        found = [
            self.read(tmp_path / "bpe", tokenizer_json={"model": bpe, "added_tokens": added}),
            self.read(tmp_path / "unigram", tokenizer_json={"model": unigram, "added_tokens": added}),
            self.read(tmp_path / "slow", vocab_json=words, added_tokens_json={"<s>": 2}),
        ]
        assert found == [{**words, "<s>": 2}] * 3

    def test_what_is_not_taken_apart_is_held_by_its_bytes(self, tmp_path: Path) -> None:
        one, same, other = (self.read(tmp_path / str(i), tokenizer_model=text) for i, text in enumerate("xxy"))
        assert one == same and tokenizer_vocab.difference(one, other) == "their tokenizer.model differ"
        known = self.read(tmp_path / "4", vocab_json={"a": 0})
        assert tokenizer_vocab.difference(one, known) == "", "nobody can tell"
        assert tokenizer_vocab.digest(self.read(tmp_path / "5")) == ""

    def test_equal_files_are_held_once_and_any_other_file_is_told_apart(self, tmp_path: Path) -> None:
        one, same, other = (
            self.read(tmp_path / str(number), vocab_json={"a": 0}, added_tokens_json={token: 1})
            for number, token in enumerate(("<s>", "<s>", "<e>"))
        )
        assert one is same and other == {"a": 0, "<e>": 1}
        tokenizer_vocab.forget()
        assert tokenizer_vocab.vocabulary(tmp_path / "0") is not one

    def test_a_broken_file_is_said(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="has no vocabulary"):
            self.read(tmp_path / "6", tokenizer_json={"model": {}})


class TestOffers:
    def test_only_pairs_that_fit_are_offered(self) -> None:
        one, two, three = model(0, frame="x"), model(1, 0, 1, frame="x"), model(2, 0, 2, frame="y")
        (only,) = {a.models for a in space([one, two, three], types=(LINEAR,)).actions(LINEAR)}
        assert set(only) == {one, two}

    def test_a_model_of_an_older_store_fits_as_its_base_does(self) -> None:
        base, old, other = model(0, frame="x"), model(5, 1), model(1, 0, 1, frame="y")
        (only,) = {a.models for a in space([base, old, other], types=(LINEAR,)).actions(LINEAR)}
        assert set(only) == {base, old}


FIRST_TWO = Slot("models", "models", 2, 2, role="initial", complement="weight")
ALONE = dataclasses.replace(LINEAR, name="alone", slots=(FIRST_TWO,))


class TestReach:
    @pytest.mark.parametrize(
        ("types", "models", "depth", "words"),
        [
            ((LINEAR,), 1, None, "takes 2 models, but there can be only 1;"),
            ((TIES,), 1, None, "takes 2 produced models, but there can be none;"),
            ((TIES,), 3, None, "takes 2 produced models, but there can be none;"),
            ((SFT, ALONE), 1, None, "takes 2 initial models, but there can be only 1;"),
            ((SFT, TIES), 1, 1, "takes 2 produced models, but there can be none (search.max_depth = 1 counts);"),
            ((SFT, LINEAR), 1, 1, "takes 2 models, but there can be only 1 (search.max_depth = 1 counts);"),
        ],
    )
    def test_what_can_never_run_is_told_with_the_reason(
        self, types: tuple[ActionType, ...], models: int, depth: int | None, words: str
    ) -> None:
        (fault,) = unreachable(types, [model(n, 0, n) for n in range(models)], DATASETS, depth)
        assert fault.startswith(f"actions.{types[-1].name}: its slot 'models' {words}")

    @pytest.mark.parametrize(
        ("types", "models", "depth"),
        [((SFT, LINEAR, TIES), 1, None), ((SFT, TIES), 1, 2), ((LINEAR,), 2, None), ((LINEAR, DPO), 2, 1)],
    )
    def test_what_can_run_some_day_is_not_refused(
        self, types: tuple[ActionType, ...], models: int, depth: int | None
    ) -> None:
        assert unreachable(types, [model(n, 0, n) for n in range(models)], DATASETS, depth) == []

    def test_one_setting_and_one_dataset_make_one_model_a_round(self) -> None:
        """Exactly: a depth of 2 leaves one produced model as an input, a depth of 3 two."""
        single = dataclasses.replace(SFT, grid={"lr": (0.001,)})
        assert unreachable((single, TIES), pool(), DATASETS[:1], 2)
        assert unreachable((single, TIES), pool(), DATASETS[:1], 3) == []

    def test_others_may_bring_models_but_no_datasets(self) -> None:
        assert unreachable((TIES,), pool(), DATASETS, open_pool=True) == []
        assert "no such dataset" in unreachable((DPO,), pool(), DATASETS[:1], open_pool=True)[0]


def merges(folder: Path, *words: str) -> Said:
    return lamdagent(folder, "+experiment=smoke", "execution=inline", *MERGE_ONLY, *words)


@pytest.mark.slow
class TestSearch:
    def test_a_merge_of_models_with_different_vocabularies_is_refused_before_any_compute(
        self, copy: Any, pico_folder: str, tmp_path: Path
    ) -> None:
        other = copy("other")
        swap(other)
        done = merges(tmp_path, f"+models.one.source={pico_folder}", f"+models.two.source={other}")
        assert done.code == 2, done.output
        told = "no models that can exist fit together in it: one and two cannot be merged: 2 tokens differ"
        assert f"actions.merge_linear: {told}" in done.output
        assert "Traceback" not in done.output and not (tmp_path / "mlflow.db").exists()

    def test_also_where_that_is_known_only_when_they_are_built(self, pico_folder: str, tmp_path: Path) -> None:
        made = "function:tests.test_fit:with_other_words"
        done = merges(tmp_path, f"+models.one.source={pico_folder}", f"+models.two.source='{made}'")
        assert done.code == 2, done.output
        assert "one and two cannot be merged: 2 tokens differ" in done.output and "Traceback" not in done.output

    def test_an_action_that_can_never_run_is_refused_at_the_door(self, pico_folder: str, tmp_path: Path) -> None:
        done = merges(tmp_path, f"+models.one.source={pico_folder}")
        assert done.code == 2 and "takes 2 models, but there can be only 1" in done.output
        assert not (tmp_path / "mlflow.db").exists()
