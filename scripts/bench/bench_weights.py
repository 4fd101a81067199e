"""What sealing, storing and registering a model costs: bytes on disk, seconds, peak memory; local root, and a server.

python scripts/bench/bench_weights.py [--megabytes 300]
"""

import argparse
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
HIDDEN = 1024


def main() -> None:
    """Print a table, and the figures as JSON in the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=300)
    megabytes = parser.parse_args().megabytes
    with tempfile.TemporaryDirectory() as work:
        figures = {"local": measured(Path(work, "local"), megabytes), "server": served(Path(work, "server"), megabytes)}
    keys = ("seal_s", "stored_mb", "store_s", "registered_mb", "register_s", "client_mb", "server_mb")
    print(f"| {megabytes} MB of weights | " + " | ".join(figures))
    for key in keys:
        print(f"| {key} | " + " | ".join(f"{one.get(key, 0):.1f}" for one in figures.values()))
    print(json.dumps({"megabytes": megabytes, **figures}))


def served(folder: Path, megabytes: int) -> dict[str, float]:
    """The same against `mlflow server` with proxied artifacts, one worker."""
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "art")]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, process_group=0)
    try:
        while not alive(f"http://127.0.0.1:{port}/health"):
            time.sleep(0.5)
        return {**measured(folder, megabytes, f"http://127.0.0.1:{port}"), "server_mb": peak_mb(server.pid)}
    finally:
        os.killpg(server.pid, 9)
        server.wait()


def alive(url: str) -> bool:
    """Whether something answers there."""
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def measured(folder: Path, megabytes: int, uri: str = "") -> dict[str, float]:
    """Store and register in a process of its own, so that its peak memory is its own."""
    folder.mkdir(exist_ok=True)
    command = [
        sys.executable,
        __file__,
        "--inside",
        str(folder),
        str(megabytes),
        uri or f"sqlite:///{folder}/mlflow.db",
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "LAMDAGENT_CACHE": str(folder / "cache")}
    done = subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def inside(folder: Path, megabytes: int, uri: str) -> dict[str, float]:
    """Make a model, seal and store it as an action does, register it as a search's end does."""
    from lamdagent.objects.checksum import hash_weights
    from lamdagent.tracking.lineage import ModelEntry
    from lamdagent.tracking.searches import start_search
    from lamdagent.tracking.store import RunStore
    from lamdagent.worker.register import register

    store = RunStore(uri, "bench")
    run = store.open(start_search(store, "s", "s", {}, ""), "action", "model-1", {}, {})
    staging = folder / ("mlruns/staging" if uri.startswith("sqlite") else "staging")
    subprocess.run([sys.executable, "-c", MAKE, str(staging), str(megabytes)], check=True)
    weights_mb = disk_mb(staging)
    empty = disk_mb(folder) - weights_mb
    unsealed = time.monotonic()
    hash_weights(staging)
    start = time.monotonic()
    store.finish(run, metrics={}, staging=staging, model=ModelEntry("model-1", f"runs:/{run}/model"))
    stored = time.monotonic()
    local = store.weights(f"runs:/{run}/model")  # of a server: fetched into the cache, which is not counted as stored
    cached = disk_mb(folder / "cache") if (folder / "cache").exists() else 0.0
    before = disk_mb(folder)
    fetched = time.monotonic()
    register(lambda *_: None, uri=uri, run_id=run, folder=str(local), name="bench", card="---\nlicense: mit\n---\n# x")
    registered = time.monotonic()
    return {
        "weights_mb": weights_mb,
        "seal_s": start - unsealed,
        "stored_mb": before - cached - empty,
        "store_s": stored - start,
        "fetch_s": fetched - stored,
        "registered_mb": disk_mb(folder) - before,
        "register_s": registered - fetched,
        "client_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


MAKE = f"""
import sys, torch, transformers
from tokenizers import Tokenizer, models
folder, megabytes = sys.argv[1], int(sys.argv[2])
layers = max(1, round(megabytes * 1e6 / 2 / (16 * {HIDDEN} ** 2)))
config = transformers.LlamaConfig(vocab_size=2, hidden_size={HIDDEN}, intermediate_size=4 * {HIDDEN},
                                  num_hidden_layers=layers, num_attention_heads=8)
transformers.LlamaForCausalLM(config).bfloat16().save_pretrained(folder)
words = models.WordLevel({{"<unk>": 0, "a": 1}}, unk_token="<unk>")
transformers.PreTrainedTokenizerFast(tokenizer_object=Tokenizer(words), unk_token="<unk>").save_pretrained(folder)
"""


def disk_mb(folder: Path) -> float:
    """As `du` counts: a hard link once."""
    listed = subprocess.run(["du", "-s", "-B1", str(folder)], capture_output=True, text=True, check=True).stdout
    return int(listed.split()[0]) / 1e6


def peak_mb(group: int) -> float:
    """Largest peak among the processes of the group."""
    peaks = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            values: dict[str, Any] = dict(line.split(":", 1) for line in status.read_text().splitlines())
            if os.getpgid(int(status.parent.name)) == group and "VmHWM" in values:
                peaks.append(int(values["VmHWM"].split()[0]) / 1024)
        except (OSError, ValueError):
            continue
    return max(peaks, default=0.0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        print(json.dumps(inside(Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4])))
    else:
        main()
