"""Which weights are kept, deleted, put back or made again."""
