"""Records to rows of a batch: decoded here, or by worker processes."""

import os
import queue
import signal
import threading
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from multiprocessing.shared_memory import SharedMemory
from typing import Any, NamedTuple

import numpy as np

from dalle2_jax.data import store_requests
from dalle2_jax.data.images import decode, share_room
from dalle2_jax.errors import BadInput, Failed

SLOTS = 4  # batches in the making at once
MOST_CHUNK = 32  # pictures that a worker takes at a time


class Fault(NamedTuple):
    """A row that could not be filled, and why."""

    row: int
    shard: str
    key: str
    reason: str


class Maker(NamedTuple):
    """Fills the rows of a batch from a source; the same in any process."""

    source: Any
    tokenizer: Any
    size: int  # pixels
    context: int  # tokens

    def fill(self, records, images, tokens):
        """Fills uint8 [n, size, size, 3] and int32 [n, context] from n records.

        Returns:
            Fault of each row whose picture is broken or has no caption or class.
        """
        captions, faults = [], []
        pair = getattr(self.source, "pair", self._pair)
        for row, number in enumerate(records):
            image, caption = pair(number)
            captions.append(caption)
            try:
                self.tokenizer.check(caption)
                images[row] = decode(image, self.size, "")
            except BadInput as error:
                record = self.source[number]
                fault = Fault(row, record.shard, record.key, str(error).strip())
                faults.append(fault)
        tokens[:] = self.tokenizer.encode(captions, self.context)
        return faults

    def _pair(self, number):
        record = self.source[number]
        return record.image, record.caption

    def close(self):
        """Nothing is open here."""


class Workers:
    """Fills rows as `Maker` does, in processes of their own, through shared memory.

    Args:
        maker: Maker; pickled once into each worker.
        count: processes.
        rows: of a batch at most.

    Raises:
        BadInput: not enough shared memory for the batches in the making.
    """

    def __init__(self, maker, count, rows):
        self.count = count
        self.shape = (SLOTS, rows, maker.size, maker.size, 3)
        self.block = _shared(int(np.prod(self.shape)))
        self.pixels = np.ndarray(self.shape, np.uint8, self.block.buf)
        self.free = queue.SimpleQueue()
        for slot in range(SLOTS):
            self.free.put(slot)
        context = get_context("spawn")
        leaving = context.Event()
        self.untold = store_requests.when_leaving(leaving.set)
        self.pool = ProcessPoolExecutor(
            count,
            mp_context=context,
            initializer=_begin,
            initargs=(maker, self.block.name, self.shape, leaving, context.Lock()),
        )

    def fill(self, records, images, tokens):
        """As `Maker.fill`.

        Raises:
            Failed: a worker died.
        """
        slot = self.free.get()
        if slot is None:
            self.free.put(None)
            raise Failed("The processes that decode pictures have been ended.")
        try:
            chunk = max(1, min(MOST_CHUNK, -(-len(records) // self.count)))
            starts = range(0, len(records), chunk)
            parts = [(slot, start, records[start : start + chunk]) for start in starts]
            faults = []
            for start, found in zip(starts, self.pool.map(_fill, parts)):
                tokens[start : start + chunk] = found[0]
                faults += [f._replace(row=f.row + start) for f in found[1]]
            images[:] = self.pixels[slot, : len(records)]
            return faults
        except BrokenProcessPool as error:
            raise Failed(
                "A process that decodes pictures died, perhaps for want of memory; "
                "lower data.workers and run the same command again."
            ) from error
        finally:
            self.free.put(slot)

    def close(self):
        """Ends the processes and gives the shared memory back."""
        for _ in range(SLOTS):
            self.free.get()
        self.free.put(None)
        self.pool.shutdown(cancel_futures=True)
        self.untold()
        del self.pixels
        self.block.close()
        self.block.unlink()


def _shared(size):
    """A block of shared memory that is really there."""
    try:
        store = os.statvfs("/dev/shm")
        room = store.f_bavail * store.f_frsize
    except OSError:  # no such folder: the system has another way
        room = size
    if room < size:
        raise BadInput(
            f"data.workers needs {size / 2**20:.0f} MiB of shared memory and /dev/shm "
            f"has {room / 2**20:.0f}; enlarge it (docker: --shm-size) or set "
            "data.workers to 0."
        )
    return SharedMemory(create=True, size=size)


_worker = None  # (Maker, SharedMemory, its pixels) of this process


def _begin(maker, name, shape, leaving, large):
    """Readies a worker; signals are the parent's business, its death ends this one.

    leaving: set by the parent where remote reads are to be given up; large: lock of all
    workers, for `images.share_room`.
    """
    global _worker
    share_room(large)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    for call, about in ((_follow, parent_process()), (_give_up, leaving)):
        threading.Thread(target=call, args=(about,), daemon=True).start()
    block = SharedMemory(name)
    _worker = (maker, block, np.ndarray(shape, np.uint8, block.buf))


def _follow(parent):
    parent.join()
    os._exit(1)


def _give_up(leaving):
    leaving.wait()
    store_requests.leave()


def _fill(part):
    """One chunk of a batch: its tokens and faults; the pixels go into the block."""
    slot, start, records = part
    maker, _, pixels = _worker
    tokens = np.empty((len(records), maker.context), np.int32)
    rows = pixels[slot, start : start + len(records)]
    return tokens, maker.fill(records, rows, tokens)
