"""Live model and tokenizer -> scores, by EleutherAI's lm-eval in process (https://github.com/EleutherAI/lm-evaluation-harness)."""

import copy
import json
import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from lamdagent.errors import ActionFailed, UserError
from lamdagent.evaluation.fingerprint import task_folder
from lamdagent.evaluation.prefix import read_prefix
from lamdagent.evaluation.staged_decoding import can_stage, in_stages
from lamdagent.evaluation.task import Score, Split, Task
from lamdagent.execution.progress import Progress, Report

SEED = 1234
"""For everything random in an evaluation: equal weights get equal scores."""
PLAIN = {"attention_mask", "do_sample", "temperature"}
"""Arguments of a plain greedy generation; a task that gives others wants more than our stages do."""


def evaluate(
    model: Any,
    tokenizer: Any,
    tasks: Sequence[Task],
    split: Split,
    report: Report,
    samples: Path | None = None,
    batch_size: int = 32,
) -> dict[str, Score]:
    """Score a loaded model on every task, on the task's own scale, and leave model and tokenizer as they were.

    The chat template is applied where the tokenizer has one. With `samples`, a file `<task>.jsonl` is written into
    that folder: one line per item with its id, prompt, reply, score and reason.

    Raises:
        ActionFailed: kind `bad_model`: the model yields no numbers or no text, or a score is not a number.
        UserError: lm-eval has no such task, metric or split.
    """
    scores: dict[str, Score] = {}
    training = model.training
    model.eval()
    try:
        for task in tasks:
            scores[task.name] = scored(run_task(model, tokenizer, task, split, report, batch_size), task, samples)
    finally:
        model.train(training)
    return scores


def scored(results: Any, task: Task, samples: Path | None) -> Score:
    """The score in what lm-eval gave for one task; its items go to `samples`.

    Raises:
        ActionFailed, UserError: as `evaluate` says.
    """
    found = [sample for rows in results["samples"].values() for sample in rows]
    if samples:
        _write(samples / f"{task.name}.jsonl", found, task)
    return _score(results["results"][task.task], found, task)


def run_task(model: Any, tokenizer: Any, task: Task, split: Split, report: Report, batch_size: int = 32) -> Any:
    """All that lm-eval gives for one task (its `results`, `samples`, `n-samples`, ...); the model must be in eval mode.

    Raises:
        ActionFailed: kind `bad_model`: the model yields no numbers.
        UserError: lm-eval has no such task or split.
    """
    with _finite(model), _quiet(), _on_gpu(model):
        lm = _language_model(model, copy.deepcopy(tokenizer), batch_size, partial(_say, report, task))
        return run_with(lm, task, split, chat=bool(getattr(tokenizer, "chat_template", None)))


def run_with(lm: Any, task: Task, split: Split, chat: bool) -> Any:
    """`run_task` on any language model of lm-eval's; `chat`: with the chat template.

    Raises:
        UserError: lm-eval has no such task or split.
    """
    with _quiet():
        return _run(lm, task, split, chat)


def _say(report: Report, task: Task, done: int, total: int) -> None:
    report(Progress(f"evaluate {task.name}", done, total))


def _run(lm: Any, task: Task, split: Split, chat: bool) -> Any:
    from lm_eval.evaluator import evaluate as lm_evaluate
    from transformers import set_seed

    loaded = load_task(task, split)
    for one in loaded["tasks"].values():
        if one.get_config("num_fewshot") is None:
            one.set_config(key="num_fewshot", value=0)
        one.set_fewshot_seed(seed=SEED)
    set_seed(SEED)
    return lm_evaluate(
        lm=lm,
        task_dict=loaded,
        limit=task.limits.get(split),
        bootstrap_iters=1000,
        apply_chat_template=chat,
        fewshot_as_multiturn=chat,
    )


def load_task(task: Task, split: Split) -> Any:
    """The task with its split and options set, under `tasks` and its name; imports no torch.

    A group around it is lm-eval's way to override a named task's YAML.

    Raises:
        UserError: lm-eval has no such task or split.
    """
    from lm_eval.tasks import TaskManager

    folder = task_folder(task)
    manager = TaskManager(include_path=str(folder) if folder else None, include_defaults=folder is None)
    if task.task not in manager.all_tasks:
        where = (
            f"{folder} has {', '.join(manager.all_tasks) or 'none'}" if folder else "lm-eval ships none of that name"
        )
        raise UserError(f"Task {task.name}: there is no lm-eval task {task.task!r}: {where}.")
    if split not in task.splits:
        raise UserError(f"Task {task.name}: `splits` does not say which dataset split is `{split}`.")
    wanted = task.splits[split]
    changed = {"task": task.task, **({"test_split": wanted} if wanted else {}), **task.options}
    try:
        return manager.load([{"group": "lamdagent", "task": [changed]}])
    except KeyError as error:
        if error.args != (wanted,):
            raise
        raise UserError(
            f"Task {task.name}: `{split}` is to be the split {wanted!r}, which its dataset lacks."
        ) from None


def _score(result: dict[str, Any], samples: Sequence[dict[str, Any]], task: Task) -> Score:
    if samples and not any(text for sample in samples for text in _replies(sample)):
        raise ActionFailed(
            f"The model gave an empty reply to all {len(samples)} items of {task.name}.", kind="bad_model"
        )
    if task.metric not in result:
        have = ", ".join(key for key in result if "," in key and "_stderr," not in key)
        raise UserError(f"Task {task.name}: {task.task} has no metric {task.metric!r}; it has: {have}.")
    name, _, filtered = task.metric.partition(",")
    value, error = result[task.metric], result.get(f"{name}_stderr,{filtered}", 0.0)
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise ActionFailed(f"The score of {task.name} is not a number: {value}.", kind="bad_model")
    return Score(float(value), float(error) if isinstance(error, int | float) and math.isfinite(error) else 0.0)


def _replies(sample: dict[str, Any]) -> list[Any]:
    """Replies of the model to an item: texts, and a word in place of log-likelihoods, which are never empty."""
    replies = [reply for copies in sample["resps"] for reply in copies]
    return [reply.strip() if isinstance(reply, str) else "likelihood" for reply in replies]


def _write(path: Path, samples: Sequence[dict[str, Any]], task: Task) -> None:
    metric, _, filtered = task.metric.partition(",")
    lines = [
        json.dumps(
            {
                "id": sample["doc"].get("id", sample["doc_id"]),
                "prompt": str(sample["arguments"][0][0]),
                "reply": sample["resps"][0][0],
                "target": sample["target"],
                "score": sample.get(metric),
                "reason": sample.get("reason", ""),
            },
            ensure_ascii=False,
            default=str,
        )
        for sample in samples
        if sample["filter"] == (filtered or "none")
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@contextmanager
def _on_gpu(model: Any) -> Iterator[None]:
    """On the GPU if there is one: a merge leaves its model on the CPU, and lm-eval leaves it where it is."""
    import torch

    if model.device.type != "cpu" or not torch.cuda.is_available():
        yield
        return
    model.to("cuda")
    try:
        yield
    finally:
        model.to("cpu")


@contextmanager
def _finite(model: Any) -> Iterator[None]:
    """Stop at the first output that is not a number; the last position is looked at, since that is what is read."""

    def check(module: Any, inputs: Any, output: Any) -> None:
        logits = getattr(output, "logits", None)
        if logits is not None and not bool(logits[:, -1].isfinite().all()):
            raise ActionFailed("The model's output is not a number (NaN or infinite logits).", kind="bad_model")

    handle = model.register_forward_hook(check)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without lm-eval's log lines and progress bars: ours go through `report`."""
    import lm_eval.api.model
    import lm_eval.api.task
    import lm_eval.models.huggingface

    modules: list[Any] = [lm_eval.api.task, lm_eval.api.model, lm_eval.models.huggingface]
    bars = [module.tqdm for module in modules]
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    for module, bar in zip(modules, bars, strict=True):
        module.tqdm = partial(_silent, bar)
    try:
        yield
    finally:
        logger.setLevel(level)
        for module, bar in zip(modules, bars, strict=True):
            module.tqdm = bar


def _silent(bar: Any, *arguments: Any, **keywords: Any) -> Any:
    return bar(*arguments, **{**keywords, "disable": True})


def _ends(model: Any) -> frozenset[int]:
    """The tokens that end a reply."""
    told = model.generation_config.eos_token_id
    return frozenset(told if isinstance(told, list) else [] if told is None else [told])


def _ended(lm: Any, stop: Sequence[str], ends: frozenset[int], reply: Sequence[int]) -> bool:
    """Whether nothing of a reply will be read behind what it has; lm-eval cuts it at the first stop."""
    if not ends.isdisjoint(reply):
        return True
    text = lm.tok_decode(reply)
    return any(word in text for word in stop)


def _language_model(model: Any, tokenizer: Any, batch_size: int, say: Any) -> Any:
    """lm-eval's wrapper of transformers models, which says how far it is and reads what prompts share only once."""
    from lm_eval.models.huggingface import HFLM

    class Reporting(HFLM):  # type: ignore[misc]
        done = total = 0

        def _loglikelihood_tokens(self, requests: Any, **keywords: Any) -> Any:
            say(0, len(requests))
            values = super()._loglikelihood_tokens(requests, **keywords)
            say(len(requests), len(requests))
            return values

        def generate_until(self, requests: Any, disable_tqdm: bool = False) -> Any:
            self.done, self.total = 0, len(requests)
            say(self.done, self.total)
            return super().generate_until(requests, disable_tqdm=True)

        def _model_generate(self, context: Any, max_length: int, stop: Any, **keywords: Any) -> Any:
            generate = partial(super()._model_generate, stop=stop)
            if can_stage(model) and keywords.keys() <= PLAIN and not keywords.get("do_sample"):
                tokens, mask, cache = read_prefix(model, context, keywords.pop("attention_mask"))
                ended = partial(_ended, self, stop, _ends(model))
                padding = self.tokenizer.pad_token_id
                generate = partial(generate, **keywords)
                replies = in_stages(model, tokens, mask, cache, max_length, padding, generate, ended)
            else:
                replies = generate(context, max_length, **keywords)
            self.done += len(context)
            say(self.done, self.total)
            return replies

    return Reporting(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)
