"""What `import lamdagent` offers: every ability of the command line as a function with values and exceptions."""
