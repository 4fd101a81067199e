"""Action types and actions as values (paper, section 3: an action is a type with its objects)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from lamdagent.objects.dataset import Dataset
from lamdagent.objects.model import Model

Scalar = str | int | float | bool
"""A hyperparameter's value: what MLflow can store as a param and a person can compare."""

PROCESSES = "accelerate.num_processes"
"""The param that says over how many processes an action ran, where it was more than one."""

SlotKind = Literal["model", "models", "sft", "preference", "prompts"]


@dataclass(frozen=True)
class Slot:
    """One typed place of an action type that an object is put into."""

    name: str
    """The keyword under which the action's function gets the object."""
    kind: SlotKind
    """`model`: one of the pool; `models`: several of the pool; otherwise one dataset of that kind."""
    minimum: int = 1
    """Fewest objects; for `models` at least 2."""
    maximum: int = 1
    """Most objects."""
    role: Literal["any", "initial", "produced"] = "any"
    """Which models fit: all, those the user declared, or those that actions made."""
    mirror: str = ""
    """For two order-free models: the hyperparameter that is the first one's share, 1 - share when they swap places."""
    unlike: str = ""
    """For a model: the slot of the other model, which is never the same and has as many tokens in its vocabulary."""
    columns: tuple[str, ...] = ()
    """For a dataset: the columns that the type's hyperparameters make it need, besides those of its kind."""
    ordered: bool = False
    """For `models`: whether another order makes another model; else their order means nothing."""


@dataclass(frozen=True)
class ActionType:
    """A model-improving method with its slots and the hyperparameters that the search may choose from."""

    name: str
    """The key of its file in `conf/action`."""
    description: str
    """What the agent reads."""
    function: str
    """`module:function`, imported only where it runs."""
    slots: tuple[Slot, ...]
    """In the order of `Action.objects`."""
    grid: Mapping[str, tuple[Scalar, ...]] = field(default_factory=dict)
    """Every hyperparameter with its allowed values, defaults filled in; one value = fixed."""
    paper: str = ""
    """Link to the method's source."""
    version: str = "1"
    """Changes when the code would make another model from the same inputs."""
    timeout_minutes: float = 240.0
    """An action that runs longer is ended as FAILED."""
    makes: str = ""
    """Kind of the dataset that it makes besides the model; empty for none."""
    needs: tuple[str, ...] = ()
    """What must be there where it runs: `gpu`, or a Python package by its import name."""
    accelerate: Mapping[str, Any] = field(default_factory=dict)
    """accelerate's launch configuration for one action over several processes; empty = in the worker. It says how an
    action runs and not what comes out (but for rounding), so it is no part of the fingerprint."""

    @property
    def timeout_s(self) -> float:
        """`timeout_minutes` in seconds."""
        return self.timeout_minutes * 60

    @property
    def processes(self) -> int:
        """How many processes run one action together."""
        return int(self.accelerate.get("num_processes", 1))

    def holds_unlike(self, objects: Mapping[str, Sequence[Any]]) -> bool:
        """Whether slots that must be unlike hold different models; `objects`: slot name -> what is in it."""
        return not any(slot.unlike and set(objects[slot.name]) & set(objects[slot.unlike]) for slot in self.slots)

    @property
    def choices(self) -> tuple[str, ...]:
        """Hyperparameters with more than one allowed value."""
        return tuple(key for key, values in self.grid.items() if len(values) > 1)


@dataclass(frozen=True)
class Action:
    """(type, objects, hyperparameters): makes one new model. Made by `enumeration.ActionSpace`, which checks it."""

    type: str
    """Name of the action type."""
    models: tuple[Model, ...]
    """All input models in slot order."""
    datasets: tuple[Dataset, ...]
    """All input datasets in slot order."""
    hyperparameters: Mapping[str, Scalar]
    """One value for every key of the type's grid."""
    fingerprint: str
    """Equal for two actions that would make the same model (see enumeration.py)."""
    slots: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Slot name -> names of the objects in it."""
    seed: int = 0
    """Given to the action's function."""
    data_fraction: float = 1.0
    """Share of each dataset that is used, (0, 1]; a stable nested subset."""
    choices: tuple[str, ...] = ()
    """The hyperparameters whose values the search chose; the others are fixed and only shown on the run."""
    processes: int = 1
    """How many processes run it together; not in the fingerprint."""

    @property
    def made(self) -> tuple[Model | Dataset, ...]:
        """The inputs whose runs are the parents, in slot order: models, and datasets that actions made."""
        named: dict[str, Model | Dataset] = {model.name: model for model in self.models}
        named |= {dataset.name: dataset for dataset in self.datasets if dataset.run_id}
        return tuple(named[name] for names in self.slots.values() for name in names if name in named)

    @property
    def share(self) -> float:
        """Of each dataset, how much is used: of one that an action made all of it, since it made it of such a share."""
        return 1.0 if self.datasets and all(d.run_id for d in self.datasets) else self.data_fraction

    def describe(self) -> str:
        """One line, such as `sft_lora(model=model-1a2b3c4d, dataset=calls, learning_rate=0.001)`."""
        inputs = [f"{slot}={'+'.join(names)}" for slot, names in self.slots.items()]
        return f"{self.type}({', '.join([*inputs, *self.settings()])})"

    def settings(self) -> list[str]:
        """The chosen hyperparameters as `key=value`."""
        return [f"{key}={self.hyperparameters[key]}" for key in self.choices if key in self.hyperparameters]

    def params(self) -> dict[str, Any]:
        """What the action's MLflow run shows as params: objects and hyperparameters under plain names."""
        objects = {slot: ", ".join(names) for slot, names in self.slots.items()}
        return {
            "action": self.type,
            **objects,
            **self.hyperparameters,
            "seed": self.seed,
            "data_fraction": self.data_fraction,
            **({PROCESSES: self.processes} if self.processes > 1 else {}),
        }


MICRO = "micro_batch_size"
"""The hyperparameter that says how many rows are in memory at once; `batch_size` beside it stays as it is."""


def local_rows(dataset: Dataset) -> str:
    """The file of a dataset that is on this machine."""
    return dataset.path


def inputs_of(
    action: Action,
    action_type: ActionType,
    folder: Callable[[Model], str],
    rows: Callable[[Dataset], str] = local_rows,
) -> dict[str, Any]:
    """The keyword arguments of the action's function: folders of models, files of datasets, hyperparameters."""
    things = {m.name: folder(m) for m in action.models} | {d.name: rows(d) for d in action.datasets}
    several = {slot.name for slot in action_type.slots if slot.kind == "models"}
    objects = {slot: [things[name] for name in names] for slot, names in action.slots.items()}
    return {**action.hyperparameters, **{slot: o if slot in several else o[0] for slot, o in objects.items()}}
