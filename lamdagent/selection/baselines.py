"""The paper's baselines (section 4): what one would do without an agent. Each goes through its list and then stops."""

from collections.abc import Iterator, Sequence

from lamdagent.actions.action import Action, ActionType
from lamdagent.enumeration.space import ActionSpace
from lamdagent.objects.dataset import Dataset
from lamdagent.objects.model import Model
from lamdagent.selection.policy import Decision, Turn


def all_data_sft(turn: Turn) -> Decision | None:
    """One supervised fine-tuning of each initial model on the largest SFT dataset, with each setting of the grid.

    The largest is meant to be the one that holds all the others, such as `everything` of `+experiment=tooluse`.
    """
    types = [t for t in turn.space.types if is_sft(t)]
    data = [max(_sft_data(turn.space.datasets), key=lambda d: d.rows)]
    reason = f"all-data fine-tuning, the paper's baseline: {data[0].name} has {data[0].rows} rows"
    return _first(_within(turn, types, _initial(turn), data), "all_data_sft", reason)


def ties_grid(turn: Turn) -> Decision | None:
    """A fine-tuning on each SFT dataset with the grid's first setting, then every TIES merge of these models.

    None while one of the trainings runs and all others are done: the merges come after them.
    """
    kind = next(t for t in turn.space.types if is_sft(t))
    initial, data = _initial(turn), _sft_data(turn.space.datasets)
    singles = [a for a in _within(turn, [kind], initial, data, tried=False) if _is_first(a, kind)]
    wanted = {a.fingerprint: a for a in singles}
    open_ = (a for a in wanted.values() if a.fingerprint not in turn.space.tried)
    if decision := _first(open_, "ties_grid", "the TIES grid, the paper's baseline: a model for each dataset"):
        return decision
    if any(action.fingerprint in wanted for action in turn.pending):
        return None
    made = [model for model in turn.space.models if model.fingerprint in wanted]
    merges = [t for t in turn.space.types if is_ties(t)]
    reason = f"the TIES grid, the paper's baseline: merges of the {len(made)} models of a dataset each"
    return _first(_within(turn, merges, [*initial, *made], ()), "ties_grid", reason)


def baseline_faults(kind: str, types: Sequence[ActionType], datasets: Sequence[Dataset]) -> Iterator[str]:
    """Faults, for the user, for what the baseline `kind` lacks."""
    if not any(map(is_sft, types)):
        yield f"agent.kind: {kind} needs an action of supervised fine-tuning, such as +action=[sft_lora]"
    if not _sft_data(datasets):
        yield f"agent.kind: {kind} needs a dataset of kind sft under datasets"
    if kind == "ties_grid" and not any(map(is_ties, types)):
        yield "agent.kind: ties_grid needs TIES merging: +action=[merge_ties]"


def is_sft(kind: ActionType) -> bool:
    """Whether the type fine-tunes one model on one SFT dataset, by whatever function."""
    return sorted(slot.kind for slot in kind.slots) == ["model", "sft"]


def is_ties(kind: ActionType) -> bool:
    """Whether the type merges by TIES."""
    return kind.grid.get("method") == ("ties",)


def _sft_data(datasets: Sequence[Dataset]) -> list[Dataset]:
    """The datasets of kind sft that the user declared."""
    return [d for d in datasets if d.kind == "sft" and not d.run_id]


def _initial(turn: Turn) -> list[Model]:
    return [model for model in turn.space.models if model.initial]


def _is_first(action: Action, kind: ActionType) -> bool:
    return all(action.hyperparameters[key] == values[0] for key, values in kind.grid.items())


def _within(
    turn: Turn, types: Sequence[ActionType], models: Sequence[Model], data: Sequence[Dataset], tried: bool = True
) -> Iterator[Action]:
    """The legal actions of these types over these objects alone; `tried`: without those that need not be done."""
    space = turn.space
    done = space.tried if tried else ()
    part = ActionSpace(types, models, data, tried=done, seed=space.seed, data_fraction=space.data_fraction)
    return (action for kind in types for action in part.actions(kind))


def _first(actions: Iterator[Action], policy: str, reason: str) -> Decision | None:
    action = next(actions, None)
    return Decision(action, policy, reason) if action else None
