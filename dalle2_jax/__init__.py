"""unCLIP (DALL·E 2) in JAX: train, sample, judge and move its models."""

__version__ = "0.1.0"
