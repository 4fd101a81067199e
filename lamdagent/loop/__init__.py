"""The loop of the paper: enumerate, select, execute and evaluate, remember."""
