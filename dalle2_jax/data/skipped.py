"""What is left out of the data, by reason, and when there is too much of it."""

import json
import logging
import threading

from dalle2_jax.data.sample_members import parsed
from dalle2_jax.data.store_faults import shown
from dalle2_jax.errors import BadInput

LEAST_BAD = 10  # so many broken samples are borne whatever their share


class Skipped:
    """Counts, names and logs samples that are left out; stops a run that has too many.

    Args:
        bad: the share of all samples that is borne.
        path: a file of JSON lines {"shard", "key", "reason"}, or None. Appended to;
            what it holds from before an interruption is not written twice.
    """

    def __init__(self, bad, path=None):
        self.bad, self.path = bad, path
        self.names, self.tried, self.lock = {}, 0, threading.Lock()
        self._written = _lines_of(path)
        self._shards, self._broken, self._told = set(), set(), set()

    def good(self, count):
        """Notes samples that are well."""
        with self.lock:
            self.tried += count

    def broken(self, shard, key, reason):
        """Notes a sample that cannot be decoded, once.

        Raises:
            BadInput: there are too many of them.
        """
        shard = shown(shard)
        with self.lock:
            if (shard, key) in self._broken:
                return
            self._broken.add((shard, key))
            self.tried += 1
            self.names.setdefault(reason, []).append(f"{shard}: {key}")
            self._write([(shard, key, reason)])
            count, tried = sum(map(len, self.names.values())), self.tried
        if self._too_many(count, tried):
            raise BadInput(
                f"{count} of {tried} pictures cannot be decoded; {self.worst()}. "
                "Mend the shards or raise data.bad, the share that is borne."
            )

    def _shard(self, name, index):
        """Logs, once, what the index of a shard leaves out, and what it notes."""
        with self.lock:
            if name in self._shards:
                return
            self._shards.add(name)
            reasons = [*index.problems.items(), *index.notes.items()]
            pairs = [(r, key) for r, keys in reasons for key in keys]
            self._write([(name, key, reason) for reason, key in pairs])

    def shards(self, shards, indices):
        """Notes what the indices of some shards leave out.

        Raises:
            BadInput: it is too large a share.
        """
        found = {}
        for name, index in zip(map(shown, shards), indices):
            self._shard(name, index)
            for reason, keys in index.problems.items():
                found.setdefault(reason, []).extend((name, key) for key in keys)
        self._warn(shards, indices)
        count = sum(map(len, found.values()))
        total = count + sum(len(index.keys) for index in indices)
        if self._too_many(count, total):
            reason = max(found, key=lambda r: len(found[r]))
            first = ": ".join(filter(None, found[reason][0]))
            raise BadInput(
                f"{count} of {total} samples cannot be used, most of them for "
                f"'{reason}', first {first}; mend the shards or raise data.bad, the "
                "share that is borne."
            )

    def _warn(self, shards, indices):
        """Says once for each kind which shards are not whole, which texts not UTF-8."""
        found = {}
        for name, index in zip(map(shown, shards), indices):
            for reason, keys in index.notes.items():
                places = [f"{name}: {key}" for key in keys]
                found.setdefault(f"captions: {reason}", []).extend(places)
            for reason, keys in index.problems.items():
                if "" in keys:  # the shard itself
                    found.setdefault(f"shards: {reason}", []).append(name)
        for reason in found.keys() - self._told:
            self._told.add(reason)
            places = found[reason]
            logging.getLogger(__name__).warning(
                "%d %s, first %s", len(places), reason, places[0]
            )

    def worst(self):
        """The first sample that could not be decoded, and why."""
        reason, names = next(iter(self.names.items()), ("no reason", ["nowhere"]))
        return f"the first is {names[0]}, which {reason.rstrip('.')}"

    def _too_many(self, count, total):
        return count >= LEAST_BAD and count > self.bad * total

    def _write(self, found):
        new = [line for line in found if line not in self._written]
        if self.path is None or not new:
            return
        self._written.update(new)
        text = "".join(
            json.dumps(dict(zip(("shard", "key", "reason"), line))) + "\n"
            for line in new
        )
        with open(self.path, "a", encoding="utf-8") as out:
            out.write(text)


def _lines_of(path):
    """The (shard, key, reason) of each whole line of a file that may not be there."""
    if path is None or not path.is_file():
        return set()
    fields = map(parsed, path.read_bytes().split(b"\n"))
    return {tuple(line.values()) for line in fields if line}
