"""A model and data so small that a whole search takes seconds: for `+experiment=smoke` and tests. It knows nothing."""

from pathlib import Path
from typing import Any

WORDS = (
    "apple",
    "bridge",
    "cloud",
    "dragon",
    "engine",
    "forest",
    "garden",
    "harbor",
    "island",
    "jungle",
    "kettle",
    "ladder",
)
TEXT = (
    "Repeat the word apple. Spell the word bridge. What is the first letter of cloud? The word is dragon. "
    "You are asked to repeat, to spell, or to name a letter. An engine in the forest, a garden by the harbor. "
    "Put the kettle on the ladder. Yes, no, none of them: a b c d e f g h i j k l m n o p q r s t u v w x y z. "
    "0 1 2 3 4 5 6 7 8 9 = ( ) [ ] { } ' \" , . : ; ! ? - _ / A B C D E F G H I J K L M N O P Q R S T U V W X Y Z "
)
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build(folder: Path, dtype: str = "bfloat16", seed: int = 0) -> None:
    """Write an untrained Llama (4 layers, hidden 64) with tokenizer and chat template into `folder`.

    Equal arguments give equal weights; takes about a second once transformers is imported.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from lamdagent.libraries import quiet

    quiet()
    tokenizer = _tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers are not ours to move
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config).to(getattr(torch, dtype))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    wrap: Any = PreTrainedTokenizerFast
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=512, special_tokens=special, initial_alphabet=alphabet, show_progress=False, min_frequency=1
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    return wrap(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def sft_rows(task: str = "repeat") -> list[dict[str, Any]]:
    """Twelve `sft` rows of one task: `repeat` or `spell` a word."""
    separator = {"repeat": "", "spell": " "}[task]
    return [{"prompt": _ask(task, word), "completion": _say(separator.join(word))} for word in WORDS]


def preference_rows() -> list[dict[str, Any]]:
    """Twelve `preference` rows: the asked word against the same in capitals."""
    return [{"prompt": _ask("repeat", w), "chosen": _say(w), "rejected": _say(w.upper())} for w in WORDS]


def prompt_rows() -> list[dict[str, Any]]:
    """Twelve `prompts` rows: a word to repeat, with the right answer in a column for rewards."""
    return [{"prompt": _ask("repeat", word), "answer": word} for word in WORDS]


def _ask(task: str, word: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"{task.capitalize()} the word {word}."}]


def _say(answer: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": answer}]
