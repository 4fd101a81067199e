"""WHAT IS RIGHT: rewards that a program can check, as functions that TRL's trainers call."""
