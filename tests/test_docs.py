"""README.md and docs/ are true: links lead somewhere, commands compose, examples are accepted, tables are complete."""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from lamdagent.commands import COMMANDS
from lamdagent.config import read
from tests.searches import streams

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("[!_]*.md"))]  # _*.md: drafts
TEXTS = {page: page.read_text(encoding="utf-8") for page in PAGES}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", flags=re.M | re.S)
FENCES = {page: FENCE.findall(text) for page, text in TEXTS.items()}
COMMAND = re.compile(r"(?:scripts/run|python -m lamdagent)((?: [^`\n]*)?)")
PLACEHOLDERS = re.compile(r"\.\.\.|\bARGS\b|=option\b|\bkey=value\b|\[command\]|--help")
FILE = re.compile(r"`((?:\w[\w.-]*/)+[\w.-]*\w\.(?:py|yaml|md|toml|txt|sh|png|svg))`")


def named(page: Path) -> str:
    return page.name


def commands(page: Path) -> set[str]:
    """The arguments of every command for this package, in code spans and shell blocks, prose left out."""
    shells = [text.replace("\\\n", "") for language, text in FENCES[page] if language in ("bash", "sh", "console")]
    spans = re.findall(r"`([^`\n]+)`", FENCE.sub("", TEXTS[page]))
    found = [match for text in [*shells, *spans] for match in COMMAND.findall(text)]
    return {shlex.join(shlex.split(match, comments=True)) for match in found if not PLACEHOLDERS.search(match)}


def links(page: Path) -> list[str]:
    return sorted(set(re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", TEXTS[page]))))


def anchors(page: Path) -> set[str]:
    """The anchors that a renderer makes of the headings."""
    heads = re.findall(r"^#+ (.+)$", FENCE.sub("", TEXTS[page]), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


def examples() -> dict[str, str]:
    """The pages' example files by the path in their first comments, exactly as a user would paste them."""
    found: dict[str, str] = {}
    for language, text in [fence for fences in FENCES.values() for fence in fences]:
        head = re.match(r"(?:# @package .*\n)?# ((?:[\w.-]+/)*[\w-]+\.(?:py|yaml))\b", text)
        if head and language in ("python", "yaml"):
            assert found.setdefault(head[1], text) == text, f"two examples share the path {head[1]}"
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a user who has typed in all examples, and has the data that they name."""
    folder = tmp_path_factory.mktemp("user")
    for name, text in examples().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "data").mkdir()
    rows = {
        "support": [{"prompt": f"Where is ticket {n}?", "completion": f"In drawer {n}."} for n in range(40)],
        "pairs": [{"prompt": f"Where is parcel {n}?", "better": "On a shelf.", "worse": "No idea."} for n in range(30)],
    }
    for name, lines in rows.items():
        (folder / f"data/{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def planned(arguments: list[str], folder: Path) -> str:
    """What a dry run says, in a process of its own: examples may not stay imported here."""
    environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder), environment.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "lamdagent", *arguments, "dry_run=true"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class TestReadme:
    """Short enough to be read."""

    def test_it_is_short(self) -> None:
        lines = TEXTS[README].splitlines()
        assert len(lines) <= 200
        assert [line for line in lines if len(line) > 120] == []

    def test_the_two_commands_are_there(self) -> None:
        assert "+experiment=tooluse" in commands(README)
        assert re.search(r"^scripts/test$", TEXTS[README], flags=re.M)

    def test_its_experiment_is_planned(self, folder: Path) -> None:
        """With a model that is made on the spot in place of the fetched one; the rest as it stands there."""
        (mine,) = [text for _, text in FENCES[README] if "/experiment/mine.yaml" in text]
        assert len(yaml.safe_load(mine)["datasets"]) == 2
        model = "models.smollm2_135m.source=function:lamdagent.pico:build"
        text = planned(["--config-dir=my_conf", "+experiment=mine", model], folder)
        assert re.search(r"support\W+sft\W+40\b", text)
        assert re.search(r"pairs\W+preference\W+30\b", text)


@pytest.mark.parametrize("page", PAGES, ids=named)
class TestPage:
    """Whatever a page names is there."""

    def test_relative_links_lead_somewhere(self, page: Path) -> None:
        for link in [link for link in links(page) if "://" not in link]:
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link

    def test_named_files_exist(self, page: Path) -> None:
        given = set(FILE.findall(TEXTS[page])) - set(examples())
        assert [path for path in sorted(given) if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("arguments", sorted({command for page in PAGES for command in commands(page)}))
def test_commands_compose(arguments: str, folder: Path) -> None:
    words = shlex.split(arguments)
    if "--multirun" in words:  # the first search of a sweep
        words = [re.sub(r"^([^=\[]+=[^,\[]+),.*", r"\1", word) for word in words if word != "--multirun"]
    code, out, err = streams(folder, *words, "--cfg", "job")
    assert code == 0, err
    read(OmegaConf.create(out))  # no unknown key, no wrong type


def test_example_actions_are_accepted(folder: Path) -> None:
    """Checked as for a search: function, slots and hyperparameters fit together."""
    actions = [Path(name).stem for name in examples() if name.startswith("my_conf/action/")]
    assert actions
    text = planned(["--config-dir=my_conf", "+experiment=smoke", f"+action=[{','.join(actions)}]"], folder)
    assert [name for name in actions if f"action type {name}" not in text] == []


class TestNothingIsLeftOut:
    """Each option and command is named on the page that a reader would look at."""

    @pytest.mark.parametrize(
        ("group", "page"),
        [
            ("action", "actions"),
            ("agent", "agent-and-policies"),
            ("execution", "configuration"),
            ("experiment", "configuration"),
            ("source", "memory-and-other-runs"),
        ],
    )
    def test_options(self, group: str, page: str) -> None:
        text = TEXTS[ROOT / f"docs/{page}.md"]
        options = [file.stem for file in (ROOT / "conf" / group).glob("*.yaml")]
        assert options
        assert [option for option in options if not re.search(rf"`[^`]*\b{option}\b[^`]*`", text)] == []

    def test_groups(self) -> None:
        groups = {folder.name for folder in (ROOT / "conf").iterdir() if folder.is_dir()}
        rows = set(re.findall(r"^\| `(\w+)` \|", TEXTS[ROOT / "docs/configuration.md"], flags=re.M))
        assert groups == rows

    def test_commands(self) -> None:
        rows = set(re.findall(r"^\| `(\w+)` \|", TEXTS[ROOT / "docs/command-line.md"], flags=re.M))
        assert set(COMMANDS) == rows

    def test_pages(self) -> None:
        """The first page leads to all others."""
        index = ROOT / "docs/index.md"
        assert {page.name for page in PAGES if page not in (README, index)} <= set(links(index))


class TestTree:
    """The printed tree against the real one."""

    def printed(self) -> dict[str, str]:
        """Path -> comment of every line of the tree; a line may name several files."""
        architecture = FENCES[ROOT / "docs/architecture.md"]
        block = next(text for _, text in architecture if text.startswith("lamdagent/\n"))
        found: dict[str, str] = {}
        parent = ""
        for line in block.splitlines():
            names, _, comment = line.strip().partition("  ")
            if not line.startswith(" "):
                parent = names.split()[0]
            for name in names.split():
                found[name if not line.startswith(" ") else parent + name] = comment.strip()
        return found

    def test_everything_printed_exists(self) -> None:
        assert [path for path in self.printed() if not (ROOT / path).exists()] == []

    def test_everything_printed_has_a_comment(self) -> None:
        assert [path for path, comment in self.printed().items() if not comment and path != "lamdagent/"] == []

    def test_everything_is_printed(self) -> None:
        rooms = {f"lamdagent/{file.parent.name}/" for file in (ROOT / "lamdagent").glob("*/__init__.py")}
        files = {f"lamdagent/{file.name}" for file in (ROOT / "lamdagent").glob("*.py") if file.name != "__init__.py"}
        assert rooms | files == {path for path in self.printed() if path.startswith("lamdagent/")} - {"lamdagent/"}

    def test_it_is_in_the_order_of_the_contract(self) -> None:
        """Rooms as import-linter's layers have them, top to bottom."""
        settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
        (contract,) = [one for one in settings["contracts"] if one["type"] == "layers"]
        floor = {room: n for n, layer in enumerate(contract["layers"]) for room in re.findall(r"\w+", layer)}
        rooms = [Path(path).stem for path in self.printed() if path.startswith("lamdagent/") and path != "lamdagent/"]
        floors = [floor[room] for room in rooms if room != "__main__"]
        assert floors == sorted(floors)

    def test_the_turn_names_files_and_outcomes_that_exist(self) -> None:
        """Its comments: `# decide.py, pure: Start, Reuse, ...`."""
        block = next(text for _, text in FENCES[ROOT / "docs/architecture.md"] if text.startswith("for phase in"))
        comments = re.findall(r"# (\w+\.py)(?:, pure)?(?:: (.*))?", block)
        assert len(comments) >= 5
        for file, told in comments:
            code = (ROOT / "lamdagent/loop" / file).read_text()
            names = re.findall(r"\b[A-Z][a-z]+\b", told)
            assert [name for name in names if not re.search(rf"^class {name}\b", code, flags=re.M)] == [], file
