"""unCLIP §2: the space that is inverted."""
