"""Settings of the agent's memory, and of the runs of others that seed it."""

from dataclasses import dataclass, field
from typing import Annotated, Any

from annotated_types import Ge

from lamdagent.settings.section import AtLeast0, AtLeast1, Section


@dataclass(frozen=True)
class ForeignScoreConfig(Section):
    """The metric in which runs of others keep the score of one of our tasks."""

    metric: str = ""
    """Their metric's name."""
    low: float = 0.0
    """Their value that means as much as the task's own `low`."""
    high: float = 1.0
    """Their value that means as much as the task's own `high`."""
    higher_is_better: bool = True
    """Direction of their metric; False turns the scale round."""
    stderr: str | None = None
    """Their metric of its standard error, on the same scale."""


@dataclass(frozen=True)
class SourceConfig(Section):
    """Runs of others that the memory reads, and how they are to be understood. Nothing is ever written to them.

    A place is `params.<name>` or `tags.<name>` of their run.
    """

    mapping: str = "params"
    """trl, transformers, params or lamdagent: what is not set here is taken from conf/source/<mapping>.yaml. Or
    `module:function`, which gets each run and returns it with params, tags and metrics under the names that `params`
    reads, or None to leave it out."""
    experiments: list[Any] = field(default_factory=list)
    """MLflow experiments of the store, by name or id."""
    filter: str = ""
    """MLflow filter, such as tags.team = 'nlp'."""
    runs: AtLeast1 = 1000
    """Most runs to read, the newest first."""
    models: AtLeast0 = 20
    """Most of their models that join the pool, the best first."""
    action: str = ""
    """Action that was done: an action type of ours, or the place that says it; empty: told by the trainer's params."""
    actions: dict[str, str] = field(default_factory=dict)
    """Their word for it -> our action type."""
    model: str = ""
    """The place that names the input model, several with commas; empty: our first model."""
    model_names: dict[str, str] = field(default_factory=dict)
    """Their name -> our name under `models`."""
    dataset: str = ""
    """A dataset of ours, or the place that names theirs."""
    dataset_names: dict[str, str] = field(default_factory=dict)
    """Their name -> our name under `datasets`."""
    hyperparameters: dict[str, str] = field(default_factory=dict)
    """Our hyperparameter -> its place, or a product of places with ` * `."""
    scores: dict[str, ForeignScoreConfig] = field(default_factory=dict)
    """Our task -> their metric."""
    weights: list[str] = field(default_factory=list)
    """Places of weights, tried in order: logged_model, artifacts/<path>, or the place that names a folder here."""


@dataclass(frozen=True)
class MemoryConfig(Section):
    """The agent's memory: the text that it reads."""

    tokens: Annotated[int, Ge(100)] = 2000
    """Budget of the memory text, however long the history."""
    any_fraction: bool = False
    """True: runs of every data fraction are seen as if of one; else only those of the search's own, since scores at
    different fractions are no fair comparison of pipelines."""
    sources: dict[str, SourceConfig] = field(default_factory=dict)
    """Runs of others that seed the search, by a name of yours."""
