"""The notebook of docs/ runs from top to bottom in a kernel of this very Python, and shows what it says."""

import os
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests import forkserver
from tests.searches import ROOT

NOTEBOOK = ROOT / "docs" / "quickstart.ipynb"
PATIENCE_S = 600
"""For one cell: the search takes a minute on a quiet machine."""


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The code cells of the notebook, executed in a folder of its own."""
    folder = tmp_path_factory.mktemp("notebook")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell("import sys; print(sys.executable)"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jupyter_client.launcher.Popen", forkserver.Popen)
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))
        patch.setenv("JUPYTER_RUNTIME_DIR", str(folder / "runtime"))
        resources = {"metadata": {"path": str(folder)}}
        client = NotebookClient(notebook, timeout=PATIENCE_S, kernel_name="python3", resources=resources)
        executed = client.execute(env=dict(os.environ))
    return [cell for cell in executed.cells if cell.cell_type == "code"]


def printed(cell: Any) -> str:
    return "".join(one.text for one in cell.outputs if one.output_type == "stream")


def shown(cell: Any) -> dict[str, str]:
    """MIME type -> what the value of the cell's last line is shown as."""
    return {kind: str(data) for one in cell.outputs if "data" in one for kind, data in one.data.items()}


def cell_with(cells: list[Any], words: str) -> Any:
    return next(cell for cell in cells if words in cell.source)


@pytest.mark.slow
class TestNotebook:
    def test_its_kernel_is_this_python(self, cells: list[Any]) -> None:
        assert Path(printed(cells[0]).strip()) == Path(sys.executable)

    def test_the_plan_and_its_faults(self, cells: list[Any]) -> None:
        assert "sft_full" in printed(cell_with(cells, "plan.types"))
        assert "2 faults in the configuration" in printed(cell_with(cells, "ConfigError"))

    def test_the_search_shows_its_progress_as_lines_of_one_stream(self, cells: list[Any]) -> None:
        cell = cell_with(cells, "lamdagent.search(")
        assert {one.output_type for one in cell.outputs} == {"stream"}
        assert "> 4/4 " in printed(cell) and "the search ends: 4 trials are done" in printed(cell)
        assert not [one for one in cell.outputs if one.name == "stderr"], printed(cell)

    def test_the_leaderboard_is_a_table(self, cells: list[Any]) -> None:
        leaderboard = shown(next(cell for cell in cells if cell.source == "result"))
        assert "<table>" in leaderboard["text/html"] and "Champion: " in leaderboard["text/html"]
        assert "model-" in leaderboard["text/plain"]

    def test_the_frame_has_every_trial(self, cells: list[Any]) -> None:
        assert shown(cell_with(cells, "to_frame()"))["text/html"].count("<tr") == 1 + 5

    def test_the_report_is_seen(self, cells: list[Any]) -> None:
        report = shown(cell_with(cells, "picture(result"))
        assert len(report.get("image/png", "")) > 20_000 or "srcdoc" in report.get("text/html", "")

    def test_a_replay_on_paper(self, cells: list[Any]) -> None:
        assert "other than it was: {'search.seed': 1}" in printed(cell_with(cells, "lamdagent.replay"))


def test_what_is_kept_of_it_names_no_machine() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert not [word for word in ("/tmp/", "/home/", "/root/", "/work/", "/usr/") if word in text]
