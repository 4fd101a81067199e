"""Talking to a language model through litellm: prompts, calls, replies, costs."""
