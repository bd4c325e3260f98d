"""State, step, loop and checkpoints of every stage."""
