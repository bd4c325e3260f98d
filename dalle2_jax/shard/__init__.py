"""The device mesh and the rules that lay arrays over it."""
