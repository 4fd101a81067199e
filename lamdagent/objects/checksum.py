"""Are a model's files whole, and are they those that were written? Told from the files, without loading a model.

The checksum is of the tensors, not of the files: the same weights cut into other shards have the same one.
"""

import functools
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from lamdagent.errors import ActionFailed

PIECE = 1 << 22
"""Bytes that are read at once."""
GARBLED = (ValueError, KeyError, TypeError, AttributeError)
"""Errors to which a header or an index leads that is JSON but not what it should be."""


@dataclass(frozen=True)
class WeightsHash:
    """Checksum and size of weights, by which they are recognised."""

    sha256: str
    """Hex digest of names, types, shapes and contents of all tensors, in the order of their names."""
    bytes: int
    """Size of all files of the model."""


@dataclass(frozen=True)
class _Tensor:
    name: str
    told: str
    """Name, type and shape as JSON."""
    file: Path
    start: int
    """Byte of the file."""
    length: int


def hash_weights(folder: Path) -> WeightsHash:
    """The hash of the model in `folder`: one reading of all its bytes.

    Raises:
        ActionFailed: kind `bad_model`: its weights are not whole.
    """
    total = hashlib.sha256()
    for tensor in sorted(_tensors(folder), key=lambda t: t.name):
        total.update(tensor.told.encode())
        with tensor.file.open("rb") as file:
            file.seek(tensor.start)
            for piece in _pieces(file, tensor.length):
                total.update(piece)
    return WeightsHash(total.hexdigest(), size_of(folder))


def size_of(folder: Path) -> int:
    """Bytes of all files below `folder`; links count as what they lead to."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def check(folder: Path, sha256: str = "") -> None:
    """Prove that the weights in `folder` are whole and, with `sha256`, that they are the hashed ones.

    The first takes milliseconds. The second reads every byte, once for each state of the files in this process.

    Raises:
        ActionFailed: kind `bad_model`, with what is wrong.
    """
    tensors = _tensors(folder)
    if sha256 and _sealed(folder, _state({tensor.file for tensor in tensors})) != sha256:
        wanted = "they have been changed or damaged since their run wrote them"
        raise ActionFailed(f"The weights in {folder} do not have the checksum of their run: {wanted}.", "bad_model")


@functools.lru_cache(maxsize=256)
def _sealed(folder: Path, state: str) -> str:
    return hash_weights(folder).sha256


def _state(files: set[Path]) -> str:
    return " ".join(f"{file} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in sorted(files))


def _tensors(folder: Path) -> list[_Tensor]:
    """Every tensor of every shard, after a look at the sizes: a file that was cut off is found here."""
    from huggingface_hub import get_local_safetensors_metadata
    from huggingface_hub.errors import NotASafetensorsRepoError, SafetensorsParsingError

    try:
        shards = get_local_safetensors_metadata(folder).files_metadata
        found = []
        for name, shard in shards.items():
            file = folder / name
            with file.open("rb") as stream:
                begin = 8 + int.from_bytes(stream.read(8), "little")
            end = begin + max((info.data_offsets[1] for info in shard.tensors.values()), default=0)
            if file.stat().st_size != end:
                raise ActionFailed(
                    f"The weights in {file} are not whole: {file.stat().st_size} bytes of {end}.", "bad_model"
                )
            for key, info in shard.tensors.items():
                first, last = info.data_offsets
                told = json.dumps([key, info.dtype, list(info.shape)])
                found.append(_Tensor(key, told, file, begin + first, last - first))
    except (NotASafetensorsRepoError, SafetensorsParsingError, OSError, *GARBLED) as error:
        first_line = str(error).strip().partition("\n")[0]
        raise ActionFailed(f"The weights in {folder} cannot be read: {first_line}", "bad_model") from error
    return found


def _pieces(file: BinaryIO, length: int) -> Iterator[bytes]:
    while length > 0:
        piece = file.read(min(PIECE, length))
        if not piece:
            return
        length -= len(piece)
        yield piece
