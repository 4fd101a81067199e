"""MLflow plugins of LaMDAgent. Import-light: a tracking-server host needs only MLflow for them, no torch."""
