"""The wheel: everything travels and works without the checkout. The driver never loads the heavy libraries."""

import json
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "transformers", "trl", "peft", "accelerate", "mergekit", "lm_eval", "datasets", "ray")


def files_of(folder: Path) -> set[str]:
    """Relative paths of what git does not ignore there."""
    options = ["--cached", "--others", "--exclude-standard"]
    command = ["git", "-C", str(ROOT), "ls-files", *options, "--", folder.name]
    listed = subprocess.run(command, capture_output=True, text=True, check=True)
    return {name.removeprefix(f"{folder.name}/") for name in listed.stdout.splitlines()}


def python(*arguments: str, cwd: Path, path: Path, timeout: int = 300) -> subprocess.CompletedProcess[str]:
    """Python without the current folder or a checkout on its path: `path` comes first."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
    environment |= {"PYTHONPATH": str(path), "PYTHONSAFEPATH": "1"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # setuptools leaves a build folder behind
    for name in ("lamdagent", "conf", "mlflow_plugin"):
        for file in files_of(ROOT / name):
            if (ROOT / name / file).exists():
                (source / name / file).parent.mkdir(parents=True, exist_ok=True)
                (source / name / file).write_bytes((ROOT / name / file).read_bytes())
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (source / name).write_bytes((ROOT / name).read_bytes())
    options = ["--no-deps", "--no-build-isolation", "--no-index", "-q"]
    command = [sys.executable, "-m", "pip", "wheel", *options, "-w", str(folder), str(source)]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "-q", "--target", str(folder)]
    done = subprocess.run([*command, str(wheel)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


class TestWheel:
    def test_holds_every_file_of_the_packages(self, wheel: Path) -> None:
        inside = set(zipfile.ZipFile(wheel).namelist())
        wanted = {f"lamdagent/{name}" for name in files_of(ROOT / "lamdagent")}
        wanted |= {f"lamdagent/conf/{name}" for name in files_of(ROOT / "conf")}
        wanted |= {f"mlflow_plugin/{name}" for name in files_of(ROOT / "mlflow_plugin")}
        assert {name for name in wanted if (ROOT / name).exists() or "conf/" in name} - inside == set()

    def test_holds_nothing_else(self, wheel: Path) -> None:
        tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
        assert {top for top in tops if not top.endswith(".dist-info")} <= {"lamdagent", "mlflow_plugin"}

    def test_is_what_runs(self, installed: Path, tmp_path: Path) -> None:
        done = python("-c", "import lamdagent; print(lamdagent.__file__)", cwd=tmp_path, path=installed)
        assert Path(done.stdout.strip()) == installed / "lamdagent" / "__init__.py", done.stderr

    def test_configuration_travels(self, installed: Path, tmp_path: Path) -> None:
        done = python("-m", "lamdagent", "+experiment=smoke", "--cfg", "job", cwd=tmp_path, path=installed)
        assert done.returncode == 0 and "merge_ties" in done.stdout, done.stderr
        found = python(
            "-c", "from lamdagent.config import conf_folder; print(conf_folder())", cwd=tmp_path, path=installed
        )
        assert Path(found.stdout.strip()) == installed / "lamdagent" / "conf", found.stderr
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.slow
    def test_plan_on_paper_needs_prompts_and_tasks(self, installed: Path, tmp_path: Path) -> None:
        done = python("-m", "lamdagent", "+experiment=smoke", "dry_run=true", cwd=tmp_path, path=installed)
        assert done.returncode == 0, done.stderr
        for words in ("pico_spell", "merge_ties", "choose the next action type", "choose the objects"):
            assert words in done.stdout
        assert list(tmp_path.iterdir()) == []

    def test_entry_points_can_be_loaded(self, installed: Path, tmp_path: Path) -> None:
        code = (
            "from importlib.metadata import distribution\n"
            "for point in distribution('lamdagent').entry_points: print(point.group, point.load())"
        )
        done = python("-c", code, cwd=tmp_path, path=installed)
        assert done.returncode == 0 and "console_scripts" in done.stdout, done.stderr


def test_list_of_packages_is_the_tree() -> None:
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = {"lamdagent.conf"}
    for top in ("lamdagent", "mlflow_plugin"):
        for file in (ROOT / top).rglob("__init__.py"):
            found.add(".".join(file.parent.relative_to(ROOT).parts))
    assert listed == found


def test_no_module_of_the_driver_loads_the_heavy_libraries(tmp_path: Path) -> None:
    code = (
        "import importlib, json, pkgutil, sys, lamdagent\n"
        "names = [m.name for m in pkgutil.walk_packages(lamdagent.__path__, 'lamdagent.')]\n"
        f"loaded = lambda: [heavy for heavy in {HEAVY} if heavy in sys.modules]\n"
        "guilty = [(n, loaded()) for n in names if (importlib.import_module(n) and loaded())]\n"
        "print(json.dumps([len(names), guilty[:1]]))"
    )
    done = python("-c", code, cwd=tmp_path, path=ROOT)
    assert done.returncode == 0, done.stderr
    count, guilty = json.loads(done.stdout.splitlines()[-1])
    assert count > 30 and guilty == []
