"""The guards before any compute: what a configuration that can be read would still waste a night on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from lamdagent.actions.action import ActionType
from lamdagent.config import Config
from lamdagent.errors import UserError
from lamdagent.evaluation.task import Task
from lamdagent.guards.memory import memory_faults
from lamdagent.objects.dataset import Dataset

MODES = ("refuse", "warn", "off")
MEMORY_ADVICE = (
    "take smaller rows or models, LoRA, or no such action; set execution.memory_gb if that is not the memory, or "
    "execution.memory_check=warn to try it all the same"
)


@dataclass
class Findings:
    """Findings of the guards."""

    faults: list[str] = field(default_factory=list)
    """Faults that keep the search from starting."""
    warnings: list[str] = field(default_factory=list)
    """Warnings, which the user is told and no more."""
    overlap: str = ""
    """One line about training rows that hold evaluation items; empty when there are none or nothing was compared."""
    leaks: list[dict[str, object]] = field(default_factory=list)
    """Each such row."""


def preflight(
    config: Config, types: Sequence[ActionType], datasets: Sequence[Dataset], tasks: Sequence[Task]
) -> Findings:
    """Ask every guard about what could be built of `config`, cheap ones first; all that they find, at once."""
    findings = Findings()
    findings.warnings += _dropped(datasets)
    if config.execution.memory_check != "off":
        never, sometimes = memory_faults(config, types, datasets)
        refused = config.execution.memory_check == "refuse"
        (findings.faults if refused else findings.warnings).extend(f"{said}; {MEMORY_ADVICE}" for said in never)
        findings.warnings += sometimes
    if config.evaluation.overlap != "off" and datasets and tasks:
        _compare(config, datasets, tasks, findings)
    return findings


def _dropped(datasets: Sequence[Dataset]) -> Iterator[str]:
    for dataset in datasets:
        if dataset.dropped:
            yield f"datasets.{dataset.name}: {dataset.dropped}"


def _compare(config: Config, datasets: Sequence[Dataset], tasks: Sequence[Task], findings: Findings) -> None:
    """The training data with the tasks' items."""
    from lamdagent.evaluation.contamination import leaks, sentences, summary
    from lamdagent.evaluation.task import DataUnavailable, Item
    from lamdagent.guards.item_cache import items_of

    every: list[Item] = []
    for task, had in zip(tasks, items_of(tasks, inline=config.execution.kind == "inline"), strict=True):
        if isinstance(had, UserError):
            findings.faults.append(str(had))
        elif isinstance(had, DataUnavailable):
            findings.warnings.append(f"tasks.{task.name}: no training data was compared with its items: {had}")
        else:
            every += had
    found = leaks(datasets, every)
    if not found:
        return
    if config.evaluation.overlap == "warn":
        findings.warnings += sentences(found)
        findings.overlap = summary(found)
        findings.leaks = [leak.to_dict() for leak in found]
        return
    advice = "take them out, leave the dataset or task out, or go on with evaluation.overlap=warn, which is reported"
    findings.faults += [f"{said}; {advice}" for said in sentences(found)]
