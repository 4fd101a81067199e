"""From a dataset's settings to checked rows in canonical columns, in a file whose name is its content's digest."""

import csv
import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lamdagent.errors import UserError
from lamdagent.files import cache_folder, write_atomic
from lamdagent.functions import load_function
from lamdagent.objects.dataset import Dataset, is_made
from lamdagent.objects.kinds import DatasetKind, Row, dataset_kind

if TYPE_CHECKING:  # it brings OmegaConf, and every worker imports this module
    from lamdagent.config import DatasetConfig

BAD_ROWS = ("refuse", "drop")
NAMED = 5
"""Bad rows that a message names; it counts them all."""
READERS = (".jsonl", ".json", ".csv", ".parquet")


def load_dataset(name: str, settings: "DatasetConfig") -> Dataset:
    """Read, map and check; write the rows once into the cache.

    Raises:
        UserError: naming the dataset, when it cannot be read, lacks a column or is empty; naming the rows, when some
            teach nothing and are not to be dropped.
    """
    if is_made(name):
        raise UserError(
            f"datasets.{name}: names such as data-1a2b3c4d are those of data that actions make; take another"
        )
    kind = dataset_kind(settings.kind, f"datasets.{name}.kind")
    if settings.bad_rows not in BAD_ROWS:
        raise UserError(f"datasets.{name}.bad_rows is {settings.bad_rows!r}; allowed: {', '.join(BAD_ROWS)}")
    if (settings.source is None) == (settings.function is None):
        raise UserError(f"datasets.{name} needs exactly one of `source` (a file or hub id) and `function`")
    rows = _call(name, settings) if settings.function else _read(name, settings)
    rows = rows[: settings.rows] if settings.rows is not None else rows
    mapped = [_mapped(name, i, row, settings, kind) for i, row in enumerate(rows)]
    bad = {i: why for i, row in enumerate(mapped) if (why := _useless(row, settings, kind))}
    if bad and settings.bad_rows == "refuse":
        wanted = f"mend them, or leave them out with datasets.{name}.bad_rows=drop"
        raise UserError(f"datasets.{name}: {len(bad)} of {len(mapped)} rows teach nothing: {_told(bad)}; {wanted}")
    dropped = f"{len(bad)} of {len(mapped)} rows were left out: {_told(bad)}" if bad else ""
    mapped = [row for i, row in enumerate(mapped) if i not in bad]
    if not mapped:
        left = f" left ({dropped})" if bad else ""
        raise UserError(f"datasets.{name} has no rows{left}; check its source, split and filter")
    text = as_text(mapped)
    fingerprint = fingerprint_of_rows(text)
    return Dataset(
        name=name,
        kind=settings.kind,
        description=settings.description,
        fingerprint=fingerprint,
        rows=len(mapped),
        path=str(store_rows(text)),
        license=settings.license,
        columns=columns_of(mapped),
        dropped=dropped,
    )


def _call(name: str, settings: "DatasetConfig") -> Sequence[Row]:
    target = load_function(settings.function or "", f"datasets.{name}.function")
    try:
        inspect.signature(target).bind(**settings.arguments)
    except TypeError as error:
        raise UserError(f"datasets.{name}.arguments do not fit {settings.function}: {error}") from None
    return list(target(**settings.arguments))


def _read(name: str, settings: "DatasetConfig") -> Sequence[Row]:
    source = settings.source or ""
    path = Path(source).expanduser()
    if path.suffix in READERS or path.exists():
        if not path.is_file():
            raise UserError(f"datasets.{name}.source: there is no file {source!r} (looked in {Path.cwd()})")
        try:
            return _parsed(path)
        except (ValueError, OSError) as error:
            raise UserError(f"datasets.{name}.source: {source} cannot be read: {error}") from None
    return _from_hub(name, source, settings)


def _parsed(path: Path) -> Sequence[Row]:
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if path.suffix == ".json":
        rows = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(rows, list):
            raise ValueError("wanted a list of rows at the top")
        return rows
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    if path.suffix == ".parquet":
        from pyarrow import parquet

        return list(parquet.read_table(path).to_pylist())
    raise ValueError(f"unknown ending; allowed: {', '.join(READERS)}")


def _from_hub(name: str, source: str, settings: "DatasetConfig") -> Sequence[Row]:
    from datasets import load_dataset as load

    try:
        return list(load(source, settings.subset, split=settings.split))
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        hint = f"neither a file ending in {', '.join(READERS)} nor a hub dataset that can be reached"
        raise UserError(f"datasets.{name}.source: {source!r} is {hint} ({reason})") from None


def _mapped(name: str, index: int, row: Mapping[str, Any], settings: "DatasetConfig", kind: DatasetKind) -> Row:
    """Canonical columns first, further columns kept under their names."""
    result = {}
    for column in kind.columns:
        given = settings.columns.get(column, column)
        if given not in row:
            have = ", ".join(sorted(map(str, row)))
            raise UserError(
                f"datasets.{name}: row {index} has no column {given!r}, needed as `{column}` of kind {settings.kind}; "
                f"it has: {have}. Name the right one under datasets.{name}.columns.{column}"
            )
        result[column] = row[given]
    used = {settings.columns.get(c, c) for c in result}
    return result | {key: value for key, value in row.items() if key not in used and key not in result}


def _useless(row: Row, settings: "DatasetConfig", kind: DatasetKind) -> str:
    """Why a mapped row teaches nothing; empty when it does."""
    column = kind.empty_text(row)
    return kind.fault(row) if column is None else f"empty {settings.columns.get(column, column)}"


def _told(bad: Mapping[int, str]) -> str:
    named = ", ".join(f"row {number} ({why})" for number, why in list(bad.items())[:NAMED])
    return named + (f" and {len(bad) - NAMED} more" if len(bad) > NAMED else "")


def as_text(rows: Sequence[Row]) -> str:
    """Rows as JSONL: equal rows give equal text."""
    return "".join(json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n" for row in rows)


def fingerprint_of_rows(text: str) -> str:
    """`Dataset.fingerprint` of what `as_text` gave."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def columns_of(rows: Sequence[Row]) -> tuple[str, ...]:
    """The columns that each of the rows, at least one, has."""
    return tuple(sorted(set.intersection(*(set(row) for row in rows))))


def cached_path(fingerprint: str) -> Path:
    """Cache file on this machine for the rows of that fingerprint; it need not be there."""
    return cache_folder() / "datasets" / f"{fingerprint}.jsonl"


def store_rows(text: str) -> Path:
    """The file, in the user's cache, that has exactly these rows; written once."""
    path = cached_path(fingerprint_of_rows(text))
    if not path.exists():
        write_atomic(path, text)
    return path
