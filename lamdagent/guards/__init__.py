"""Checks before any compute."""
