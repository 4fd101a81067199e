"""One action in several processes."""
