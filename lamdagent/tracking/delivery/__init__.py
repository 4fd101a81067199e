"""Writes that survive an outage of the store: patches, the outbox, their delivery."""
