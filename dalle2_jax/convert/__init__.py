"""Weights of others, both ways."""
