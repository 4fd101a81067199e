"""Digests that stand in users' stores: another one would make what was done count as never done."""

import hashlib
import importlib.metadata
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from lamdagent.actions.action import ActionType
from lamdagent.config import ActionConfig, DatasetConfig, EvaluationConfig, SlotConfig, TaskConfig
from lamdagent.enumeration.space import ActionSpace
from lamdagent.evaluation.task import Task
from lamdagent.objects.dataset import Dataset
from lamdagent.objects.gathered import Gathered
from lamdagent.objects.rows import load_dataset
from lamdagent.planning.actions import build_action_type
from lamdagent.planning.tasks import build_task
from tests.builders import model

CONF = Path(__file__).parents[1] / "conf" / "action"
MESSAGES = [{"role": "user", "content": "2 + 2?"}]
ROWS: dict[str, list[dict[str, Any]]] = {
    "sft": [{"prompt": "a", "completion": "b"}, {"prompt": MESSAGES, "completion": MESSAGES, "tools": "[]"}],
    "preference": [{"prompt": "a", "chosen": "b", "rejected": "ä", "score": 1.5}],
    "prompts": [{"question": MESSAGES, "solution": "4"}],
}
DATA = {
    "sft": "6dcd17f52f1e27408f1465c6cc32255b",
    "preference": "cc3c1bac82bae2dbc3eb9c81a64b291a",
    "prompts": "7c1bade854cbd22a8c3485eb785f5568",
}
TASKS = {
    "hf": "11b2b4788e14cb3603931cc6884c89740461f3eed5a0ff080881cef7e18f445a",
    "vllm": "241ed1af7cf46a8ef0cbaf36e23635de91e8dd32ebfd6126979edec225d1ba8e",
}
ACTIONS = {
    "distill_full": "195a84bcc3d9e9155b7739cd27dd3689",
    "distill_lora": "99205daf9c553de8472fccdc4a4556b3",
    "dpo_full": "89075f6f6b35902e718907bfd31e5c74",
    "dpo_lora": "2278155718bb2f4cd94d79e504f722d2",
    "dpo_qlora": "df72aac61f79e2c5de934a77e4462091",
    "dpo_variants_full": "47a5e23fd497300e8c9765b0cfe7834a",
    "dpo_variants_lora": "4c189b19e4b9a011d629d8e40a452d5e",
    "grpo_full": "a07a6aad0c6a04d38a6d4364c5e8388f",
    "grpo_lora": "83afe19692b74e223550c6a94d7248fe",
    "kto_full": "95fde79fb8317b18a03cfcd89d316238",
    "kto_lora": "c177f610270c7d9eac8abadf1ecaef98",
    "merge_arcee_fusion": "8a4f80392d276f3cf551d70d99f86b5b",
    "merge_breadcrumbs": "294615c8a719aee9fe8397dcc74f5b36",
    "merge_breadcrumbs_ties": "5fffe68e6fb286475a4ebc1921e1f383",
    "merge_dare_linear": "36273b7a0a3802df747571d34f65ae63",
    "merge_dare_ties": "743f69eadb87e615a486d68275c2b3d3",
    "merge_della": "ed40e4a2fd811c0ed37e0eafa5123e1e",
    "merge_della_linear": "dd034be14ce8afcff6eb6dedc3a60876",
    "merge_karcher": "98ce0c72e7e3dcfc92830dd59b13e5e7",
    "merge_linear": "0e7e5c5428ac6db7c553df9fea6c91c3",
    "merge_model_stock": "6274c6c785b0e5a83cc5ab8a7429556d",
    "merge_multislerp": "820590b2a23a06a51e0232dfa6c75419",
    "merge_nearswap": "9bd0b019217c2b6e936a743b68d96ee0",
    "merge_nuslerp": "88df0c472b286c9bf99139aed3449be5",
    "merge_ram": "e1e9390253a4ada9f1aed9ebab5019f3",
    "merge_ramplus_tl": "6091173c300bdbacf4faac2ade827066",
    "merge_sce": "955f226aca5bece3d86254b59c6a8262",
    "merge_slerp": "ff41bebcff964ea89bf0f325fb241f4d",
    "merge_task_arithmetic": "6d180af8c684471f80d48a76664c62d2",
    "merge_ties": "e53782c719382dea544ca54c86f36067",
    "orpo_full": "4ba872eb3f47df5414f36fffa6b5d38a",
    "orpo_lora": "70014adb8ffd4ad808bbd7b112c4b2be",
    "rft_full": "110166630a4614204709c32a85d3a8ca",
    "rft_lora": "17c76c65f891733060dbaf53b0d064fc",
    "rloo_full": "d8a2476a257ea36f1196c0f4ed1ca505",
    "rloo_lora": "5e067061fde76e1a25d20446db60ae07",
    "sft_full": "90bbc4d6747110cc5a67c8a1dea0edf8",
    "sft_lora": "ac992d877283e971854b118785035ce2",
    "sft_packed_full": "d3048a5477d2ca5bf96758ab6f3d9fbd",
    "sft_packed_lora": "c5ba3872e0ad6e6bbc5dc2e8493ee226",
    "sft_qlora": "4502161bf9675e5e62af186ad81a9e96",
}
"""Action type -> digest of its first action on these objects."""


def action_type(file: Path) -> ActionType:
    settings = yaml.safe_load(file.read_text(encoding="utf-8"))
    slots = {name: SlotConfig(**slot) for name, slot in settings.pop("slots").items()}
    return build_action_type(file.stem, ActionConfig(slots=slots, **settings))


def first_action(kind: ActionType) -> str:
    models = [model(0), *(model(number, depth=1) for number in (1, 2, 3))]
    data = [Dataset(name, name, "", f"{name:0<32}", 4, "") for name in ROWS]  # type: ignore[arg-type]
    return next(iter(ActionSpace([kind], models, data, seed=3, data_fraction=0.5).actions(kind))).fingerprint


def task(backend: str, monkeypatch: pytest.MonkeyPatch) -> Task:
    with monkeypatch.context() as patched:
        patched.setattr(importlib.metadata, "version", lambda name: "0.4.13")
        settings = TaskConfig("letters_first", "acc,none", folder="builtin", limits={"search": 8})
        return build_task("first", settings, EvaluationConfig(backend=backend))


def rows_digest(kind: str, folder: Path) -> str:
    path = folder / f"{kind}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS[kind]), encoding="utf-8")
    columns = {"prompt": "question"} if kind == "prompts" else {}
    return load_dataset(kind, DatasetConfig(kind=kind, source=str(path), columns=columns)).fingerprint


@pytest.mark.parametrize("kind", ROWS)
def test_rows_of_every_kind(kind: str, tmp_path: Path) -> None:
    assert rows_digest(kind, tmp_path) == DATA[kind]


def test_rows_that_an_action_made() -> None:
    about = Gathered("sft", [{"prompt": "a", "completion": "b"}], "said").about()
    assert about["fingerprint"] == hashlib.sha256(b'{"completion": "b", "prompt": "a"}\n').hexdigest()[:32]


@pytest.mark.parametrize("backend", TASKS)
def test_tasks_of_every_backend(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert task(backend, monkeypatch).fingerprint == TASKS[backend]


@pytest.mark.parametrize("file", sorted(CONF.glob("*.yaml")), ids=lambda file: file.stem)
def test_actions_of_every_type(file: Path) -> None:
    assert first_action(action_type(file)) == ACTIONS[file.stem]
