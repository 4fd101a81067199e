"""The data of the paper's experiments: the three skills of the first, and what keeps a model general in the second."""
