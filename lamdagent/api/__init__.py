"""Functions that `import lamdagent` offers: every ability of the command line, with values and exceptions."""
