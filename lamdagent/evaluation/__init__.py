"""STEP 3: a model becomes scores on weighted tasks, each with its standard error."""
