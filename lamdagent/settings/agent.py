"""Settings of the agent, which chooses the actions."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge

from lamdagent.settings.section import AtLeast0, NotNegative, Positive, Section


@dataclass(frozen=True)
class AgentConfig(Section):
    """The agent, which chooses the actions."""

    kind: str = "auto"
    """A policy by name (selection/registry.py) or `module:Name` of one of yours; auto = hybrid when `model` is set,
    else surrogate."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of a policy of yours."""
    model: str | None = None
    """LLM in litellm's form, such as openai/gpt-4o or ollama_chat/qwen3:4b."""
    api_base: str | None = None
    """Endpoint of a local or proxied LLM."""
    api_key_env: str | None = None
    """Environment variable that holds the key; null = the provider's usual one. No setting holds the key itself."""
    structured: Literal["auto", "on", "off"] = "auto"
    """Whether a JSON schema goes with the request; auto = where litellm says that the model takes one."""
    temperature: NotNegative = 0.0
    """Temperature of the LLM's sampling; 0 = its likeliest words."""
    timeout_s: Positive = 60.0
    """One request."""
    retries: AtLeast0 = 4
    """Per request, with exponential back-off, on timeouts, rate limits and outages."""
    corrections: AtLeast0 = 2
    """How often a reply that does not parse or is not legal is answered with what was wrong."""
    exploration: bool = True
    """The paper's exploration directive in the prompts."""
    debias: bool = True
    """The paper's directive against preferring models by their names."""
    reflection: bool = True
    """The paper's memory update by the LLM after each trial."""
    max_options: Annotated[int, Ge(2)] = 40
    """Most options shown per slot."""
    prompt_tokens: Annotated[int, Ge(500)] = 8000
    """Longest prompt; a longer one shows fewer options and less memory."""
    max_tokens: Annotated[int, Ge(16)] = 2000
    """Longest reply, reasoning included."""
    input_usd_per_million: NotNegative | None = None
    """Price of a million prompt tokens, for models that litellm has no price of; budget.usd needs it there."""
    output_usd_per_million: NotNegative | None = None
    """The same for reply tokens."""
