"""Schema of the configuration, and the reading of a composed YAML node into typed values."""
