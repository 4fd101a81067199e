"""Pipelines made again at another scale: replay, the ladder, transfer."""
