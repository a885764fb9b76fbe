"""Training a network from scratch."""
