"""What a compiled program sends: its collectives, read from the compiler's text.

A loop's body counts as often as it runs. The TPU compiler cuts one collective into
pieces that it spreads over several fusions; they share a channel and count once. Its
fusions named all-reduce-scatter hold an all-reduce of which each device keeps a part:
they are reduce-scatters, and are counted so.
"""

import collections
import math
import re
from typing import NamedTuple

BYTES = {"pred": 1, "bf16": 2, "c64": 8, "c128": 16}  # others end in their bits
KINDS = (
    "all-gather",
    "reduce-scatter",
    "all-reduce",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)
SCATTER = "all-reduce-scatter"
OPENS = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{$")
COLLECTIVE = re.compile(rf"= (.+?) ({'|'.join(KINDS)})(-start)?\(")
SHAPE = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\]")
CALLS = re.compile(
    r"\b(?:calls|to_apply|body|condition|true_computation|false_computation|"
    r"branch_computations|called_computations)=(\{[^}]*\}|%?[\w.-]+)"
)
MESH_GROUP = re.compile(r"replica_groups=mesh\[([^\]]*)\](?:\([^)]*\))? *\{([^}]*)\}")


class Collective(NamedTuple):
    """One collective of a program.

    kind: of KINDS; bytes: that a device receives, each time; times: per step; shapes:
    of the result, as written ("bf16[64,256]"); group: devices that take part; name:
    the operation it was made for, as jax calls it.
    """

    kind: str
    bytes: float
    times: int
    shapes: tuple
    group: int
    name: str


def collectives(text, devices):
    """Every collective of a compiled program.

    Args:
        text: `compiled.as_text()`.
        devices: number of devices of the program.

    Returns:
        List of Collective, the same channel once.
    """
    parts = computations(text)
    times = runs(parts)
    found = {}
    for name, (lines, _) in parts.items():
        for line in lines:
            made = COLLECTIVE.search(line)
            if made and times[name]:
                key = _channel(line) or (name, line)
                one = _collective(line, made, times[name], devices)
                one = _scattered(one) if name.startswith(SCATTER) else one
                found[key] = max(found.get(key, one), one, key=_fullest)
    return list(found.values())


def _channel(line):
    """What pieces of one collective share; those of `shard_map` all have channel 1."""
    channel = re.search(r"channel_id=(\d+)", line)
    return channel and "shard_map" not in line and channel[1]


def computations(text):
    """{name: (its lines, whether it is the entry)} of a module."""
    found, name = {}, None
    for line in text.splitlines():
        opens = OPENS.match(line)
        if opens:
            name = opens[2]
            found[name] = ([], bool(opens[1]))
        elif line.startswith("}"):
            name = None
        elif name:
            found[name][0].append(line)
    return found


def runs(parts):
    """How often each computation runs per step: {name: times}."""
    calls = collections.defaultdict(list)
    for caller, (lines, _) in parts.items():
        for line in lines:
            trips = _trips(line, parts) if " while(" in line else 1
            for names in CALLS.findall(line):
                called = re.findall(r"[\w.-]+", names)
                calls[caller] += [(name, trips) for name in called if name in parts]
    times = dict.fromkeys(parts, 0)
    ready = [(name, 1) for name, (_, entry) in parts.items() if entry]
    while ready:
        name, number = ready.pop()
        times[name] += number
        ready += [(inner, number * trips) for inner, trips in calls[name]]
    return times


def _trips(line, parts):
    """Turns of a while loop: as the compiler says, or its bound by its stride."""
    known = re.search(r'known_trip_count\\?":?=?\{\\?"n\\?":\\?"(\d+)', line)
    if known:
        return int(known[1])
    condition, body = (
        "\n".join(parts[re.search(rf"{name}=%?([\w.-]+)", line)[1]][0])
        for name in ("condition", "body")
    )
    bounds = re.findall(r"constant\((\d+)\)", condition)
    return -(-max(map(int, bounds), default=1) // _stride(condition, body))


def _stride(condition, body):
    """What a loop's counter grows by in each turn; 1 where it cannot be read."""
    index = re.search(r"get-tuple-element\(.*index=(\d+)", condition)
    root = re.search(r"ROOT .* tuple\((.*)\)", body)
    if not index or not root:
        return 1
    counter = re.findall(r"%[\w.-]+", root[1])[int(index[1])]
    added = re.search(rf"{re.escape(counter)} = \S+ add\((%\S+), (%[\w.-]+)\)", body)
    values = [
        re.search(rf"{re.escape(name)} = \S+ constant\((\d+)\)", body)
        for name in (added.groups() if added else ())
    ]
    return next((int(value[1]) for value in values if value), 1)


def _collective(line, made, times, devices):
    written, kind, start = made[1], made[2], made[3]
    group = _group(line, devices)
    shapes = SHAPE.findall(written)
    size = sum(_size(*shape) for shape in shapes)
    if start and kind == "all-gather":  # operand and result
        size *= group / (group + 1)
    if start and kind == "collective-permute":
        size /= 2
    others = (group - 1) / max(group, 1)
    received = {
        "all-reduce": 2 * size * others,
        "reduce-scatter": size * (group - 1),
        "collective-permute": size,
    }.get(kind, size * others)
    name = re.search(r'op_name="([^"]*)"', line)
    shapes = tuple(f"{kind}[{sizes}]" for kind, sizes in shapes)
    return Collective(kind, received, times, shapes, group, name[1] if name else "")


def _scattered(one):
    """What is written as an all-reduce sends twice what its reduce-scatter does."""
    if one.kind != "all-reduce":
        return one
    return one._replace(kind="reduce-scatter", bytes=one.bytes / 2)


def _fullest(one):
    return one.times, one.name


def _size(kind, sizes):
    bits = re.search(r"\d+", kind)
    width = BYTES.get(kind) or int(bits[0]) / 8
    return width * math.prod(int(n) for n in sizes.split(",") if n)


def _group(line, devices):
    """Devices of one replica group, in any of its three notations."""
    mesh = MESH_GROUP.search(line)
    if mesh:
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", mesh[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", mesh[2]))
    iota = re.search(r"replica_groups=\[(?:\d+,)*(\d+)\]<=", line)
    if iota:
        return int(iota[1])
    listed = re.search(r"replica_groups=\{\{([\d, ]*)\}", line)
    return len(listed[1].split(",")) if listed else devices
