"""Every error that this package raises on purpose.

```text
LamdagentError
├── UserError          the user's input is wrong: one clear message, exit code 2, no traceback
│   └── ConfigError    the composed configuration is wrong: all faults at once
├── IllegalAction      an action that the space does not offer (a policy's mistake, never fatal)
├── LLMUnavailable     the agent LLM gave no reply within its bounds (never fatal: the fallback policy decides)
├── ActionFailed       the action ran and gave no usable model: recorded as a FAILED run, the search goes on
├── NotRebuilt         deleted weights could not be made again as they were: nothing was put back
├── NotReplayed        a step of the pipeline to be made again failed: what was made before it stays
└── SearchStopped      the surroundings fail every action: a person has to mend them, then the search goes on
```
"""

from collections.abc import Sequence


class LamdagentError(Exception):
    """Base of all errors raised on purpose."""


class UserError(LamdagentError):
    """Bad input: the message says what was wrong, what was given, what is allowed, what to do."""


class ConfigError(UserError):
    """All faults of a configuration, so that they are mended in one round."""

    def __init__(self, faults: Sequence[str]) -> None:
        """Keep `faults` (at least one) and print them as a numbered list."""
        self.faults = tuple(faults)
        head = "1 fault in the configuration" if len(faults) == 1 else f"{len(faults)} faults in the configuration"
        super().__init__(head + ":\n" + "\n".join(f"  {i}. {fault}" for i, fault in enumerate(faults, 1)))


class IllegalAction(LamdagentError):
    """The objects do not fit the slots of the action type; the message says what is allowed."""


class LLMUnavailable(LamdagentError):
    """No reply within the bounds of time, retries and money; the message holds no secrets."""


class ActionFailed(LamdagentError):
    """The action or its evaluation failed for a reason that a person understands."""

    def __init__(self, reason: str, kind: str = "error") -> None:
        """`kind` is a short stable word.

        Of the action: out_of_memory, nan_loss, bad_data, bad_model, mismatch, no_gpu, timeout, error. Of its
        surroundings: no_space, lost_worker, interrupted, orphan (its process is gone), budget (it ran out).
        """
        self.reason = reason
        self.kind = kind
        super().__init__(reason)


class NotRebuilt(LamdagentError):
    """A rebuild that failed or gave another model; the message says how, and nothing was put back."""


class NotReplayed(LamdagentError):
    """A pipeline could not be made again; the message names the step. What was made stays, and is not made twice."""


class SearchStopped(LamdagentError):
    """No action can work now: failures in a row or a full disk; the message says what to mend. Nothing is lost."""
