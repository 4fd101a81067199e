"""Merges of task vectors: what models have learnt since a common base, as differences of weights.

The idea is task arithmetic's (https://arxiv.org/abs/2212.04089); the methods differ in what they drop and in how they
settle conflicts. In all of them `models` are folders of descendants of `base`, two or more, and their order does not
matter. `merging.merge` has two more, ties and dare_ties.
"""

from lamdagent.actions.context import Context, Loaded
from lamdagent.actions.merging import merged


def task_arithmetic(context: Context, *, models: list[str], base: str, scale: float = 1.0) -> Loaded:
    """Add the mean difference to the base (https://arxiv.org/abs/2212.04089).

    `scale`: factor on it; the number of models gives the sum.
    """
    return merged(context, "task_arithmetic", models, base, scale=scale)


def dare_linear(context: Context, *, models: list[str], base: str, density: float = 0.5, scale: float = 1.0) -> Loaded:
    """The same of differences thinned at random and scaled up to make up for it (https://arxiv.org/abs/2311.03099).

    `density`: share of each difference that is kept, (0, 1].
    """
    return merged(context, "dare_linear", models, base, density=density, scale=scale)


def breadcrumbs(
    context: Context,
    *,
    models: list[str],
    base: str,
    method: str = "breadcrumbs",
    density: float = 0.9,
    gamma: float = 0.01,
    scale: float = 1.0,
) -> Loaded:
    """Drop both the largest and the smallest differences (https://arxiv.org/abs/2312.06795).

    `density`: share that is kept, (0, 1); `gamma`: share of the largest that is dropped, [0, 1 - density]; `method`:
    breadcrumbs, or breadcrumbs_ties, which also drops those whose sign the majority does not have.
    """
    allowed = ("breadcrumbs", "breadcrumbs_ties")
    return merged(context, method, models, base, allowed=allowed, density=density, gamma=gamma, scale=scale)


def della(
    context: Context,
    *,
    models: list[str],
    base: str,
    method: str = "della",
    density: float = 0.5,
    epsilon: float = 0.15,
    scale: float = 1.0,
) -> Loaded:
    """Drop differences at random, small ones more often (https://arxiv.org/abs/2406.11617).

    `density`: share that is kept; `epsilon`: how much more likely the largest and less likely the smallest are kept,
    with density +- epsilon in (0, 1); `method`: della, which also settles signs, or della_linear.
    """
    allowed = ("della", "della_linear")
    return merged(context, method, models, base, allowed=allowed, density=density, epsilon=epsilon, scale=scale)


def model_stock(context: Context, *, models: list[str], base: str, filter_wise: bool = False) -> Loaded:
    """Go from the base towards the models' mean as far as their angle says (https://arxiv.org/abs/2403.19522).

    `filter_wise`: an angle for each row of a matrix instead of for each matrix.
    """
    return merged(context, "model_stock", models, base, filter_wise=filter_wise)


def sce(context: Context, *, models: list[str], base: str, select_topk: float = 1.0) -> Loaded:
    """Select, calculate, erase: weigh models by how far they moved each matrix (https://arxiv.org/abs/2408.07990).

    `select_topk`: share of entries that is merged, those on which the models differ most, (0, 1].
    """
    return merged(context, "sce", models, base, select_topk=select_topk)


def ram(context: Context, *, models: list[str], base: str, epsilon: float = 1e-5) -> Loaded:
    """Keep what only one model has changed, average what several have (https://arxiv.org/abs/2601.13572).

    `epsilon`: a difference up to this is none.
    """
    return merged(context, "ram", models, base, epsilon=epsilon)


def ramplus_tl(
    context: Context, *, models: list[str], base: str, r: float = 0.1, alpha: float = 0.2, epsilon: float = 1e-5
) -> Loaded:
    """As `ram`, and what one model alone has changed counts more, matrix by matrix (https://arxiv.org/abs/2601.13572).

    `r`: how much more for each time that shared changes outnumber it; `alpha`: the ratio at which that stops growing.
    """
    return merged(context, "ramplus_tl", models, base, r=r, alpha=alpha, epsilon=epsilon)
