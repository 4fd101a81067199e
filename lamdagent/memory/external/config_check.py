"""Faults of `memory.sources` that the configuration alone shows; unknown experiments are the store's to tell."""

import difflib
from collections.abc import Collection, Iterator, Mapping

from lamdagent.config import MAPPINGS, Config, SourceConfig
from lamdagent.errors import UserError
from lamdagent.functions import check_call, load_function
from lamdagent.memory.external.context import is_field_path


def source_faults(config: Config) -> Iterator[str]:
    """Every fault of every source, each with what is allowed."""
    for name, source in config.memory.sources.items():
        path = f"memory.sources.{name}"
        yield from _mapping(f"{path}.mapping", source.mapping)
        if not source.experiments:
            yield f"{path}.experiments: none given; python -m lamdagent history lists those of the store"
        yield from _translations(path, source, config)
        yield from _scores(path, source, config)
        yield from _places(path, source)


def _mapping(path: str, mapping: str) -> Iterator[str]:
    if ":" not in mapping:
        if mapping not in MAPPINGS:
            yield f"{path}: got {mapping!r}; allowed: {', '.join(MAPPINGS)}, or module:function of one of yours"
        return
    try:
        check_call(load_function(mapping, path), path, "run")
    except UserError as error:
        yield str(error)


def _translations(path: str, source: SourceConfig, config: Config) -> Iterator[str]:
    if source.action and not is_field_path(source.action):
        yield from _unknown(f"{path}.action", {"": source.action}, config.actions)
    if source.dataset and not is_field_path(source.dataset):
        yield from _unknown(f"{path}.dataset", {"": source.dataset}, config.datasets)
    yield from _unknown(f"{path}.actions", source.actions, config.actions)
    yield from _unknown(f"{path}.model_names", source.model_names, config.models)
    yield from _unknown(f"{path}.dataset_names", source.dataset_names, config.datasets)


def _unknown(path: str, translation: Mapping[str, str], ours: Collection[str]) -> Iterator[str]:
    for theirs, name in translation.items():
        if name not in ours:
            close = difflib.get_close_matches(name, ours, 1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            where = f"{path}.{theirs}" if theirs else path
            allowed = ", ".join(sorted(ours)) or "none are configured"
            yield f"{where}: {name!r} is none of ours. {hint}Allowed: {allowed}"


def _scores(path: str, source: SourceConfig, config: Config) -> Iterator[str]:
    yield from _unknown(f"{path}.scores", {task: task for task in source.scores}, config.tasks)
    for task, score in source.scores.items():
        if not score.metric:
            yield f"{path}.scores.{task}.metric: not given; it is the name of their metric"
        if not score.low < score.high:
            yield f"{path}.scores.{task}: low = {score.low} must be below high = {score.high}"


def _places(path: str, source: SourceConfig) -> Iterator[str]:
    if source.model and not is_field_path(source.model):
        yield f"{path}.model: got {source.model!r}, wanted params.<name> or tags.<name>"
    for key, text in source.hyperparameters.items():
        if not all(is_field_path(part.strip()) for part in text.split("*")):
            yield f"{path}.hyperparameters.{key}: got {text!r}, wanted params.<name> or tags.<name>, several with *"
    for text in source.weights:
        if text != "logged_model" and not text.startswith("artifacts/") and not is_field_path(text):
            yield f"{path}.weights: got {text!r}, wanted logged_model, artifacts/<path>, params.<name> or tags.<name>"
