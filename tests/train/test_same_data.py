"""A run goes on with the data that it has read, or says what has changed."""

import json
import shutil
import tarfile
from types import SimpleNamespace

import numpy as np
import pytest
from tiny import home_in, job_of, run_of, shards_in

from dalle2_jax.data.embeddings import EmbeddingSource
from dalle2_jax.data.identity import Shard, identity_of
from dalle2_jax.data.lazy_shards import LazyShards
from dalle2_jax.data.order import BlockOrder
from dalle2_jax.data.records import ShardSource
from dalle2_jax.errors import BadInput
from dalle2_jax.train.checkpoint import notes
from dalle2_jax.train.fit import fit
from dalle2_jax.train.same_data import (
    FILE,
    Record,
    differences,
    position_in,
    record_of,
    settle_data,
)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return home_in(tmp_path_factory.mktemp("home"))


@pytest.fixture
def data(home, tmp_path):
    """A copy of the shards, to be spoilt."""
    shutil.copytree(home / "data", tmp_path / "data")
    return tmp_path / "data"


def test_a_run_resumes_on_its_own_data_alone(home, data, tmp_path):
    job = job_of(home, tmp_path / "run")._replace(data=[str(data)])
    fit(run_of("steps=2"), job)
    kept = notes(job.workdir / "checkpoints" / "2")[0]["data"]
    assert kept["shards"] == 3 and kept["samples"] == 48
    moved = data.rename(tmp_path / "elsewhere")
    fit(run_of("steps=3"), job._replace(data=[str(moved)]))  # moved as a whole
    (moved / "00001.tar").unlink()
    short = job._replace(data=[str(moved)])
    with pytest.raises(BadInput, match="gone 00001.tar.*--other-data"):
        fit(run_of("steps=4"), short)
    fit(run_of("steps=4"), short._replace(other_data=True))
    after = notes(job.workdir / "checkpoints" / "4")[0]["data"]
    assert after["shards"] == 2 and after["digest"] != kept["digest"]
    fit(run_of("steps=5"), short)  # these are its data by now


def begun(workdir, source):
    """A run directory whose run has read a source until step 7."""
    (workdir / "checkpoints" / "7").mkdir(parents=True)
    settle_data(workdir, source)
    return workdir


def cut(path):
    """Cuts a tar off at the end of its last but one sample."""
    with tarfile.open(path) as tar:
        last = [member for member in tar if member.name.endswith(".png")][-1]
    path.write_bytes(path.read_bytes()[: last.offset])


OPEN = {"all": ShardSource, "lazy": LazyShards}


@pytest.mark.parametrize("kind", OPEN)
def test_each_kind_of_change_is_named(kind, data, tmp_path):
    work = begun(tmp_path / "run", OPEN[kind](data))
    settle_data(work, OPEN[kind](data))
    one, two = sorted(data.glob("*.tar"))[:2]
    shutil.copy(one, data / "new.tar")
    with pytest.raises(BadInput, match="new new.tar"):
        settle_data(work, OPEN[kind](data))
    (data / "new.tar").unlink()
    cut(two)
    with pytest.raises(BadInput, match=f"changed {two.name}"):
        settle_data(work, OPEN[kind](data))
    two.unlink()
    with pytest.raises(BadInput, match=f"gone {two.name}"):
        settle_data(work, OPEN[kind](data))
    settle_data(work, OPEN[kind](data), other=True)
    settle_data(work, OPEN[kind](data))


def test_the_order_of_shards_is_part_of_the_data(data, tmp_path):
    paths = sorted(map(str, data.glob("*.tar")))
    work = begun(tmp_path / "run", ShardSource(paths))
    with pytest.raises(BadInput, match="another order"):
        settle_data(work, ShardSource(paths[::-1]))


@pytest.mark.parametrize("change", [{"seed": 1}, {"world": "pairs"}])
def test_generated_data_are_those_of_their_seed_and_world(data, tmp_path, change):
    work = begun(tmp_path / "run", ShardSource(data))
    path = data / "shapes.json"  # the sizes may be equal by chance
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(BadInput, match=f"made with {next(iter(change))}"):
        settle_data(work, ShardSource(data))


def test_other_generated_data_differ(data, tmp_path):
    work = begun(tmp_path / "run", ShardSource(data))
    with pytest.raises(BadInput, match="seed"):
        settle_data(work, ShardSource(shards_in(tmp_path / "other", seed=3)))


def test_without_a_checkpoint_nothing_was_learned_from(data, tmp_path):
    work = tmp_path / "run"
    work.mkdir()
    settle_data(work, ShardSource(data))
    (data / "00002.tar").unlink()
    settle_data(work, ShardSource(data))
    assert len(json.loads((work / FILE).read_text())["shards"]) == 2


def test_a_run_of_an_earlier_version_resumes_with_a_note(data, tmp_path, caplog):
    work = begun(tmp_path / "run", ShardSource(data))
    (work / FILE).unlink()
    (data / "00002.tar").unlink()
    settle_data(work, ShardSource(data))
    assert any("which data" in record.getMessage() for record in caplog.records)
    assert (work / FILE).is_file()


def test_checkpoints_know_where_the_file_is_lost(home, data, tmp_path):
    job = job_of(home, tmp_path / "run")._replace(data=[str(data)])
    fit(run_of("steps=2"), job)
    (job.workdir / FILE).unlink()
    (data / "00002.tar").unlink()
    with pytest.raises(BadInput, match="then 3 shards with 48 samples, now 2"):
        fit(run_of("steps=3"), job)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"made": [], "shards": [1]}'])
def test_a_damaged_record_is_one_sentence(data, tmp_path, text):
    work = begun(tmp_path / "run", ShardSource(data))
    (work / FILE).write_text(text)
    with pytest.raises(BadInput, match=FILE):
        settle_data(work, ShardSource(data))


def test_lazy_shards_are_not_opened_and_remote_ones_not_asked(monkeypatch):
    urls = [f"gs://bucket/a/{i:05d}.tar" for i in range(5000)]
    source = LazyShards.__new__(LazyShards)
    source.shards = urls
    shards = record_of(source).shards
    assert shards[7] == Shard("00007.tar", None, None) and len(shards) == 5000
    then, now = Record([], shards), Record([], shards[:-1])
    assert list(differences(then, then)) == []
    assert list(differences(then, now)) == ["gone 04999.tar"]


def test_names_of_shards():
    def names(*paths):
        unknown = [None] * len(paths)
        return [shard.name for shard in identity_of(paths, unknown, unknown)]

    assert names("a/0.tar", "a/1.tar") == names("gs://b/0.tar", "gs://b/1.tar")
    assert names("x/a/0.tar", "x/b/0.tar") == ["a/0.tar", "b/0.tar"]


def test_embeddings_have_an_identity(tmp_path):
    for number in range(2):
        rows = np.eye(4, dtype="f")[: 3 + number]
        for kind in ("img_emb", "text_emb"):
            np.save(tmp_path / f"{kind}_{number}.npy", rows)
    shards = EmbeddingSource(tmp_path).identity()
    assert [(s.name, s.samples) for s in shards] == [
        ("img_emb_0.npy", 3),
        ("img_emb_1.npy", 4),
    ]
    sizes = [(tmp_path / f"{kind}_0.npy").stat().st_size for kind in ("img_emb",) * 2]
    assert shards[0].size == sum(sizes)


class Three(SimpleNamespace):
    """Shards of ten samples each."""

    def size_of(self, shard):
        return 10

    def first_of(self, shard):
        return 10 * shard


def test_a_place_in_a_block_is_none_in_other_shards():
    place = {"number": 60, "epoch": 1, "block": 2, "offset": 5}
    one, other = {"digest": "a"}, {"digest": "b"}
    assert position_in(place, one, one) == place == position_in(place, None, other)
    assert position_in(64, one, other) == 64
    moved = position_in(place, one, other)
    order = BlockOrder(Three(shards=["0", "1"]), 0, 1)
    cursor = order.cursor(moved)
    assert cursor.epoch == 2 and cursor.number == 60
    rows = order.records(cursor, range(20))  # one whole epoch
    assert sorted(rows) == list(range(20))
