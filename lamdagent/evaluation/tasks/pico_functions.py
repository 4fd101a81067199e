"""Items of the smoke tasks: which of two answers is likelier? Words that the training rows do not have."""

from typing import Any

SEARCH = ("window", "yellow", "marble", "pocket", "silver", "tunnel", "rocket", "basket", "candle", "button")
TEST = ("planet", "winter", "copper", "violin", "mirror", "saddle", "pepper", "anchor", "velvet", "puzzle")


def repeat(**_: Any) -> Any:
    """`Repeat the word x.`: the word itself against the word spelt."""
    return _splits("Repeat", 0)


def spell(**_: Any) -> Any:
    """`Spell the word x.`: the word spelt against the word itself."""
    return _splits("Spell", 1)


def _splits(verb: str, right: int) -> Any:
    from datasets import Dataset, DatasetDict

    return DatasetDict(
        {
            split: Dataset.from_list(
                [{"prompt": f"{verb} the word {w}.", "choices": [w, " ".join(w)], "label": right} for w in words]
            )
            for split, words in (("search", SEARCH), ("test", TEST))
        }
    )
