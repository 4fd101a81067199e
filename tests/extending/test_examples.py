"""The examples of docs/extending.md in one search, and that the page shows them as they are."""

import re
from pathlib import Path

import pytest

from lamdagent.commands import COMMANDS
from tests.searches import ROOT, lamdagent, of_kind, runs_of, search, tag

HERE = Path(__file__).parent
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
SHOWN = re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
GIVEN = (
    *("+model=pico", "+task=pico_spell", "+dataset=[pico_pairs,sums]", "+action=[sft_steps,simpo]"),
    *("agent.kind=tests.extending.alternating:Alternating", "+agent.arguments={stride: 1}"),
    *("evaluation.backend=tests.extending.word_pieces:Known", "tracking.experiment=extended"),
    *("execution=inline", "budget.trials=2", "search.test_top=1", "search.seed=3"),
)


@pytest.mark.parametrize(("name", "code"), SHOWN, ids=[name for name, _ in SHOWN])
def test_the_page_shows_what_is_tested(name: str, code: str) -> None:
    tested = (HERE / name).read_text(encoding="utf-8")
    missing = [block for block in code.strip().split("\n\n\n") if block.strip() not in tested]
    assert missing == []


def test_the_page_shows_an_example_of_each() -> None:
    shown = {name for name, _ in SHOWN}
    assert shown >= {"simpo.py", "steps.py", "word_pieces.py", "alternating.py", "runs.py"}


@pytest.mark.slow
def test_a_search_with_a_method_a_kind_of_data_a_backend_and_a_policy_of_the_user_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, output = search(tmp_path, *GIVEN)
    assert code == 0, output
    actions = of_kind(runs_of(tmp_path, "extended"), "action")
    assert {run.data.params["action"] for run in actions} == {"sft_steps", "simpo"}
    assert {tag(run, "policy") for run in actions} == {"alternating"}
    assert all(0 < run.data.metrics["task.spell"] < 1 for run in actions), "the tokenizer stays what it was"
    assert all(run.info.status == "FINISHED" for run in actions)

    monkeypatch.setitem(COMMANDS, "runs", "tests.extending.runs")
    assert lamdagent(tmp_path, "runs", "tracking.experiment=extended") == (0, "3 trials, 0 failed\n")
