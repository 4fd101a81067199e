"""Jobs that run where the heavy libraries live: a model is made, scored, prepared, registered."""
