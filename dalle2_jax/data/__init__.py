"""Tokens, tar shards, pictures, batches, and a generated data set."""
