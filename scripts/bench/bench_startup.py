#!/usr/bin/env python
"""How long one waits: `--help` against a bare Hydra app with the same groups, and a search's first line.

    .venv/bin/python scripts/bench/bench_startup.py

`ratio_help`: `python -m lamdagent --help` against a Hydra program that does nothing, on a copy of the same groups.
`ratio_first_line`: from the command of a search to its first line on the screen, against a script that has imported TRL
and lm-eval and done nothing with them. `heavy`: which of the heavy libraries the driver has imported when a plan is
printed (`dry_run=true`); each belongs in the worker. The last line is one JSON object with the figures.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from in_turn import EXPERIMENTS, ROOT, Ratio, Row, in_turn, parser, run, show

HEAVY = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "mergekit", "lm_eval", "litellm", "pandas")
BARE = """
import hydra

@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config):
    pass

main()
"""
LIBRARIES = "import lm_eval.models.huggingface; from trl import DPOTrainer, SFTTrainer; print('ready')"
LOADED = f"""
import json, sys
from lamdagent.__main__ import main
try:
    main()
except SystemExit:
    pass
print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))
"""


def first_line(command: list[str], folder: Path, number: int) -> float:
    """Seconds from the start of a command to its first line; it is ended there."""
    started = time.monotonic()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        while not process.stdout.readline().strip():
            if process.poll() is not None:
                raise SystemExit(f"{' '.join(command)} said nothing")
        seconds = time.monotonic() - started
        process.kill()
    return seconds


def whole(command: list[str], folder: Path, number: int) -> float:
    """Seconds of a command."""
    return run(command, folder).seconds


def main() -> None:
    """Measure and print."""
    chosen = parser(__doc__).parse_args()
    words = [f"+experiment={EXPERIMENTS[chosen.model]}", *chosen.set]
    search = [sys.executable, "-m", "lamdagent", *words]
    with tempfile.TemporaryDirectory(prefix="bench-startup-") as name:
        folder = Path(name)
        shutil.copytree(ROOT / "conf", folder / "conf")
        (folder / "bare.py").write_text(BARE)
        commands = {
            "ours": [sys.executable, "-m", "lamdagent", "--help"],
            "bare": [sys.executable, "bare.py", "--help"],
        }
        helps = in_turn(chosen.pairs, {way: partial(whole, command, folder) for way, command in commands.items()})
        commands = {"ours": search, "libraries": [sys.executable, "-c", LIBRARIES]}
        lines = in_turn(chosen.pairs, {way: partial(first_line, command, folder) for way, command in commands.items()})
        run([sys.executable, "-c", LOADED, *words, "dry_run=true"], folder)
        heavy = json.loads((folder / "log").read_text().splitlines()[-1])
    rows = [
        Row("ratio_help", "--help / a bare Hydra app's", Ratio.of(helps["ours"], helps["bare"]), ""),
        Row("ratio_first_line", "first line / libraries imported", Ratio.of(lines["ours"], lines["libraries"]), ""),
    ]
    seconds = {
        f"{of}_{way}": [round(s, 3) for s in each]
        for of, found in (("help", helps), ("line", lines))
        for way, each in found.items()
    }
    print(f"heavy libraries in the driver: {', '.join(heavy) or 'none'}")
    show("start", rows, {"model": chosen.model, "pairs": chosen.pairs, "seconds": seconds, "heavy": heavy})


if __name__ == "__main__":
    main()
