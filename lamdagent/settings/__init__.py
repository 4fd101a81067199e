"""What the configuration may hold, and how a composed YAML node becomes typed values."""
