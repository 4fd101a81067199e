#!/usr/bin/env python
"""Merges against mergekit's own command on the same YAML: seconds and peak memory, tensors compared bit by bit.

    .venv/bin/python scripts/bench/bench_merging.py                       pico models: a quick look
    .venv/bin/python scripts/bench/bench_merging.py --model smollm2       135M parameters in bf16

`worker`: an action as a search does it (merge, checksum, the model loaded for its evaluation) in a worker that has done
one merge before, against `mergekit-yaml` from start to end. `fresh`: the same action in a process of its own, imports
included; peak memory is that of these two processes. Inputs are the base and two copies with noise on their weights.
Ends with exit code 1 unless all tensors are equal. The last line is one JSON object with the figures.
"""

import dataclasses
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from in_turn import (
    PLAIN_MERGE,
    Ratio,
    Row,
    Spent,
    Worker,
    base_of,
    in_turn,
    make,
    parser,
    planned,
    run,
    same_weights,
    show,
)

from lamdagent.actions.merge_methods import METHODS
from lamdagent.actions.merging import OF_MERGE, Merging, merge, stored_dtype
from lamdagent.export.folder import RecordingContext

FUNCTION = "lamdagent.actions.merging:merge"
FRESH = """
import json, pathlib, sys
from lamdagent.worker.make import make
function, values, output = sys.argv[1:]
pathlib.Path(output).mkdir()
make(lambda progress: None, run_id="fresh", function=function, inputs=json.loads(values), seed=0, data_fraction=1.0,
     tasks=[], batch_size=1, output=output)
"""
NOISY = """
import sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
base, folder, seed = sys.argv[1:]
torch.manual_seed(int(seed))
model = AutoModelForCausalLM.from_pretrained(base, dtype="auto")
with torch.no_grad():
    for weight in model.parameters():
        weight.add_(torch.randn_like(weight) * 0.01 * weight.float().std())
model.save_pretrained(folder)
AutoTokenizer.from_pretrained(base).save_pretrained(folder)
"""


@dataclasses.dataclass(frozen=True)
class Merge:
    """One merge, done in several ways."""

    method: str
    base: str
    models: Sequence[str]
    work: Path
    worker: Worker

    @property
    def values(self) -> dict[str, Any]:
        """The keyword arguments of the action's function."""
        base = {"base": self.base} if METHODS[self.method].with_base(self.base) else {}
        return {"method": self.method, "models": list(self.models), **base}

    def plain(self, number: int) -> Spent:
        """The command of mergekit."""
        noted: Any = merge(RecordingContext(Path()), **self.values)[0]
        assert isinstance(noted, Merging)
        file = self.work / f"{self.method}.yaml"
        file.write_text(yaml.safe_dump(noted.configuration(stored_dtype(noted.folders[0]))))
        return run([*PLAIN_MERGE, str(file), str(self.folder("plain", number)), "--random-seed", "0"], self.work)

    def fresh(self, number: int) -> Spent:
        """The action in a process of its own."""
        target = self.folder("fresh", number).parent
        return run([sys.executable, "-c", FRESH, FUNCTION, json.dumps(self.values), str(target)], self.work)

    def warm(self, number: int) -> Spent:
        """The action in the worker; its memory is not looked at."""
        started = time.monotonic()
        make(self.worker, FUNCTION, self.values, self.folder("warm", number).parent)
        return Spent(time.monotonic() - started, 0.0)

    def folder(self, way: str, number: int) -> Path:
        """Where the merged model ends up."""
        return self.work / f"{self.method}-{way}-{number}" / "model"


def main() -> None:
    """Measure and print."""
    options = parser(__doc__)
    options.add_argument("--methods", nargs="+", choices=OF_MERGE, default=["linear", "ties", "slerp"])
    chosen = options.parse_args()
    rows: list[Row] = []
    figures: dict[str, Any] = {"model": chosen.model, "pairs": chosen.pairs, "equal": True, "methods": {}}
    base = base_of(planned(chosen.model, *chosen.set))
    with tempfile.TemporaryDirectory(prefix="bench-merging-") as folder, closing(Worker()) as worker:
        work = Path(folder)
        models = [str(work / f"model-{seed}") for seed in (1, 2)]
        for seed, model in enumerate(models, 1):
            run([sys.executable, "-c", NOISY, base, model, str(seed)], work)
        for method in chosen.methods:
            one = Merge(method, base, models, work, worker)
            one.warm(-1)  # its imports are a search's, not a merge's
            done = in_turn(chosen.pairs, {"plain": one.plain, "fresh": one.fresh, "warm": one.warm})
            found = [one.folder(way, number) for way in done for number in range(chosen.pairs)]
            figures["equal"] &= all(map(partial(same_weights, found[0]), found[1:]))
            rows += _rows(method, done)
            figures["methods"][method] = {way: _medians(spent) for way, spent in done.items()}
    print("the same tensors, bit by bit:", figures["equal"])
    every = {name: [row.ratio for row in rows if row.key.startswith(name)] for name in ("worker", "fresh", "memory")}
    figures |= {f"ratio_{name}": round(max(ratio.median for ratio in ratios), 4) for name, ratios in every.items()}
    show(f"{chosen.model}: merges / mergekit-yaml", rows, figures)
    if not figures["equal"]:
        raise SystemExit("the tensors differ")


def _rows(method: str, done: dict[str, list[Spent]]) -> list[Row]:
    seconds = {way: [one.seconds for one in spent] for way, spent in done.items()}
    memory = {way: [one.megabytes for one in spent] for way, spent in done.items()}
    warm, fresh = (Ratio.of(seconds[way], seconds["plain"]) for way in ("warm", "fresh"))
    return [
        Row(f"worker_{method}", f"{method}: seconds, in a worker", warm, "<= 1.0"),
        Row(f"fresh_{method}", f"{method}: seconds, new process", fresh, ""),
        Row(f"memory_{method}", f"{method}: peak memory", Ratio.of(memory["fresh"], memory["plain"]), "<= 1.0"),
    ]


def _medians(spent: Sequence[Spent]) -> dict[str, float]:
    return {
        "seconds": round(statistics.median(one.seconds for one in spent), 2),
        "megabytes": round(statistics.median(one.megabytes for one in spent)),
    }


if __name__ == "__main__":
    main()
