"""The paper's ablation: uniform over action types, then over objects. Always worth a comparison."""

import random

from lamdagent.selection.policy import Decision, Turn


class RandomPolicy:
    """Draws depend on (seed, number of the turn) alone, so a restarted search goes on as if nothing had happened."""

    def __call__(self, turn: Turn) -> Decision | None:
        """A uniform type among those with something left, then a uniform action of it."""
        rng = random.Random(f"random:{turn.seed}:{turn.number}")
        types = turn.space.available()
        while types:
            chosen = rng.choice(types)
            action = turn.space.sample(chosen, rng)
            if action is not None:
                return Decision(action, "random", f"drawn at random among {len(types)} action types")
            types.remove(chosen)
        return None
