"""Searches on paper: a table of really executed actions, and policies replayed on it without training."""
