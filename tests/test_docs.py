"""What README.md says is so: links lead somewhere, commands compose, examples are accepted, the tree is the tree."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from lamdagent.config import read

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCES = re.findall(r"^```(\w*)\n(.*?)^```", README, flags=re.M | re.S)
COMMAND = re.compile(r"(?:scripts/run|python -m lamdagent)((?: [^`\n]*)?)")
LINKS = sorted(set(re.findall(r"\]\(([^)\s]+)\)", README)))
PATH = re.compile(r"`((?:\w[\w.-]*/)+[\w.-]*\w\.(?:py|yaml|md|toml|txt|sh|png|svg))`")


def commands() -> list[str]:
    """The arguments of every command for this package, in code spans and shell blocks, comments and prose left out."""
    shells = [text for language, text in FENCES if language in ("bash", "sh", "shell", "console")]
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", README, flags=re.M | re.S))
    found = [match for text in [*shells, *spans] for match in COMMAND.findall(text)]
    return sorted({match.strip() for match in found if "..." not in match and "ARGS" not in match})


def anchors() -> set[str]:
    """The anchors that a renderer makes of the headings."""
    heads = re.findall(r"^#+ (.+)$", README, flags=re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("link", [link for link in LINKS if "://" not in link])
def test_relative_links_lead_somewhere(link: str) -> None:
    path, _, anchor = link.partition("#")
    assert not path or (ROOT / path).exists()
    assert path or anchor in anchors()


@pytest.mark.parametrize("path", sorted(set(PATH.findall(README))))
def test_named_files_exist(path: str) -> None:
    assert (ROOT / path).exists() or path in examples()


def examples() -> dict[str, str]:
    """The README's example files by the path in their first comments, exactly as a user would paste them."""
    found = {}
    for language, text in FENCES:
        head = re.match(r"(?:# @package .*\n)?# ((?:[\w.-]+/)*[\w-]+\.(?:py|yaml))\b", text)
        if head and language in ("python", "yaml"):
            found[head[1]] = text
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a user who has typed in all examples of the README."""
    folder = tmp_path_factory.mktemp("user")
    for name, text in examples().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def lamdagent(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"} | {"PYTHONPATH": str(folder)}
    command = [sys.executable, "-m", "lamdagent", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def test_the_two_commands_are_there() -> None:
    assert "+experiment=tooluse" in commands()
    assert re.search(r"^scripts/test$", README, flags=re.M)


@pytest.mark.parametrize("arguments", commands())
def test_commands_compose(arguments: str, folder: Path) -> None:
    words = [word for word in shlex.split(arguments, comments=True) if word not in ("--multirun", "-m")]
    done = lamdagent([*words, "--cfg", "job"], folder)
    assert done.returncode == 0, done.stdout + done.stderr
    if "--help" not in words:
        read(OmegaConf.create(done.stdout))  # no unknown key, no wrong type


def test_example_action_is_accepted(folder: Path) -> None:
    """Checked as for a search: its function, slots and hyperparameters fit together."""
    actions = [Path(name).stem for name in examples() if "/action/" in name]
    assert actions
    top = next(name for name in examples() if "/action/" in name).split("/")[0]
    for action in actions:
        chosen = [f"--config-dir={folder / top}", "+experiment=smoke", f"+action={action}", "dry_run=true"]
        done = lamdagent(chosen, folder)
        assert done.returncode == 0 and f"action type {action}" in done.stdout, done.stdout + done.stderr


class TestTree:
    """The printed tree against the real one."""

    def printed(self) -> dict[str, str]:
        """Path -> comment of every line of the tree; a line may name several files."""
        block = next(text for _, text in FENCES if text.startswith("lamdagent/\n"))
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
        missing = [path for path in self.printed() if not (ROOT / path).exists()]
        assert missing == []

    def test_everything_printed_has_a_comment(self) -> None:
        assert [path for path, comment in self.printed().items() if not comment and path != "lamdagent/"] == []

    def test_every_room_is_printed(self) -> None:
        rooms = {f"lamdagent/{file.parent.name}/" for file in (ROOT / "lamdagent").glob("*/__init__.py")}
        assert rooms - set(self.printed()) == set()
