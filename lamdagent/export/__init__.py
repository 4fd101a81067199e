"""A pipeline as plain TRL and mergekit scripts that run without this package."""
