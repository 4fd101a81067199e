"""The only room that imports MLflow: what is written, how it is read, who wrote it."""
