"""Merging models by arithmetic on their weights, through mergekit (https://arxiv.org/abs/2403.13257). No training.

`merge` does linear (https://arxiv.org/abs/2203.05482), slerp (https://en.wikipedia.org/wiki/Slerp), ties
(https://arxiv.org/abs/2306.01708) and dare_ties (https://arxiv.org/abs/2311.03099); the others are in interpolation.py
and task_vectors.py.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lamdagent.actions.action import Scalar
from lamdagent.actions.context import Context, Loaded
from lamdagent.actions.merge_methods import METHODS, check_call
from lamdagent.errors import ActionFailed
from lamdagent.execution.progress import Progress
from lamdagent.libraries import known_warnings_ignored, quiet
from lamdagent.objects import tokenizer_vocab
from lamdagent.objects.compatibility import config_of, incompatibilities, signature_of

OF_MERGE = ("linear", "slerp", "ties", "dare_ties")
"""The methods that `merge` does."""
NAMES = {"scale": "lambda"}
"""Hyperparameters that mergekit calls otherwise."""
OPTIONS: dict[str, Any] = {"device": "auto", "copy_tokenizer": False, "write_model_card": False, "quiet": True}
"""mergekit's options, besides the seed."""
NOT_WEIGHTS = (".json", ".jinja", ".model", ".txt")
"""Endings of what stands beside the weights: config, tokenizer, chat template. Indexes of weights are not meant."""


def merge(
    context: Context,
    *,
    models: list[str],
    base: str = "",
    method: str = "linear",
    weight: float = 0.5,
    density: float = 0.5,
    scale: float = 1.0,
) -> Loaded:
    """Merge models of one architecture and vocabulary; tokenizer and chat template are the base's or the first's.

    Args:
        context: where to write, and the seed that decides what DARE drops.
        models: folders; exactly two for slerp.
        base: folder of the model that ties and dare_ties take differences from.
        method: one of OF_MERGE.
        weight: linear and slerp: the first model's share of two, (0, 1); more than two share equally.
        density: ties and dare_ties: share of each difference that is kept, (0, 1].
        scale: ties and dare_ties: factor on the merged difference.

    Raises:
        ActionFailed: the models do not fit together or the method; nothing was computed.
    """
    values: dict[str, Scalar] = {"t": 1.0 - weight} if method == "slerp" else {}
    if method in ("ties", "dare_ties"):
        values = {"density": density, "scale": scale}
    return merged(context, method, models, base, weight, allowed=OF_MERGE, **values)


def merged(
    context: Context,
    method: str,
    models: list[str],
    base: str = "",
    weight: float = 0.5,
    *,
    allowed: Sequence[str] = tuple(METHODS),
    **values: Scalar,
) -> Loaded:
    """Do one merge; `weight` is the first model's share of two, `values` are the method's own parameters.

    Raises:
        ActionFailed: the models do not fit together or the method; nothing was computed.
    """
    check_call(method, models, base, allowed)
    parameters = {NAMES.get(key, key): value for key, value in values.items()}
    return context.perform(Merging(method, tuple(models), base, weight, parameters))


@dataclass(frozen=True)
class Merging:
    """One mergekit run from folders to a folder."""

    method: str
    """One of METHODS."""
    models: tuple[str, ...]
    base: str
    """Folder of one more model where the method takes one, see `Method.base`."""
    weight: float = 0.5
    """The first model's share of two, where the method weighs whole models; others share equally."""
    parameters: Mapping[str, Scalar] = field(default_factory=dict)
    """Further parameters of mergekit's method, by its own names."""

    @property
    def folders(self) -> tuple[str, ...]:
        """All inputs; config, tokenizer and chat template are the first one's."""
        return (self.base, *self.models) if METHODS[self.method].with_base(self.base) else self.models

    @property
    def shares(self) -> list[float]:
        """The weight of each model; task vectors always share equally, so that their order means nothing."""
        if len(self.models) == 2 and METHODS[self.method].base != "ancestor":
            return [self.weight, 1.0 - self.weight]
        return [1.0 / len(self.models)] * len(self.models)

    def configuration(self, dtype: str | None) -> dict[str, Any]:
        """The merge configuration that mergekit reads; `dtype` is the precision of the new weights."""
        takes = METHODS[self.method]
        shares = self.shares if takes.weighed else [None] * len(self.models)
        has_base = takes.base == "first" or takes.with_base(self.base)
        return {
            "merge_method": self.method,
            "models": [_input(folder, share) for folder, share in zip(self.models, shares, strict=True)],
            "base_model": _reference(self.folders[0]) if has_base else None,
            "parameters": dict(self.parameters),
            "dtype": "float32",  # of the arithmetic
            "out_dtype": dtype,
        }

    def run(self, context: Context) -> Loaded:
        """Merge into the context's output folder.

        Raises:
            ActionFailed: the models do not fit together, which is found before any compute, or mergekit gave up.
        """
        _check_fit(self.folders)
        context.report(Progress("merge", 0, 1))
        _run(self.configuration(stored_dtype(self.folders[0])), context)
        _copy_all_but_weights(Path(self.folders[0]), context.output)
        context.report(Progress("merge", 1, 1))
        return context.load(str(context.output))


def stored_dtype(folder: str) -> str | None:
    """The precision in which the model in `folder` is stored, as its config.json says: `bfloat16`, ..."""
    config = config_of(Path(folder))
    return config.get("dtype") or config.get("torch_dtype")


def _check_fit(folders: Sequence[str]) -> None:
    try:
        frames = {folder: signature_of(Path(folder)) for folder in folders}
    except (OSError, ValueError) as error:
        raise ActionFailed(f"A model to merge cannot be read: {error}", kind="bad_model") from error
    if reason := next(incompatibilities(frames), None):
        raise ActionFailed(reason, kind="mismatch")
    tokenizer_vocab.forget()  # the merge has a better use for the memory


def _reference(folder: str) -> dict[str, Any]:
    return {"model": {"path": folder}}  # as a plain string, mergekit would read "@" and "+" in it


def _input(folder: str, share: float | None) -> dict[str, Any]:
    return {"model": _reference(folder), "parameters": {} if share is None else {"weight": share}}


def _run(plan: dict[str, Any], context: Context) -> None:
    """Let mergekit write the merged weights and a config into the output folder."""
    quiet()
    with known_warnings_ignored():
        from mergekit.config import MergeConfiguration
        from mergekit.io.tasks import LoaderCache
        from mergekit.merge import run_merge
        from mergekit.options import MergeOptions
    options = MergeOptions(random_seed=context.seed, **OPTIONS)
    try:
        run_merge(MergeConfiguration.model_validate(plan), str(context.output), options)
    except (RuntimeError, ValueError, KeyError, TypeError) as error:  # what mergekit raises for inputs it cannot take
        raise ActionFailed(f"mergekit could not do the {plan['merge_method']} merge: {error}") from error
    finally:
        LoaderCache().loaders.clear()  # else the inputs stay mapped into memory for as long as the process lives


def _copy_all_but_weights(source: Path, target: Path) -> None:
    """Config, tokenizer and chat template: mergekit itself would take them from any of the models."""
    for file in source.iterdir():
        if file.suffix in NOT_WEIGHTS and not file.name.endswith(".index.json"):
            shutil.copy(file, target / file.name)
