"""Action types and actions as values (paper, section 3: an action is a type with its objects)."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from lamdagent.objects.dataset import Dataset
from lamdagent.objects.kinds import is_kind
from lamdagent.objects.model import Model
from lamdagent.objects.reference import DATASET, ObjectRef
from lamdagent.objects.resource import Resource

Scalar = str | int | float | bool
"""A hyperparameter's value: what MLflow can store as a param and a person can compare."""

PROCESSES = "accelerate.num_processes"
"""The param that says over how many processes an action ran, where it was more than one."""

Object = Model | Dataset | Resource
"""An object that can be in a slot."""


@dataclass(frozen=True)
class Slot:
    """One typed place of an action type that an object is put into."""

    name: str
    """The keyword under which the action's function gets the object."""
    kind: str
    """`model`, `models` (several of the pool), a kind of data, or the name of another `object_kinds.ObjectKind`."""
    minimum: int = 1
    """Fewest objects; for `models` at least 2."""
    maximum: int = 1
    """Most objects."""
    role: Literal["any", "initial", "produced"] = "any"
    """Which models fit: all, those the user declared, or those that actions made."""
    complement: str = ""
    """For two order-free models: the hyperparameter that is the first one's share, 1 - share when they swap places."""
    distinct_from: str = ""
    """For a model: the slot of the other model, which is never the same and has as many tokens in its vocabulary."""
    columns: tuple[str, ...] = ()
    """For a dataset: the columns that the type's hyperparameters make it need, besides those of its kind."""
    ordered: bool = False
    """For `models`: whether another order makes another model; else their order means nothing."""

    @property
    def holds_models(self) -> bool:
        """True for a slot of one model or of several."""
        return self.kind in ("model", "models")

    @property
    def holds_data(self) -> bool:
        """True for a slot of a dataset."""
        return not self.holds_models and is_kind(self.kind)

    @property
    def several(self) -> bool:
        """True where the action's function gets a list, even of one object."""
        return self.kind == "models"


@dataclass(frozen=True)
class ActionType:
    """A model-improving method with its slots and the hyperparameters that the search may choose from."""

    name: str
    """The key of its file in `conf/action`."""
    description: str
    """Description that the agent reads."""
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
    """Requirements of the machine where it runs: `gpu`, or a Python package by its import name."""
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

    def holds_distinct(self, objects: Mapping[str, Sequence[Any]]) -> bool:
        """True if slots that must be distinct hold different models; `objects`: slot name -> what is in it."""
        pairs = [(slot.name, slot.distinct_from) for slot in self.slots if slot.distinct_from]
        return not any(set(objects[name]) & set(objects[other]) for name, other in pairs)

    @property
    def takes_several_models(self) -> bool:
        """True for a merge: one of its slots holds several models."""
        return any(slot.several for slot in self.slots)

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
    """The input models in slot order."""
    datasets: tuple[Dataset, ...]
    """The input datasets in slot order, as far as they are at hand."""
    hyperparameters: Mapping[str, Scalar]
    """One value for every key of the type's grid."""
    fingerprint: str
    """Equal for two actions that would make the same model (see enumeration.py)."""
    inputs: Mapping[str, tuple[ObjectRef, ...]] = field(default_factory=dict)
    """Slot name -> references to the objects in it, also to those that are gone."""
    seed: int = 0
    """Given to the action's function."""
    data_fraction: float = 1.0
    """Share of each dataset that is used, (0, 1]; a stable nested subset."""
    choices: tuple[str, ...] = ()
    """The hyperparameters whose values the search chose; the others are fixed and only shown on the run."""
    processes: int = 1
    """How many processes run it together; not in the fingerprint."""
    resources: tuple[Resource, ...] = ()
    """The input objects of other kinds in slot order, as far as they are at hand."""

    @cached_property
    def slots(self) -> Mapping[str, tuple[str, ...]]:
        """Slot name -> names of the objects in it."""
        return {slot: tuple(ref.name for ref in refs) for slot, refs in self.inputs.items()}

    @cached_property
    def refs(self) -> tuple[ObjectRef, ...]:
        """All inputs in slot order."""
        return tuple(ref for refs in self.inputs.values() for ref in refs)

    @cached_property
    def data(self) -> tuple[ObjectRef, ...]:
        """The inputs that are no models, in slot order: what lines about an action name besides its models."""
        return tuple(ref for ref in self.refs if not ref.is_model)

    @cached_property
    def objects(self) -> Mapping[str, tuple[Object, ...]]:
        """Slot name -> the objects in it, as far as they are at hand."""
        at_hand: list[Object] = [*self.models, *self.datasets, *self.resources]
        held = {(o.ref.kind, o.name): o for o in at_hand}
        found = {slot: (held.get((ref.kind, ref.name)) for ref in refs) for slot, refs in self.inputs.items()}
        return {slot: tuple(o for o in objects if o is not None) for slot, objects in found.items()}

    @property
    def missing(self) -> tuple[ObjectRef, ...]:
        """The inputs besides models that are not at hand: not configured any more, or made by a run not seen here."""
        at_hand: list[Object] = [*self.datasets, *self.resources]
        held = {(o.ref.kind, o.name) for o in at_hand}
        return tuple(ref for ref in self.data if (ref.kind, ref.name) not in held)

    @property
    def made(self) -> tuple[Model | Dataset, ...]:
        """The inputs whose runs are the parents, in slot order: models, and datasets that actions made."""
        every = (o for objects in self.objects.values() for o in objects)
        return tuple(o for o in every if isinstance(o, Model) or (isinstance(o, Dataset) and o.run_id))

    @property
    def share(self) -> float:
        """Share of each dataset that is used: all of what an action made, since it made it of such a share."""
        return share_of(self.refs, self.data_fraction)

    def describe(self) -> str:
        """One line, such as `sft_lora(model=model-1a2b3c4d, dataset=calls, learning_rate=0.001)`."""
        inputs = [f"{slot}={'+'.join(names)}" for slot, names in self.slots.items()]
        return f"{self.type}({', '.join([*inputs, *self.settings()])})"

    def settings(self) -> list[str]:
        """The chosen hyperparameters as `key=value`."""
        return [f"{key}={self.hyperparameters[key]}" for key in self.choices if key in self.hyperparameters]

    def params(self) -> dict[str, Any]:
        """Params that the action's MLflow run shows: objects and hyperparameters under plain names."""
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


def share_of(refs: Iterable[ObjectRef], data_fraction: float) -> float:
    """`Action.share` of an action with these inputs."""
    data = [ref for ref in refs if ref.kind == DATASET]
    return 1.0 if data and all(ref.run_id for ref in data) else data_fraction


def local_rows(dataset: Dataset) -> str:
    """The file of a dataset that is on this machine."""
    return dataset.path


def inputs_of(
    action: Action,
    action_type: ActionType,
    folder: Callable[[Model], str],
    rows: Callable[[Dataset], str] = local_rows,
) -> dict[str, Any]:
    """The keyword arguments of the action's function: folders of models, files of data, hyperparameters.

    Args:
        action: What is to be done.
        action_type: Its type.
        folder: Model -> its local folder.
        rows: Dataset -> its local file.
    """

    def path(thing: Object) -> str:
        if isinstance(thing, Model):
            return folder(thing)
        return rows(thing) if isinstance(thing, Dataset) else thing.path

    paths = {slot: [path(thing) for thing in things] for slot, things in action.objects.items()}
    return {**action.hyperparameters, **keyword_arguments(action_type, paths)}


def keyword_arguments(action_type: ActionType, paths: Mapping[str, Sequence[str]]) -> dict[str, str | list[str]]:
    """Slot name -> what the action's function gets for it: a path, or a list of paths where it takes several."""
    several = {slot.name for slot in action_type.slots if slot.several}
    return {slot: list(given) if slot in several else given[0] for slot, given in paths.items()}
