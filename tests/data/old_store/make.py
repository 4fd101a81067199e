"""Makes store.tar.xz and expected.json again. It has to be run with the code of version 6911219, in its environment.

In a worktree of that version, with its tests on the path and this folder from a newer one:

    git worktree add ../old 6911219 && cd ../old && scripts/setup
    PYTHONPATH=$PWD .venv/bin/python ../newer/tests/data/old_store/make.py WORK_FOLDER
"""

import json
import lzma
import os
import platform
import signal
import sqlite3
import subprocess
import sys
import tarfile
import time
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
CONF = ("--config-dir", str(HERE / "conf"))
VERSION = "6911219"
CACHE = "{CACHE}"
"""In the waiting changes, in place of the folder that LAMDAGENT_CACHE named."""
SEARCHES = ("old-all", "old-made", "old-ladder", "old-seeded", "old-outbox")
CPU = Path("/proc/cpuinfo")
CHAMPION = "lamdagent.champion"
UNDERSTOOD = ("name", "status", "action", "inputs", "hyperparameters", "score", "tasks", "parents", "model")
KEPT = ("action", "fingerprint", "parents", "tasks", "model_fingerprint", "weights_sha256", "replay_of", "state")


def main(work: Path) -> None:
    """All of it, in the empty folder `work`."""
    _check_version()
    store = work / "store"
    store.mkdir(parents=True)
    os.environ["LAMDAGENT_CACHE"] = str(work / "cache")
    os.environ["PYTHONPATH"] = f"{os.environ['PYTHONPATH']}:{HERE}"
    sys.path.append(str(HERE))
    _theirs(store)
    for name in ("old_all", "old_made", "old_ladder", "old_seeded"):
        _lamdagent(store, *CONF, f"+experiment={name}")
    _later(store, work)


def _later(store: Path, work: Path) -> None:
    """What follows from the searches, and the files."""
    champion = _champions(store)["old-all"]
    _lamdagent(store, "replay", champion, "data_fraction=0.5")
    _outbox(store, work / "server")
    _prune(store, champion)
    expected = {
        "version": VERSION,
        "made_on": machine(),
        "champions": _champions(store),
        "runs": _runs(store),
        "history": _history(store),
    }
    (HERE / "expected.json").write_text(json.dumps(expected, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    _pack(work)


def _check_version() -> None:
    import lamdagent

    root = Path(lamdagent.__file__).parents[1]
    words = ["git", "-C", str(root), "rev-parse", "--short=7", "HEAD"]
    found = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    if found != VERSION:
        raise SystemExit(f"make.py: the code in {root} is of version {found}, wanted {VERSION}")


def _lamdagent(folder: Path, *words: str) -> str:
    command = [sys.executable, "-m", "lamdagent", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    print(" ".join(words), done.stdout[-2000:], done.stderr, sep="\n", flush=True)
    if done.returncode:
        raise SystemExit(f"make.py: {words} ended with {done.returncode}")
    return done.stdout


def _client(store: Path) -> Any:
    from lamdagent.tracking.connect import open_client

    return open_client(f"sqlite:///{store}/mlflow.db")


def _theirs(store: Path) -> None:
    """Two trainings by TRL with report_to=mlflow, and a sweep that somebody wrote by hand."""
    code = "import make; make.train(); make.sweep()"
    environment = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{store}/mlflow.db", "HF_HUB_OFFLINE": "1"}
    subprocess.run([sys.executable, "-c", code], cwd=store, env=environment, check=True)


def train() -> None:
    """In the current folder, from the model in its folder `theirs`; neither it nor the trainer's folders are kept."""
    import shutil

    import own_parts
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    os.environ["MLFLOW_EXPERIMENT_NAME"] = "their-trainings"
    rows = Dataset.from_list([{"prompt": f"Spell {word}.", "completion": " ".join(word)} for word in ("apple", "oak")])
    own_parts.one(Path("theirs"))
    for rate in (1e-3, 1e-2):
        settings = SFTConfig(
            output_dir=f"sft-{rate:g}",
            run_name=f"sft {rate:g}",
            report_to="mlflow",
            learning_rate=rate,
            max_steps=4,
            per_device_train_batch_size=8,
            logging_steps=1,
            save_strategy="no",
            use_cpu=True,
        )
        SFTTrainer("theirs", args=settings, train_dataset=rows).train()
    for folder in ("theirs", "sft-0.001", "sft-0.01"):
        shutil.rmtree(folder, ignore_errors=True)


def sweep() -> None:
    """Six runs: two learning rates; one failed, one was stopped, one did something else."""
    from mlflow import MlflowClient

    client = MlflowClient()
    experiment = client.create_experiment("their-sweep")
    for number in range(6):
        rate = (0.003, 0.01)[number % 2]
        run = client.create_run(experiment, run_name=f"sweep {number}").info.run_id
        client.log_param(run, "method", "finetune" if number else "prune")
        client.log_param(run, "lr", rate)
        status = {3: "FAILED", 4: "KILLED"}.get(number, "FINISHED")
        if status == "FINISHED":
            client.log_metric(run, "accuracy", 20 + number + 1000 * rate)
        client.set_terminated(run, status)


def _outbox(store: Path, folder: Path) -> None:
    """A search whose server is lost after its base was scored; it is killed once its action has ended."""
    from tests.proxy import proxy
    from tests.servers import server

    folder.mkdir()
    client = _client(store)
    experiment = client.create_experiment("old-outbox", str(store / "mlruns" / "old-outbox"))
    with server(folder, backend=f"sqlite:///{store}/mlflow.db") as target, proxy(target) as line:
        words = [sys.executable, "-m", "lamdagent", *CONF, "+experiment=old_outbox", f"tracking.uri={line.uri}"]
        search = subprocess.Popen(words, cwd=folder, start_new_session=True)
        where = "tags.`lamdagent.kind` = 'base' AND attributes.status = 'FINISHED'"
        while not client.search_runs([experiment], where):
            time.sleep(0.02)
        line.mode = "drop"
        while not any(change["model"] and change["status"] for change in _waiting()):
            time.sleep(0.1)
            if search.poll() is not None:
                raise SystemExit("make.py: the search has ended before it could be killed")
        os.killpg(search.pid, signal.SIGKILL)
        search.wait()
    if not any(change["run_id"].startswith("pending") for change in _waiting()):
        raise SystemExit("make.py: the action was opened before the store was lost; try again")


def _waiting() -> list[dict[str, Any]]:
    files = sorted(Path(os.environ["LAMDAGENT_CACHE"]).glob("outbox/*/*/*/change.json"))
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def _prune(store: Path, run_id: str) -> None:
    """Delete the champion's weights, as `prune` would if it were not the champion."""
    from lamdagent.memory.history import build_history
    from lamdagent.tracking import pruning
    from lamdagent.tracking.store import Store

    opened = Store(f"sqlite:///{store}/mlflow.db", "old-all")
    trials = build_history(opened.every(), (), (), ()).by_run
    assert pruning.prune(opened, [trials[run_id]]) > 0


def _history(store: Path) -> dict[str, Any]:
    """Source -> run id -> what is understood of the run, but for what depends on where its files are."""
    found = json.loads(_lamdagent(store, "history", *CONF, "+experiment=old_reader", "--json"))["sources"]
    return {name: {row["run_id"]: understood(row) for row in told["readings"]} for name, told in found.items()}


def understood(row: dict[str, Any]) -> dict[str, Any]:
    """What `history --json` says of a run, less what depends on where its files are."""
    return {key: row[key] for key in UNDERSTOOD if key in row} | {"skipped": bool(row["skipped"])}


def _all(store: Path) -> list[tuple[str, Any]]:
    client = _client(store)
    found = {name: known.experiment_id for name in SEARCHES if (known := client.get_experiment_by_name(name))}
    order = ["attributes.start_time ASC"]
    return [(name, run) for name, own in found.items() for run in client.search_runs([own], order_by=order)]


def _champions(store: Path) -> dict[str, str]:
    """Experiment -> what its first search has ended with."""
    newest_first = reversed(_all(store))
    return {name: run.data.tags[CHAMPION] for name, run in newest_first if run.data.tags.get(CHAMPION)}


def _runs(store: Path) -> dict[str, Any]:
    """Run id -> what has to stay of each run of a base or an action."""
    found = {}
    for name, run in _all(store):
        tags = {key: run.data.tags.get(f"lamdagent.{key}", "") for key in KEPT}
        plain = {"experiment": name, "kind": run.data.tags["lamdagent.kind"], "status": run.info.status}
        found[run.info.run_id] = {**plain, "tags": tags, "metrics": _scores(run), "params": run.data.params}
    return found


def _scores(run: Any) -> dict[str, float]:
    return {k: v for k, v in run.data.metrics.items() if k.startswith(("score", "task.", "test.", "gain", "seeds."))}


def machine() -> dict[str, str]:
    """What the bits of a training depend on."""
    libraries = {name: version(name) for name in ("torch", "transformers", "trl", "mergekit", "lm_eval", "mlflow")}
    words = [line.partition(":")[2].strip() for line in CPU.read_text().splitlines() if line.startswith("model name")]
    return {"cpu": f"{platform.machine()} {''.join(words[:1])}", **libraries}


def _pack(work: Path) -> None:
    """The store with one file for its database, and the outbox; without names and paths of this machine."""
    from lamdagent.tracking.owner import this_process

    with closing(sqlite3.connect(work / "store" / "mlflow.db", isolation_level=None)) as database:
        database.execute("VACUUM INTO ?", [str(work / "mlflow.db")])
    host = this_process().host
    with closing(sqlite3.connect(work / "mlflow.db")) as database, database:
        database.execute("UPDATE tags SET value = replace(value, ?, 'a host')", [host])
    for file in (work / "cache" / "outbox").glob("*/*/*/change.json"):
        _replace(file, {str(work / "cache"): CACHE, host: "a host"})
    for file in (work / "store" / "mlruns").glob("*/*/artifacts/failure.txt"):
        _replace(file, {path: "somewhere" for path in (str(HERE), os.getcwd(), sys.prefix)})
    with lzma.open(HERE / "store.tar.xz", "wb", preset=9) as packed, tarfile.open(fileobj=packed, mode="w") as archive:
        for path, name in ((work / "mlflow.db", "mlflow.db"), (work / "store" / "mlruns", "mlruns")):
            archive.add(path, name, filter=_anonymous)
        archive.add(work / "cache" / "outbox", "outbox", filter=_anonymous)


def _replace(file: Path, words: dict[str, str]) -> None:
    text = file.read_text(encoding="utf-8")
    for old, new in words.items():
        text = text.replace(old, new)
    file.write_text(text, encoding="utf-8")


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
