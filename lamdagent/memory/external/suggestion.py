"""Which mapping fits an experiment of strangers: a guess from the names and values of its params and metrics. Pure."""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any

from lamdagent.config import Config
from lamdagent.memory.external.values import trainer_of
from lamdagent.text import one_line
from lamdagent.tracking import schema
from lamdagent.tracking.runs import RunRecord

ACTIONS = r"action|method|algo(rithm)?|stage|technique|recipe|train(ing)?_?type|task_?type"
MODELS = r"(base_?)?model(_?name)?(_or_path)?|_name_or_path|(base_?)?model_?(id|path)|pretrained|checkpoint"
DATASETS = r"(train_?)?(data(set)?|corpus)(_?(name|path|file|id))?|train_?file"
HYPERPARAMETERS: Mapping[str, str] = {
    "learning_rate": r"(.*[._])?(lr|learning_?rate)",
    "steps": r"(max_|num_|train_)?steps",
    "epochs": r"(num_)?(train_)?epochs",
    "batch_size": r"(train_|global_|effective_|total_)?batch_?size|bs",
    "max_length": r"(max_)?(seq_?)?(length|len)|max_seq_length|cutoff_len",
    "beta": r"(dpo_|kto_)?beta",
    "lora_rank": r"lora_?(r|rank)|(peft_)?rank|r",
    "lora_alpha": r"lora_?alpha",
    "density": r"density",
    "weight": r"(merge_?)?weight|alpha|ratio",
}
"""Our usual hyperparameters -> how others call theirs."""
SCORES = re.compile(
    r"acc|f1|exact|(^|[^a-z])em($|[^a-z])|pass|rouge|bleu|win|score|reward_acc|auc|precision|recall|correct|match", re.I
)
LOSSES = re.compile(r"loss|perplexity|ppl|error|wer$", re.I)
MOST_VALUES = 12
"""Values of an action or dataset param that are listed for translation."""


def mapping_of(records: Sequence[RunRecord], logged: bool) -> str:
    """The ready-made mapping that fits; `logged`: whether the experiment holds logged models."""
    if any(schema.SCHEMA_TAG in r.tags for r in records):
        return "lamdagent"
    if any(trainer_of(r.params) for r in records):
        return "trl"
    return "transformers" if logged else "params"


def suggest(experiment: str, records: Sequence[RunRecord], logged: bool, config: Config) -> dict[str, Any]:
    """A source's settings to paste under `memory.sources`; what has to be filled in by a person says so."""
    mapping = mapping_of(records, logged)
    found: dict[str, Any] = {"mapping": mapping, "experiments": [experiment]}
    if mapping == "lamdagent":
        return found
    values = _values(records)
    if mapping != "trl":
        for key, pattern in (("action", ACTIONS), ("model", MODELS), ("dataset", DATASETS)):
            if path := _first(values, pattern):
                found[key] = path
        found["hyperparameters"] = dict(_hyperparameters(values, config))
    tables = (("action", "actions"), ("dataset", "dataset_names"), ("model", "model_names"))
    ours: dict[str, Mapping[str, Any]] = {"action": config.actions, "dataset": config.datasets, "model": config.models}
    places = {"model": "params._name_or_path"} | found if mapping == "trl" else found
    for key, table in tables:
        seen = list(values.get(places.get(key, ""), ()))[:MOST_VALUES]
        found[table] = {value: _closest(value, ours[key]) for value in seen if value not in ours[key]}
    found["scores"] = _scores(records, list(config.tasks))
    return {key: value for key, value in found.items() if value}


def _values(records: Sequence[RunRecord]) -> dict[str, Counter[str]]:
    """Place -> its values, cleaned, the most frequent first."""
    seen: dict[str, Counter[str]] = {}
    for record in records:
        places = {f"params.{k}": v for k, v in record.params.items()}
        places |= {f"tags.{k}": v for k, v in record.tags.items() if not k.startswith("mlflow.")}
        for path, value in places.items():
            seen.setdefault(path, Counter())[one_line(value, 80)] += 1
    return {path: Counter(dict(count.most_common())) for path, count in seen.items()}


def _first(values: Mapping[str, Any], pattern: str) -> str:
    """The place whose name fits, a param before a tag."""
    fitting = (path for path in sorted(values) if re.fullmatch(pattern, path.partition(".")[2], re.I))
    return next(fitting, "")


def _hyperparameters(values: Mapping[str, Any], config: Config) -> Iterator[tuple[str, str]]:
    wanted = {key for action in config.actions.values() for key in action.hyperparameters} or set(HYPERPARAMETERS)
    for key in sorted(wanted):
        path = _first(values, HYPERPARAMETERS.get(key, re.escape(key)))
        if path and path != f"params.{key}":
            yield key, path


def _closest(value: str, ours: Mapping[str, Any]) -> str:
    """The name of ours that is most like theirs; a gap to fill in when none is."""
    likeness = {name: SequenceMatcher(None, value.lower(), name.lower()).ratio() for name in ours}
    best = max(likeness, key=lambda name: likeness[name], default="")
    contained = [name for name in ours if value and (value.lower() in name.lower() or name.lower() in value.lower())]
    return contained[0] if contained else best if likeness.get(best, 0.0) >= 0.6 else "FILL IN"


def _scores(records: Sequence[RunRecord], tasks: Sequence[str]) -> dict[str, Any]:
    """Task -> metric with its likely range: the most alike by name, else in the order of how often they are there."""
    seen: dict[str, list[float]] = {}
    for record in records:
        for key, value in record.metrics.items():
            if math.isfinite(value) and (SCORES.search(key) or LOSSES.search(key)) and not _error(key):
                seen.setdefault(key, []).append(value)
    ranked = sorted(seen, key=lambda k: (bool(LOSSES.search(k)), "train" in k, -len(seen[k]), k))
    if not tasks:
        return {f"TASK_{i}": _score(key, seen[key]) for i, key in enumerate(ranked[:3], 1)}
    scores = {}
    for task in tasks:
        likely = [k for k in ranked if task.lower() in k.lower()] or [k for k in ranked if not LOSSES.search(k)]
        if likely:
            scores[task] = _score(likely[0], seen[likely[0]])
            ranked.remove(likely[0])
    return scores


def _score(key: str, values: Sequence[float]) -> dict[str, Any]:
    least, most = min(values), max(values)
    high = next((top for top in (1.0, 10.0, 100.0) if most <= top), float(math.ceil(most)))
    low = 0.0 if least >= 0 else float(math.floor(least))
    found: dict[str, Any] = {"metric": key, "low": low, "high": high}
    return found | ({"higher_is_better": False} if LOSSES.search(key) else {})


def _error(key: str) -> bool:
    """Whether the metric is another one's standard error."""
    return bool(re.search(r"(std_?err|stderr|_se|_std)$", key, re.I))
