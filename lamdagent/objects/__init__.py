"""WHAT EXISTS: models, datasets, and the pool that an action picks them from."""
