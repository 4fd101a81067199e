"""From a typed configuration to a checked plan."""
