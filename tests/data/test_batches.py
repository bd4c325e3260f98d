"""Order and batches: once per epoch, resumable anywhere, equal on any process count."""

import io
import tarfile
from itertools import islice
from typing import NamedTuple

import numpy as np
import pytest

from dalle2_jax.data.batches import captioned_batches, rows_of
from dalle2_jax.data.images import decode
from dalle2_jax.data.order import record_at
from dalle2_jax.data.records import ShardSource
from dalle2_jax.data.shard_reader import Record
from dalle2_jax.data.tokens import Tokenizer
from dalle2_jax.data.write_shapes import make_shapes
from dalle2_jax.errors import BadInput

TOKENIZER = Tokenizer.train(["a red circle on white"], 600)


class Data(NamedTuple):
    size: int = 16
    context: int = 12
    group: int = 1
    threads: int = 2
    bad: float = 0.01
    workers: int = 0
    cache: int = 512
    shuffle_shards: int = 0


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "s"
    make_shapes("simple", 30, 0, folder, 16, shard_size=8)
    return ShardSource(folder)


def taken(source, count, data=Data(), batch=8, seed=0, **options):  # noqa: B008
    batches = captioned_batches(source, TOKENIZER, data, batch, seed, **options)
    return list(islice(batches, count))


def joined(batches):
    return tuple(np.concatenate(parts) for parts in zip(*batches))


def same(one, two):
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("group", [1, 2, 7])
@pytest.mark.parametrize("n", [1, 2, 30, 31])
def test_every_record_comes_once_per_epoch(n, group):
    epochs = [
        [record_at(e * n + i, n, seed=3, group=group) for i in range(n)]
        for e in range(4)
    ]
    assert all(sorted(order) == list(range(n)) for order in epochs)
    if n // group > 8:
        assert len(set(map(tuple, epochs))) == 4


def test_the_order_depends_on_the_seed():
    orders = {tuple(record_at(i, 50, s) for i in range(50)) for s in range(20)}
    assert len(orders) == 20


def test_groups_stay_together_and_in_order():
    order = [record_at(i, 31, seed=0, group=2) for i in range(31)]
    assert all(a % 2 == 0 and b == a + 1 for a, b in zip(order[:30:2], order[1:30:2]))


def test_a_batch_holds_the_records_of_its_numbers(source):
    (image, tokens), *_ = taken(source, 2)
    records = [source[record_at(g, len(source), 0)] for g in range(8)]
    assert image.dtype == np.uint8 and image.shape == (8, 16, 16, 3)
    same(image, [decode(r.image, 16) for r in records])
    same(tokens, TOKENIZER.encode([r.caption for r in records], 12))


def test_resuming_continues_with_the_very_next_sample(source):
    whole = joined(taken(source, 12))
    for start in (0, 1, 8, 29, 30, 61):
        batches = captioned_batches(source, TOKENIZER, Data(), 8, 0, start=start)
        assert batches.position == start
        rest = joined(islice(batches, 3))
        assert batches.position == start + 24
        same(rest, [part[start : start + 24] for part in whole])


@pytest.mark.parametrize("count", [2, 4])
def test_slices_of_processes_make_the_whole_batch(source, count):
    whole = taken(source, 6, start=5)
    parts = [taken(source, 6, start=5, rows=rows_of(8, i, count)) for i in range(count)]
    for n, batch in enumerate(whole):
        same(batch, joined([part[n] for part in parts]))


def test_later_epochs_from_memory_equal_decoding_anew(source):
    same(joined(taken(source, 12)), joined(taken(source, 12, Data(cache=0))))


def test_delivered_batches_may_be_changed(source):
    batches = captioned_batches(source, TOKENIZER, Data(), 30, 0)
    first = next(batches)
    before = first.image.copy()
    order = [record_at(i, 30, 0) for i in range(30)]
    first.image[:] = 0
    later = [next(batches) for _ in range(6)][-1]
    again = [record_at(i, 30, 0) for i in range(180, 210)]
    same(later.image[np.argsort(again)], before[np.argsort(order)])


class Spoilt:
    """A source in which some pictures are damaged."""

    def __init__(self, source, bad):
        self.source, self.bad = source, bad

    def __len__(self):
        return len(self.source)

    def __getitem__(self, i):
        record = self.source[i]
        return record._replace(image=record.image[:60]) if i in self.bad else record


def test_a_broken_picture_is_replaced_by_the_next_good_one(source):
    good = captioned_batches(source, TOKENIZER, Data(), 30, 0)
    spoilt = captioned_batches(Spoilt(source, {4, 5, 29}), TOKENIZER, Data(), 30, 0)
    one, two = next(good), next(spoilt)
    order = [record_at(i, 30, 0) for i in range(30)]
    at = {record: row for row, record in enumerate(order)}
    stand_in = {4: 6, 5: 6, 29: 0}
    rows = [at[stand_in.get(record, record)] for record in order]
    same(two.image, one.image[rows])
    same(two.tokens, one.tokens[rows])
    names = [name for names in spoilt.skipped.values() for name in names]
    shard, key = source[29].shard, source[29].key
    assert len(names) == 3 and f"{shard}: {key}" in names
    assert all("damaged or cut off" in reason for reason in spoilt.skipped)


def test_too_many_broken_pictures_stop_the_run(source):
    spoilt = Spoilt(source, set(range(12)))
    with pytest.raises(BadInput, match="of .* pictures cannot be decoded; the first"):
        taken(spoilt, 4)
    assert len(taken(spoilt, 4, Data(bad=0.9))) == 4
    with pytest.raises(BadInput, match="can be decoded"):
        taken(Spoilt(source, set(range(30))), 1, Data(bad=1.0))


def test_sizes_that_do_not_fit_are_said(source):
    with pytest.raises(BadInput, match="batch of 8 cannot be parted among 3"):
        rows_of(8, 0, 3)
    with pytest.raises(BadInput, match="data.group is 0"):
        captioned_batches(source, TOKENIZER, Data(group=0), 8, 0)
    with pytest.raises(BadInput, match="begin at sample -1"):
        captioned_batches(source, TOKENIZER, Data(), 8, 0, start=-1)


def test_a_batch_may_be_larger_than_the_data(source):
    image, _ = taken(source, 1, batch=75)[0]
    assert image.shape == (75, 16, 16, 3)
    counts = np.unique(image.reshape(75, -1), axis=0, return_counts=True)[1]
    assert set(counts.tolist()) <= {2, 3}


def test_any_list_of_records_is_a_source():
    held = io.BytesIO()
    from PIL import Image

    Image.new("RGB", (20, 16), "red").save(held, "webp", lossless=True)
    record = Record("k", held.getvalue(), "a red circle", {}, "none")
    image, tokens = taken([record], 1, batch=2)[0]
    assert image[..., 0].min() > 250 and tokens.shape == (2, 12)


def test_a_shard_of_jpegs_goes_through(tmp_path):
    from PIL import Image

    rng = np.random.default_rng(0)
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for i in range(4):
            held = io.BytesIO()
            pixels = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(held, "jpeg")
            for name, data in ((f"{i}.jpg", held.getvalue()), (f"{i}.txt", b"noise")):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    image, tokens = taken(ShardSource(tmp_path), 1, batch=4)[0]
    assert image.shape == (4, 16, 16, 3) and (tokens[:, 0] == TOKENIZER.start).all()
