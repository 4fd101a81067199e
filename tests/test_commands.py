"""The registry of commands: what the first words of a command line mean, and what each exception ends with."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lamdagent.__main__ import EXIT_CODES, _command, _meaningful, _split, main
from lamdagent.commands import COMMANDS, DEFAULT, find
from lamdagent.errors import ConfigError, LamdagentError, NotReplayed, SearchStopped
from tests.searches import ROOT


@pytest.mark.parametrize("name", COMMANDS)
def test_each_line_of_the_registry_is_a_command(name: str) -> None:
    command = find(name)
    assert command.name == name and Path(ROOT, *COMMANDS[name].split(".")).with_suffix(".py").is_file()
    assert command.help.startswith(f"python -m lamdagent {name} ") or name == DEFAULT


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - {DEFAULT}))
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_of_a_command(
    name: str, flag: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["lamdagent", name, "key=value", flag])
    main()
    assert capsys.readouterr().out == find(name).help + "\n"


def test_no_command_loads_anything_heavy_before_it_is_run() -> None:
    code = (
        "import json, sys\n"
        "from lamdagent.commands import COMMANDS, find\n"
        "found = [find(name).name for name in COMMANDS]\n"
        "heavy = ('torch', 'mlflow', 'rich', 'hydra', 'pandas', 'yaml')\n"
        "print(json.dumps([name for name in heavy if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert json.loads(done.stdout) == [], done.stderr


LINES = {
    "a search": (["+experiment=smoke"], "search", None, [], ["+experiment=smoke"]),
    "a search, said": (["search", "+experiment=smoke"], "search", None, [], ["+experiment=smoke"]),
    "nothing": ([], "search", None, [], []),
    "flag of Hydra": (["--help"], "search", None, [], ["--help"]),
    "flag of ours": (["history", "--json", "a=1"], "history", None, ["--json"], ["a=1"]),
    "flag of another": (["prune", "--json"], "prune", None, [], ["--json"]),
    "run id": (["replay", "abc123", "a=1"], "replay", "abc123", [], ["a=1"]),
    "no run id": (["replay", "a=1"], "replay", None, [], ["a=1"]),
    "two run ids": (["rebuild", "abc", "def"], "rebuild", "abc", [], ["def"]),
    "shorthands": (["transfer", "abc", "top=2", "spread=1", "search.top=1"], "transfer", "abc", [], None),
    "experiment, not a command": (["smoke"], "search", None, [], ["smoke"]),
}


@pytest.mark.parametrize(("words", "name", "run_id", "flags", "rest"), LINES.values(), ids=LINES)
def test_words_become_a_request(
    words: list[str], name: str, run_id: str | None, flags: list[str], rest: list[str] | None
) -> None:
    found, left = _command(words)
    expected = ["transfer.top=2", "transfer.spread=1", "search.top=1"] if rest is None else rest
    assert found == name and _split(find(name), left) == (run_id, frozenset(flags), expected)


ENDS: dict[str, tuple[BaseException, int, str]] = {
    "user": (ConfigError(["one"]), 2, "1 fault in the configuration"),
    "stopped": (SearchStopped("the disk is full"), 75, "the disk is full"),
    "replay": (NotReplayed("a step failed"), 1, "a step failed"),
    "interrupt": (KeyboardInterrupt("why"), 130, "the same command goes on"),
    "ours": (LamdagentError("odd"), 70, "Traceback"),
    "bug": (ValueError("odd"), 70, "Traceback"),
}


@pytest.mark.parametrize(("raised", "code", "said"), ENDS.values(), ids=ENDS)
def test_what_is_raised_ends_with_a_meaning(
    raised: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def act() -> None:
        raise raised

    with pytest.raises(SystemExit) as ended:
        _meaningful(act)
    told = capsys.readouterr().err
    assert ended.value.code == code and said in told
    assert ("Traceback" in told) == (code == 70) and len(set(EXIT_CODES.values())) == 4
