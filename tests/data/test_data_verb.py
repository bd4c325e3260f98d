"""`dalle2 data`: what its verbs write and print."""

import argparse
import io
import tarfile

import pytest

from dalle2_jax.cli import data
from dalle2_jax.data.tokens import Tokenizer
from dalle2_jax.errors import BadInput


def dalle2_data(*words):
    parser = argparse.ArgumentParser()
    data.add_arguments(parser)
    data.run(parser.parse_args(list(map(str, words))))


def test_made_shapes_are_inspected_and_give_a_tokenizer(tmp_path, capsys):
    to = tmp_path / "s"
    dalle2_data("make-shapes", "--to", to, "--count", 40, "--size", 32)
    assert "40 pictures" in capsys.readouterr().out
    dalle2_data("inspect", to)
    said = capsys.readouterr().out
    for words in ("40 usable, 0 left out", "0 broken", "32 x 32", "PNG RGB: 40"):
        assert words in said
    dalle2_data("train-tokenizer", "--data", to, "--to", tmp_path / "t", "--vocab", 600)
    assert Tokenizer.load(tmp_path / "t").size <= 600


def test_inspect_names_what_is_wrong(tmp_path, capsys):
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for name in ("1.jpg", "1.txt", "2.jpg"):
            info = tarfile.TarInfo(name)
            info.size = 5
            tar.addfile(info, io.BytesIO(b"words"))
    dalle2_data("inspect", tmp_path)
    said = capsys.readouterr().out
    assert "1 x no caption, first" in said and "0.tar: 2" in said
    assert "1 broken" in said and "0.tar: 1 is no picture" in said


def test_bad_usage_is_a_sentence(tmp_path):
    with pytest.raises(BadInput, match="no world 'cubes'"):
        dalle2_data("make-shapes", "--to", tmp_path / "s", "--world", "cubes")
    with pytest.raises(BadInput, match="There is no shard"):
        dalle2_data("inspect", tmp_path / "nothing")


def test_shards_are_indexed_and_their_fields_shown(tmp_path, capsys):
    to = tmp_path / "s"
    dalle2_data("make-shapes", "--to", to, "--count", 20, "--shard-size", 8)
    dalle2_data("index", to, "--part", "1/2")
    assert "1 shards indexed: 8 samples, 0 left out" in capsys.readouterr().out
    assert [path.name for path in to.glob("*.idx")] == ["00001.tar.dalle2.idx"]
    dalle2_data("inspect", to)
    assert "field     width: 20 samples; all 64" in capsys.readouterr().out
