"""LaMDAgent: an agent that finds the best post-training pipeline and keeps its memory in MLflow."""

__version__ = "0.1.0"
