"""What leaves the room of the store: nobody reaches through it, and what it keeps on disk stays readable."""

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamdagent.text import hide_logins, hide_passwords, without_login
from lamdagent.tracking.delivery.outbox import Outbox
from lamdagent.tracking.lineage import ModelEntry
from lamdagent.tracking.patch import RunCreation, RunPatch, load
from tests.searches import ROOT

INSIDE = {"client", "connection", "cache", "queue", "orphans"}
"""Attributes of `RunStore` that are for `tracking` alone."""


def reached_through(path: Path) -> Iterator[str]:
    """Uses of the store's insides in a file, such as `store.client`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and node.attr in INSIDE:
            owner = node.value
            name = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
            if name.strip("_") == "store":
                yield f"{path.relative_to(ROOT)}:{node.lineno} {name}.{node.attr}"


def test_nobody_outside_reaches_through_the_store() -> None:
    package = ROOT / "lamdagent"
    outside = [path for path in package.rglob("*.py") if not path.is_relative_to(package / "tracking")]
    assert outside and not [use for path in outside for use in reached_through(path)]
    assert list(reached_through(package / "tracking" / "reading.py")), "the search itself finds such uses"


OLD = {
    "run_id": "pending" + "0" * 25,
    "at_ms": 1700000000000,
    "new": {
        "name": "a run",
        "params": {"lr": "0.1"},
        "parents": ["pending" + "1" * 25],
        "text": "text",
        "leaderboard": ["bfcl"],
    },
    "tags": {"lamdagent.kind": "action"},
    "metrics": {"score": 0.5},
    "step": 2,
    "curves": [["loss", 1.0, 3, 1000]],
    "texts": {"a.txt": "text"},
    "folders": {"samples": "/s"},
    "weights": "/w",
    "model": {"name": "m", "weights": "runs:/x/model", "params": {"lr": 0.001}, "tags": {"t": "v"}},
    "traces": ["tr-1"],
    "status": "FINISHED",
}
"""A file of a waiting outbox, as every version has written it."""


def test_a_waiting_outbox_is_read_and_written_as_ever() -> None:
    patch = load(json.dumps(OLD))
    assert patch == RunPatch(
        OLD["run_id"],
        1700000000000,
        RunCreation("a run", {"lr": "0.1"}, ["pending" + "1" * 25], "text", ["bfcl"]),
        {"lamdagent.kind": "action"},
        {"score": 0.5},
        2,
        [("loss", 1.0, 3, 1000)],
        {"a.txt": "text"},
        {"samples": "/s"},
        "/w",
        ModelEntry("m", "runs:/x/model", {"lr": 0.001}, {"t": "v"}),
        ["tr-1"],
        "FINISHED",
    )
    assert patch.dump() == json.dumps(OLD)


@pytest.mark.parametrize(
    ("uri", "experiment", "name"),
    [
        ("postgresql://me:secret@host/db", "an experiment", "an-experiment-3109a43e3e2c"),
        ("sqlite:////a/b.db", "x y/z", "x-y-z-fe082af88a67"),
    ],
)
def test_an_outbox_is_where_it_always_was(uri: str, experiment: str, name: str) -> None:
    assert Outbox(uri, experiment).store.name == name


def test_no_login_is_shown_stored_or_published() -> None:
    text = "cannot reach postgresql://me:secret@host/db or http://token@host:5000/x, see http://host:80/y"
    assert hide_passwords(text) == text.replace("secret", "***")
    assert hide_logins(text) == text.replace("me:secret", "***").replace("token", "***")
    assert without_login("https://me:se@cret@host/prefix") == "https://host/prefix"
