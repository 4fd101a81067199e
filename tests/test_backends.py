"""Evaluation backends: the user's own, which is not lm-eval, and what the door says of them."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from lamdagent.config import EvaluationConfig, TaskConfig
from lamdagent.errors import UserError
from lamdagent.evaluation.backends import Evaluation, ScoredModel, backend_faults, load_backend
from lamdagent.evaluation.fingerprint import task_fingerprint
from lamdagent.evaluation.task import Item, Score, Task
from lamdagent.execution.progress import Progress
from lamdagent.guards.item_cache import items_of
from lamdagent.planning.tasks import build_task
from lamdagent.worker.make import score

OWN = "tests.test_backends:Sizes"


class Sizes:
    """Scores a model by the size of its configuration: no item is asked of it."""

    version = "3"

    def evaluate(self, model: ScoredModel, asked: Evaluation) -> dict[str, Score]:
        """A millionth for each byte."""
        asked.report(Progress("evaluate", 1, 1))
        size = (model.folder / "config.json").stat().st_size
        return {task.name: Score(size / 1e6) for task in asked.tasks}

    def items(self, task: Task) -> list[Item]:
        """One."""
        return [Item(task.name, "search", "0", "How large are you?")]


class Newer(Sizes):
    """The same, changed since."""

    version = "4"


class Half:
    """No backend: it has no items."""

    def evaluate(self, model: ScoredModel, asked: Evaluation) -> dict[str, Score]:
        """Nothing."""
        return {}


class Other(Half):
    """No backend: `items` takes no task."""

    def items(self) -> list[Item]:
        """None."""
        return []


def own_task(backend: str = OWN) -> Task:
    return build_task("size", TaskConfig("size", "bytes"), EvaluationConfig(backend=backend))


def test_a_backend_of_the_users_scores_a_model_with_items_of_its_own(pico_folder: str, tmp_path: Path) -> None:
    seen: list[Progress] = []
    task = own_task()
    where: dict[str, Any] = {"folder": pico_folder, "output": str(tmp_path)}
    outcome = score(seen.append, tasks=[task], split="search", batch_size=4, **where)
    size = (Path(pico_folder) / "config.json").stat().st_size
    assert outcome.scores == {"size": Score(size / 1e6)} and seen == [Progress("evaluate", 1, 1)]
    assert items_of([task], inline=True) == [[Item("size", "search", "0", "How large are you?")]]


def test_scores_of_another_backend_or_version_of_it_are_not_compared() -> None:
    task = own_task()
    others = [own_task("tests.test_backends:Newer"), own_task("hf"), own_task("vllm")]
    assert len({t.fingerprint for t in (task, *others)}) == 4
    assert task_fingerprint(dataclasses.replace(task, backend_options={"fast": True})) == task.fingerprint


def test_nothing_is_loaded_where_there_is_nothing_to_score(pico_folder: str, tmp_path: Path) -> None:
    where: dict[str, Any] = {"folder": pico_folder, "output": str(tmp_path)}
    assert score(lambda _: None, tasks=[], split="search", batch_size=4, **where).scores == {}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("sglang", "got 'sglang'; allowed: hf, vllm, or module:Name of one of yours"),
        ("no.such:Backend", "'no.such:Backend' is no module:function on the Python path"),
        ("tests.test_backends:Half", "tests.test_backends:Half has no method items(task)"),
        ("tests.test_backends:Other", "Other.items cannot be called as Other.items(self, task)"),
    ],
)
def test_what_is_no_backend_is_refused_at_the_door(name: str, said: str) -> None:
    [fault] = backend_faults(name)
    assert fault.startswith("evaluation.backend: ") and said in fault
    with pytest.raises(UserError):
        load_backend(name)


def test_the_backends_of_the_package_can_be_loaded() -> None:
    assert list(backend_faults("hf")) == list(backend_faults(OWN)) == []
    assert {type(load_backend(name)).__name__ for name in ("hf", "vllm")} == {"HF", "VLLM"}
