"""`dalle2 data embed` and `fit-pca`, and the priors that begin from what they write."""

import argparse

import pytest

from dalle2_jax.cli import data
from dalle2_jax.cli.overrides import load_run
from dalle2_jax.components import initial_params, save_component
from dalle2_jax.data.records import ShardSource
from dalle2_jax.data.tokens import Tokenizer
from dalle2_jax.errors import BadInput
from dalle2_jax.train.begin import prepared
from dalle2_jax.train.fit import Job
from dalle2_jax.train.run import as_dict


def dalle2_data(*words):
    parser = argparse.ArgumentParser()
    data.add_arguments(parser)
    data.run(parser.parse_args(list(map(str, words))))


@pytest.fixture(scope="module")
def home(tmp_path_factory, shards):
    """A model directory with the first parameters of a small CLIP."""
    folder = tmp_path_factory.mktemp("home")
    words = ["text.depth=1", "image.width=16", "image.depth=1"]
    words = [f"--config.model.{word}" for word in words]
    run = load_run("configs/clip.py:small", words)
    params = initial_params("clip", run.model, 0)
    save_component(folder / "model", "clip", as_dict(run), params)
    tokenizer = Tokenizer.train(ShardSource(shards).captions(), run.vocab)
    tokenizer.save(folder / "model" / "tokenizer")
    return folder


def test_from_shards_to_the_codes_of_a_prior(home, shards, capsys):
    model, emb, pca = home / "model", home / "emb", home / "pca.safetensors"
    embed = ["embed", "--model", model, "--data", *shards, "--to", emb, "--batch", 64]
    dalle2_data(*embed)
    said = capsys.readouterr().out
    assert "2/2" in said and "128 rows" in said
    assert "256 samples of 2 shards, width 64, float16; 0 left out" in said
    dalle2_data(*embed)
    assert capsys.readouterr().out.count("was there") == 2
    dalle2_data("inspect", emb)
    said = capsys.readouterr().out
    assert "256 usable, 0 left out" in said and "width 64, float16" in said
    sizes = ["--components", 3, "--buckets", 8, "--dots", 64]
    fitted = ["--embeddings", emb, "--model", model, "--to", pca]
    dalle2_data("fit-pca", *fitted, *sizes)
    assert "3 of 64 components, fitted to 256 embeddings" in capsys.readouterr().out
    words = ["model.codes=3", "model.buckets=8", f"codes='{pca}'"]
    words = [f"--config.{word}" for word in words]
    run = load_run("configs/prior_autoregressive.py:small", words)
    first = initial_params(run.stage, run.model, 0)
    params = prepared(run, Job(str(emb), home / "run", model), None, first, None)
    assert params["codes_share"].sum() > 0.05


def test_what_cannot_be_embedded_is_refused(home, shards, tmp_path):
    embed = ["embed", "--model", home / "model", "--data", *shards, "--to", tmp_path]
    with pytest.raises(BadInput, match="--dtype is 'int8'"):
        dalle2_data(*embed, "--dtype", "int8")
    with pytest.raises(BadInput, match="--batch 3 cannot be split over 8 devices"):
        dalle2_data(*embed, "--batch", 3)
    with pytest.raises(BadInput, match="no img_emb_0.npy"):
        where = ["--embeddings", tmp_path, "--model", home / "model"]
        dalle2_data("fit-pca", *where, "--to", tmp_path / "x")
