"""Rows that teach nothing: refused with their numbers, or left out."""

import json
from pathlib import Path

import pytest

from lamdagent.config import DatasetConfig
from lamdagent.errors import UserError
from lamdagent.objects.rows import load_dataset

GOOD = {"prompt": "Say yes.", "chosen": "Yes.", "rejected": "No."}
BAD = [
    {**GOOD, "chosen": " "},
    {**GOOD, "rejected": "Yes."},
    {**GOOD, "prompt": [{"role": "user", "content": ""}]},
    {**GOOD, "rejected": None},
]


def settings(folder: Path, rows: list[dict], **more) -> DatasetConfig:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return DatasetConfig(**{"kind": "preference", "source": str(folder / "rows.jsonl")} | more)


def test_bad_rows_are_refused_with_their_numbers(tmp_path):
    with pytest.raises(UserError) as caught:
        load_dataset("pairs", settings(tmp_path, [GOOD, *BAD, *BAD]))
    said = str(caught.value)
    assert "datasets.pairs: 8 of 9 rows teach nothing: row 1 (empty chosen), row 2 (chosen equals rejected)" in said
    assert "row 3 (empty prompt), row 4 (empty rejected)" in said and "and 3 more" in said
    assert "datasets.pairs.bad_rows=drop" in said


def test_dropping_counts_and_leaves_the_rest_as_it_is(tmp_path):
    clean = load_dataset("pairs", settings(tmp_path, [GOOD, {**GOOD, "prompt": "Again."}]))
    dropped = load_dataset(
        "pairs", settings(tmp_path, [BAD[0], GOOD, BAD[1], {**GOOD, "prompt": "Again."}], bad_rows="drop")
    )
    assert (dropped.rows, dropped.fingerprint, dropped.path) == (2, clean.fingerprint, clean.path)
    assert dropped.dropped == "2 of 4 rows were left out: row 0 (empty chosen), row 2 (chosen equals rejected)"
    untouched = load_dataset("pairs", settings(tmp_path, [GOOD, {**GOOD, "prompt": "Again."}], bad_rows="drop"))
    assert untouched == clean and not untouched.dropped


@pytest.mark.parametrize(
    ("rows", "more", "words"),
    [
        (BAD, {"bad_rows": "drop"}, "has no rows left (4 of 4 rows were left out"),
        ([GOOD], {"bad_rows": "keep"}, "datasets.pairs.bad_rows is 'keep'; allowed: refuse, drop"),
        ([{"prompt": "a"}], {"bad_rows": "drop"}, "row 0 has no column 'chosen'"),
    ],
)
def test_what_dropping_cannot_mend(rows, more, words, tmp_path):
    with pytest.raises(UserError) as caught:
        load_dataset("pairs", settings(tmp_path, rows, **more))
    assert words in str(caught.value)
