"""Prompt files, filled in: `prompts/<name>.md`, versioned by their content."""

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from string import Template

from lamdagent.llm.types import Message
from lamdagent.text import as_data


@dataclass(frozen=True)
class LLMSettings:
    """Settings of the agent LLM's prompts: what it is told and how much of it."""

    exploration: bool = True
    """The directive against repeating one action (paper: without it, mode collapse)."""
    debias: bool = True
    """The directive against preferring initial models for their names."""
    corrections: int = 2
    """How often an unusable answer is sent back, per call."""
    max_options: int = 40
    """Longest numbered list; the number left out is said."""
    prompt_tokens: int = 8_000
    """Longest prompt; a longer one shows fewer options and less memory."""
    memory_chars: int = 24_000
    """Most of the memory text that is shown."""
    description_chars: int = 200
    """Most of a name or description that is shown."""
    reflection: bool = True
    """Whether the LLM rewrites its notes after each trial (paper, step 4)."""
    reflection_chars: int = 1_500
    """Longest notes."""
    goal: str = ""
    """Description of the score, one line a task."""


def goal_part(settings: LLMSettings) -> str:
    """The goal's section, or nothing."""
    return (
        f"## Goal: a high score on these tasks\n{as_data(settings.goal, settings.memory_chars)}\n"
        if settings.goal
        else ""
    )


def chat(name: str, **fields: str) -> list[Message]:
    """The system prompt and the prompt `name` with its fields filled in."""
    return [
        {"role": "system", "content": prompt("system").strip()},
        {"role": "user", "content": filled(name, **fields)},
    ]


def filled(name: str, **fields: str) -> str:
    """The prompt `name` with its fields filled in; fields are not searched for further fields."""
    return re.sub(r"\n{3,}", "\n\n", Template(prompt(name)).substitute(fields)).strip()


@cache
def prompt(name: str) -> str:
    """The text of `prompts/<name>.md`."""
    return (files("lamdagent.llm") / "prompts" / f"{name}.md").read_text(encoding="utf-8")


@cache
def prompt_version() -> str:
    """Digest of all prompt files, 16 hex digits."""
    digest = hashlib.sha256()
    folder = files("lamdagent.llm") / "prompts"
    for file in sorted(folder.iterdir(), key=lambda f: f.name):
        digest.update(f"{file.name}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]
