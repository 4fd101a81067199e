"""Writes that survive an outage of the store: the queue, its outbox, the steps of a delivery."""
