"""Rejection sampling: a model's own answers, kept where a program accepts them, are data that it is then trained on.

RFT (https://arxiv.org/abs/2308.01825); with one round, STaR without hints (https://arxiv.org/abs/2203.14465). The kept
answers join the pool as a dataset, so that any other model can be trained on them.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from lamdagent.actions.context import Context, Loaded, chosen_rows
from lamdagent.actions.limits import Above, AtLeast
from lamdagent.actions.methods import RFT, SFT
from lamdagent.actions.recipe import Recipe
from lamdagent.actions.sft import OPTIONS
from lamdagent.actions.training import Training
from lamdagent.errors import ActionFailed
from lamdagent.execution.progress import Progress
from lamdagent.objects.gathered import Gathered
from lamdagent.objects.kinds import FOR_TEMPLATES
from lamdagent.rewards.mix import Reward, Term, terms
from lamdagent.rewards.reply import reply as text_of

Row = dict[str, Any]


def rft(
    context: Context,
    *,
    model: str,
    dataset: str,
    reward: Annotated[str, Reward()],
    threshold: float = 1.0,
    prompts: Annotated[int, AtLeast(0)] = 0,
    answers: Annotated[int, AtLeast(1)] = 4,
    most: Annotated[int, AtLeast(1)] = 4,
    completion_length: Annotated[int, AtLeast(1)] = 256,
    temperature: Annotated[float, Above(0.0)] = 1.0,
    answers_at_once: Annotated[int, AtLeast(1)] = 64,
    learning_rate: float = 1e-5,
    steps: int = 200,
    epochs: float = 1.0,
    batch_size: int = 16,
    micro_batch_size: int = 4,
    max_length: int = 1024,
    warmup: float = 0.1,
    lora_rank: int = 0,
    lora_alpha: int = 32,
    lora_layers: int = 0,
) -> Loaded:
    """Answer prompts, keep what is rewarded enough, and learn it by supervised fine-tuning.

    Args:
        context: where to write, and the seed.
        model: folder of the model that answers and then learns.
        dataset: JSONL file with prompts and the columns that the reward reads.
        reward: a weighted sum of functions, see rewards/mix.py.
        threshold: the least reward of an answer that is kept.
        prompts: most prompts that are answered, of the share that `data_fraction` leaves; 0 = all.
        answers: tries at each prompt.
        most: kept answers to each prompt, the first of those that differ.
        completion_length: tokens of the longest answer.
        temperature: of sampling, above 0.
        answers_at_once: in memory while sampling; other numbers draw other answers.
        learning_rate: see `Recipe`, as for what is not listed here.
        steps: see `Recipe`.
        epochs: see `Recipe`; passes over the kept answers.
        batch_size: see `Recipe`.
        micro_batch_size: see `Recipe`.
        max_length: see `Recipe`.
        warmup: see `Recipe`.
        lora_rank: see `Recipe`.
        lora_alpha: see `Recipe`.
        lora_layers: see `Recipe`.

    Raises:
        ActionFailed: no answer was accepted (`no_answer`), a column is missing, or the training fails.
    """
    recipe = Recipe.among(locals())
    drawn = Sampling(
        model,
        dataset,
        terms(reward),
        threshold,
        prompts,
        answers,
        most,
        completion_length,
        temperature,
        answers_at_once,
    )
    learning, kept = context.gather(drawn)
    return learning.perform(Training(SFT, model, kept, recipe, OPTIONS))


@dataclass(frozen=True)
class Sampling:
    """The drawing and choosing of answers; fields as in `rft`."""

    model: str
    dataset: str
    rewards: tuple[Term, ...]
    threshold: float
    prompts: int
    answers: int
    most: int
    length: int
    temperature: float
    at_once: int

    def run(self, context: Context) -> Gathered:
        """Draw answers batch by batch; seeded, so that equal machines draw equal ones.

        Raises:
            ActionFailed: as `rft` says.
        """
        import transformers

        rows = chosen_rows(self.dataset, context.data_fraction)[: self.prompts or None]
        self._check_columns(rows)
        model, tokenizer = context.load(self.model)
        transformers.set_seed(context.seed)
        answerer = _Answerer(model, tokenizer, self)
        found: list[Row] = []
        best, drawn, accepted = -math.inf, 0, 0
        for some in _batches(rows, max(1, self.at_once // self.answers)):
            asked = [row for row in some for _ in range(self.answers)]
            said = answerer(some)
            rewarded = list(zip(asked, said, self._rewards(asked, said), strict=True))
            best = max([best, *(value for _, _, value in rewarded)])
            found += self._kept(rewarded)
            drawn += len(rewarded)
            accepted += sum(value >= self.threshold for _, _, value in rewarded)
            done = min(len(rows), drawn // self.answers)
            context.report(Progress("sample", done, len(rows), {"sample.accepted": accepted / drawn}))
        if not found:
            reason = f"None of {drawn} answers to {len(rows)} prompts was accepted: the best was worth {best:g}, wanted"
            advice = "more answers, a lower threshold or a model that gets some right may help"
            raise ActionFailed(f"{reason} at least {self.threshold:g}; {advice}.", kind="no_answer")
        told = f"{len(found)} of {drawn} answers that a model gave to {len(rows)} prompts, accepted by a program"
        return Gathered(SFT.kind, found, told)

    def _check_columns(self, rows: Sequence[Row]) -> None:
        wanted = (*RFT.columns, *(column for term in self.rewards for column in sorted(term.columns)))
        if missing := [column for column in wanted if column not in rows[0]]:
            reason = f"{self.dataset} has no column {', '.join(missing)}, which rejection sampling needs"
            raise ActionFailed(f"{reason}; it has {', '.join(rows[0])}", kind="bad_data")

    def _rewards(self, asked: Sequence[Row], said: Sequence[Any]) -> list[float]:
        """The weighted sum for each answer; what TRL gives besides the columns is given as far as it exists here."""
        columns = {key: [row.get(key) for row in asked] for key in asked[0] if key != "prompt"}
        given = {"prompts": [row["prompt"] for row in asked], "completions": list(said), **columns}
        ignored = {"completion_ids": None, "trainer_state": None, "log_extra": _ignored, "log_metric": _ignored}
        total = [0.0] * len(asked)
        for term in self.rewards:
            for place, value in enumerate(term.load()(**{**ignored, **given})):
                total[place] += term.weight * (math.nan if value is None else float(value))
        return total

    def _kept(self, rewarded: Sequence[tuple[Row, Any, float]]) -> Iterator[Row]:
        """Rows to train on: accepted answers that say something, each once, at most so many of a prompt."""
        seen: dict[int, list[Any]] = {}
        for row, said, value in rewarded:
            before = seen.setdefault(id(row), [])
            if value >= self.threshold and text_of(said) and said not in before and len(before) < self.most:
                before.append(said)
                further = {key: row[key] for key in FOR_TEMPLATES if key in row}
                yield {"prompt": row["prompt"], "completion": said, "reward": value, **further}


class _Answerer:
    """Draws answers with transformers' own generation, in the form of the prompts: text or messages."""

    def __init__(self, model: Any, tokenizer: Any, sampling: Sampling) -> None:
        import torch

        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model = model.to(self._device).eval()
        self._tokenizer = tokenizer
        tokenizer.padding_side = "left"
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        self._settings = {
            "do_sample": True,
            "temperature": sampling.temperature,
            "top_k": 0,  # the model's own distribution, whatever its generation_config.json says
            "top_p": 1.0,
            "max_new_tokens": sampling.length,
            "num_return_sequences": sampling.answers,
            "pad_token_id": tokenizer.pad_token_id,
        }

    def __call__(self, rows: Sequence[Row]) -> list[Any]:
        """All answers to the first row, then those to the next one."""
        import torch

        talks = isinstance(rows[0]["prompt"], list)
        texts = [self._asked(row) for row in rows]
        batch = self._tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=not talks)
        batch = {key: batch[key].to(self._device) for key in ("input_ids", "attention_mask")}
        with torch.no_grad():
            out = self._model.generate(**batch, **self._settings)
        said = self._tokenizer.batch_decode(out[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        return [[{"role": "assistant", "content": text.strip()}] if talks else text for text in said]

    def _asked(self, row: Row) -> str:
        if isinstance(row["prompt"], str):
            return row["prompt"]
        more = row.get("chat_template_kwargs") or {}
        text = self._tokenizer.apply_chat_template(
            row["prompt"], tools=row.get("tools"), tokenize=False, add_generation_prompt=True, **more
        )
        return str(text)


def _batches(rows: Sequence[Row], size: int) -> Iterator[Sequence[Row]]:
    return (rows[start : start + size] for start in range(0, len(rows), size))


def _ignored(*_: Any) -> None:
    """In the place of TRL's own logging."""
