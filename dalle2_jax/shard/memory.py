"""How much memory a compiled program needs, and how much a device has left."""

import os
from pathlib import Path

import jax

SPARE = 0.9  # of what is free may be planned with


def program_bytes(compiled):
    """Bytes that a compiled program needs on one device; donated ones count once."""
    found = compiled.memory_analysis()
    outside = found.argument_size_in_bytes + found.output_size_in_bytes
    return outside - found.alias_size_in_bytes + found.temp_size_in_bytes


def free_bytes(devices):
    """Bytes that each of this process's devices may still take.

    Devices that tell of no memory of their own (CPU) share what the machine has free.
    """
    stats = devices[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return int(SPARE * (stats["bytes_limit"] - stats["bytes_in_use"]))
    return int(SPARE * _host_bytes() / len(devices))


def tree_bytes(tree):
    """Bytes of the arrays or ShapeDtypeStructs in a tree."""
    leaves = jax.tree.leaves(tree)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)


def _host_bytes():
    """Free memory of the machine, with what its file cache would give back."""
    table = Path("/proc/meminfo")
    if table.is_file():
        lines = dict(line.split(":") for line in table.read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
