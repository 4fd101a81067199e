"""A policy: action types take turns."""

from collections import deque

from lamdagent.selection.policy import Decision, Turn


class Alternating:
    """Takes the action types in turn, and of each an action that the seed picks."""

    def __init__(self, stride: int = 1) -> None:
        self._stride = stride

    def __call__(self, turn: Turn) -> Decision | None:
        kinds = deque(turn.space.types)
        kinds.rotate(-turn.number * self._stride)
        for kind in kinds:
            if actions := list(turn.space.actions(kind)):
                action = actions[(turn.seed + turn.number) % len(actions)]
                return Decision(action, "alternating", f"it is {kind.name}'s turn")
        return None
