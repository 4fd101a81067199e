"""The site of docs/ is built without a warning, and asks nobody for anything."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import lamdagent
from lamdagent import config, errors

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site. Strict: a page outside the index, a broken link or a docstring that cannot be read fails."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_page_is_built(site: Path) -> None:
    pages = {page.stem for page in (ROOT / "docs").glob("[!_]*.md")}
    assert pages <= {page.stem for page in site.glob("*.html")}


def test_nothing_is_fetched_by_a_reader(site: Path) -> None:
    loads = re.compile(r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"?(https?:[^\s\">]+)|<link\b[^>]*>")
    for page in site.glob("*.html"):
        found = [match[0] for match in loads.finditer(page.read_text()) if "http" in match[0]]
        assert found == [], page.name


def test_the_configuration_is_shown_as_it_is(site: Path) -> None:
    text = re.sub(r"<[^>]+>", "", (site / "configuration.html").read_text())
    for line in (ROOT / "conf/config.yaml").read_text().splitlines():
        key = re.match(r"\s*(\w+):", line)
        assert not key or f"{key[1]}:" in text, line


def test_every_name_of_the_package_and_every_section_has_an_entry(site: Path) -> None:
    index = json.loads((site / "search/search_index.json").read_text())
    found = {entry["location"] for entry in index["docs"]}
    public = {name for name in lamdagent.__all__ if name != "__version__" and not hasattr(errors, name)}
    names = {f"api.html#lamdagent.{name}" for name in public}
    sections = {f"keys.html#lamdagent.config.{name}" for name in config.__all__ if name.endswith("Config")}
    assert "api.html#lamdagent.search" in names
    assert names | sections <= found
    assert {"api.html#lamdagent.errors.ConfigError", "api.html#lamdagent.selection.policy.Policy"} <= found
    assert "keys.html#lamdagent.config.BudgetConfig.wall_clock_minutes" in found
