"""Tool use: the Berkeley Function Calling Leaderboard as data, prompt, checker and training sets."""
