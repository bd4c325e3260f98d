"""Which shards a pattern names: tar files, folders of them or of pictures, globs, URLs.

What exists is taken as it is; only then are braces and wild cards looked at.
"""

import glob
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from dalle2_jax.data import stores
from dalle2_jax.data.picture_folder import picture_folders
from dalle2_jax.data.sample_members import is_hidden
from dalle2_jax.data.store_faults import shown
from dalle2_jax.data.stores import is_url
from dalle2_jax.errors import BadInput

NUMBERS = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.(-?\d+))?")
LETTERS = re.compile(r"([A-Za-z])\.\.([A-Za-z])(?:\.\.(-?\d+))?")
MOST_SHARDS = 1_000_000
MOST_GROUPS = 100  # braces in one pattern
PACKED = (".tar.gz", ".tgz", ".tar.zst", ".tar.xz", ".tar.bz2", ".zip")
LOOKED = 10_000  # files of a folder that a message tells of


def expand_braces(pattern: str) -> list[str]:
    """'a{00..02}{x,y}' -> ['a00x', 'a00y', 'a01x', ...], as bash does it.

    Groups may lie in one another; ranges are of numbers or letters, in either direction
    and with a step ('{10..0..5}'). What is no group stays as it is ('{a}').

    Raises:
        BadInput: more than MOST_SHARDS results.
    """
    if pattern.count("{") > MOST_GROUPS:
        raise BadInput(f"{pattern[:80]}... has too many braces; name fewer shards.")
    found = list(islice(_expanded(pattern), MOST_SHARDS + 1))
    if len(found) > MOST_SHARDS:
        raise BadInput(f"{pattern} names more than {MOST_SHARDS} shards.")
    return found


def _expanded(pattern: str) -> Iterator[str]:
    for start, letter in enumerate(pattern):
        choices, end = _choices(pattern, start) if letter == "{" else (None, 0)
        if choices is not None:
            break
    else:
        yield pattern
        return
    for choice in choices:
        for middle in _expanded(choice):
            for rest in _expanded(pattern[end + 1 :]):
                yield pattern[:start] + middle + rest


def _choices(pattern, start):
    """(what the brace that opens at `start` offers, the place of its closing one).

    (None, 0) where it is no group.
    """
    depth, commas = 0, [start]
    for place in range(start, len(pattern)):
        letter = pattern[place]
        depth += (letter == "{") - (letter == "}")
        if letter == "," and depth == 1:
            commas.append(place)
        if depth == 0:
            cuts = [*commas, place]
            if len(commas) == 1:
                return _range(pattern, pattern[start + 1 : place]), place
            return [pattern[a + 1 : b] for a, b in zip(cuts, cuts[1:])], place
    return None, 0


def _range(pattern, text):
    """The members of '01..10..2' or 'a..e', None where it is neither."""
    numbers, letters = NUMBERS.fullmatch(text), LETTERS.fullmatch(text)
    if not numbers and not letters:
        return None
    first, last, step = (numbers or letters).groups()
    low, high = (int(first), int(last)) if numbers else (ord(first), ord(last))
    step = abs(int(step or 1)) or 1
    sign = 1 if high >= low else -1
    found = range(low, high + sign, sign * step)
    if len(found) > MOST_SHARDS:
        raise BadInput(f"{{{text}}} in {pattern} is no usable range.")
    if letters:
        return map(chr, found)
    padded = any(re.fullmatch(r"-?0\d+", end) for end in (first, last))
    width = max(len(first), len(last)) if padded else 0
    return (f"{number:0{width}d}" for number in found)


def expand(paths: str | os.PathLike | Iterable) -> list[str]:
    """Shard paths from a pattern or a list of patterns.

    A pattern is a tar file, a folder of them or of pictures, a glob, or has braces
    ('shards/{00000..00099}.tar'); 'gs://' and other URLs go through fsspec.

    Raises:
        BadInput: a named shard is not there, or nothing matches.
        Failed: a store does not answer.
    """
    patterns = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    shards = [s for pattern in patterns for s in _matches(os.fspath(pattern))]
    if not shards:
        said = ", ".join(map(shown, patterns))
        raise BadInput(
            f"No tar shard matches {said or 'an empty list'}; check the path."
        )
    for shard in shards:
        if shard != shard.encode("utf-8", "replace").decode():
            raise BadInput(f"The name of {ascii(shard)} is no UTF-8; rename it.")
    return list(dict.fromkeys(shards))


def _matches(pattern):
    """The shards that one pattern names, in its own order, else sorted."""
    if is_url(pattern):
        return [s for one in expand_braces(pattern) for s in stores.matches(one)]
    head, tail = _parted(os.path.expanduser(pattern))
    if not tail:
        return _in(head)
    named = expand_braces(tail)
    return [shard for one in named for shard in _local(head, one)]


def _parted(pattern):
    """A pattern as what exists by that very name, and the rest of it."""
    head, tail = pattern, ""
    while head and not os.path.lexists(head):
        above, _, name = head.rstrip("/").rpartition("/")
        tail = f"{name}/{tail}" if tail else name
        head = f"{above}/" if above or head.startswith("/") else ""
    return head, tail


def _local(head, tail):
    """The shards of a folder that exists and a pattern without braces in it."""
    whole = os.path.join(head, tail)
    if os.path.lexists(whole):
        return _in(whole)
    if not any(letter in tail for letter in "*?["):
        raise BadInput(f"There is no shard {whole}; check the data pattern.")
    found = sorted(glob.glob(glob.escape(head) + tail, recursive=True))
    return [shard for path in found for shard in _in(path)]


def _in(path):
    """The shards at a path that exists: itself, or those of a folder.

    Raises:
        BadInput: a folder that holds none; says what it holds and what to do.
    """
    if not os.path.isdir(path):
        return [path]
    try:
        found = _tars_in(path) or picture_folders(path)
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror}).") from error
    if not found:
        raise BadInput(_without_shards(path))
    return found


def is_shards(where: str | os.PathLike) -> bool:
    """Whether a path or pattern names tars, or a folder that itself holds some."""
    where = os.path.expanduser(os.fspath(where))
    if not os.path.isdir(where):
        return ".tar" in os.path.basename(where).lower()
    return bool(_tars_in(where))


def _tars_in(folder):
    """The tars of a folder, sorted."""
    return [
        str(file)
        for file in sorted(Path(folder).iterdir())
        if file.suffix.lower() == ".tar" and not is_hidden(file.name)
        if not file.is_dir()
    ]


def _without_shards(folder):
    """One sentence on a folder with neither tars nor pictures, and what to do."""
    names = [
        os.path.join(place, name)
        for place, _, files in islice(os.walk(folder), LOOKED)
        for name in files
        if not is_hidden(name)
    ]
    packed = [n for n in names if n.lower().endswith(PACKED)]
    deeper = sorted({os.path.dirname(n) for n in names if n.lower().endswith(".tar")})
    if packed:
        return (
            f"{folder} holds {len(packed)} compressed archives ({packed[0]}, ...); "
            "shards are read in place, unpack each to an uncompressed .tar."
        )
    if deeper:
        return f"No tar shard lies in {folder} itself; name {deeper[0]} or its like."
    kinds = Counter(os.path.splitext(n)[1].lower() or "no ending" for n in names)
    there = ", ".join(f"{n} x {kind}" for kind, n in kinds.most_common(5))
    return (
        f"No tar shard matches {folder}, and it holds no pictures (there: "
        f"{there or 'nothing'}); check the path."
    )
