"""A mapping of the user's: `memory.sources.<name>.mapping: module:function`."""

from collections.abc import Callable

from lamdagent.functions import load_function
from lamdagent.text import one_line
from lamdagent.tracking.runs import RunRecord

Translate = Callable[[RunRecord], RunRecord | str]
"""A run as the settings of the source read it, or why it is left out."""


def translation(mapping: str) -> Translate:
    """Translation of a run before the mapping's settings are applied: the user's function, else one that does nothing.

    Raises:
        UserError: the function cannot be imported.
    """
    if ":" not in mapping:
        return lambda record: record
    function = load_function(mapping, "memory.sources: mapping")

    def translate(record: RunRecord) -> RunRecord | str:
        try:
            told = function(record)
        except Exception as error:  # one odd run among thousands is no reason to stop a search
            return f"{mapping} failed: {type(error).__name__}: {one_line(error, 120)}"
        if told is None:
            return f"{mapping} leaves it out"
        if not isinstance(told, RunRecord) or told.run_id != record.run_id:
            return f"{mapping} returned a {type(told).__name__}, wanted the same run as a RunRecord, or None"
        return told

    return translate
