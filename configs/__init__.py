"""One file per run: a column of the paper's Table 3, and small variants of it."""
