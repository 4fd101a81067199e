"""Merges between whole models: means on a sphere, and one model that takes over parts of another."""

from lamdagent.actions.context import Context, Loaded
from lamdagent.actions.merging import merged


def nuslerp(
    context: Context,
    *,
    models: list[str],
    base: str = "",
    weight: float = 0.5,
    row_wise: bool = False,
    flatten: bool = True,
) -> Loaded:
    """Spherical interpolation of two models, or of their differences to `base` where that is a slot.

    `weight`: the first model's share, (0, 1); `flatten`: a whole tensor is one vector, else each of its rows
    is, or each of its columns with `row_wise` (mergekit's name). The method is mergekit's own (https://github.com/arcee-ai/mergekit).
    """
    return merged(context, "nuslerp", models, base, weight, nuslerp_row_wise=row_wise, nuslerp_flatten=flatten)


def multislerp(context: Context, *, models: list[str], base: str = "", weight: float = 0.5) -> Loaded:
    """Spherical interpolation of any number of models (https://goddard.blog/posts/multislerp-wow-what-a-cool-idea).

    `weight`: the first model's share of two, (0, 1); more than two share equally; `base`: as for `nuslerp`.
    """
    return merged(context, "multislerp", models, base, weight)


def karcher(context: Context, *, models: list[str], max_iter: int = 10, tol: float = 1e-5) -> Loaded:
    """The point of a sphere that is nearest to all models at once (https://arxiv.org/abs/2603.04972).

    `max_iter`: most steps towards it; `tol`: a step shorter than this (radians) is the last.
    """
    return merged(context, "karcher", models, max_iter=max_iter, tol=tol)


def nearswap(context: Context, *, models: list[str], t: float) -> Loaded:
    """The first model, moved to the second where both are near (https://huggingface.co/alchemonaut/QuartetAnemoi-70B-t0.0001).

    `t`: weights that differ by at most this become the second's, others move by it.
    """
    return merged(context, "nearswap", models, t=t)


def arcee_fusion(context: Context, *, models: list[str]) -> Loaded:
    """The first model with those weights of the second that matter most; how many, the weights say.

    A weight matters by its difference times the divergence of its row (https://arcee.ai, in mergekit).
    """
    return merged(context, "arcee_fusion", models)
