"""Deleted weights made again from the store alone, and put back once proven equal."""
