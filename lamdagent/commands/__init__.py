"""What `python -m lamdagent` can do, one file for each command."""
