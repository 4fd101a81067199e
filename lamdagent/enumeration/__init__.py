"""Step 1: every legal action over the pool, lazily."""
