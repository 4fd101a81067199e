"""Others' runs of the tracking store, understood as trials."""
