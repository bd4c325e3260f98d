"""Priors from folders of embeddings: written, trained from, resumed, refused."""

import io
import json
import os
import shutil
import signal
import tarfile

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest

from dalle2_jax.cli.overrides import load_run
from dalle2_jax.components import initial_params, load_component, save_component
from dalle2_jax.data.embeddings import EmbeddingSource, Encoded, embedding_batches
from dalle2_jax.data.records import ShardSource
from dalle2_jax.data.tokens import Tokenizer
from dalle2_jax.errors import BadInput, Preempted
from dalle2_jax.prior.diffusion import Prior, Text
from dalle2_jax.shard.mesh import MeshConfig, make_mesh
from dalle2_jax.train.embed import How, embed_shards
from dalle2_jax.train.fit import Job, fit
from dalle2_jax.train.inputs import (
    borrow_clip,
    obtain_tokenizer,
    open_batches,
    open_source,
)
from dalle2_jax.train.losses import LOSSES, embed
from dalle2_jax.train.prepare import fit_tables
from dalle2_jax.train.run import as_dict
from dalle2_jax.unclip import encode_captions, encode_images, from_uint8

CLIP = ["model.text.depth=1", "model.image.width=16", "model.image.depth=1"]
PRIOR = ["model.width=32", "model.depth=1", "batch=16", "steps=3", "save_every=100"]
PRIOR += ["log_every=1"]
CODES = ["model.codes=3", "model.buckets=8", "batch=16", "codes_from=40"]


def run_of(config, words):
    return load_run(f"configs/{config}.py:small", [f"--config.{w}" for w in words])


@pytest.fixture(scope="module")
def home(tmp_path_factory, shards):
    """A model directory with a first CLIP, and the embeddings of the shards."""
    folder = tmp_path_factory.mktemp("home")
    run = run_of("clip", CLIP)
    params = initial_params("clip", run.model, 0)
    save_component(folder / "model", "clip", as_dict(run), params)
    tokenizer = Tokenizer.train(ShardSource(shards).captions(), run.vocab)
    tokenizer.save(folder / "model" / "tokenizer")
    clip = load_component(folder / "model", "clip")
    how = How(64, "float32")
    embed_shards(clip, tokenizer, list(map(str, shards)), folder / "emb", how)
    return folder


def job(home, data, name="run"):
    return Job([str(data)], home / name, home / "model")


def test_stored_embeddings_are_clips_own(home, shards):
    clip = load_component(home / "model", "clip")
    tokenizer = Tokenizer.load(home / "model" / "tokenizer")
    source, pictures = EmbeddingSource(home / "emb"), ShardSource(shards)
    assert len(source) == len(pictures) == 256 and source.is_unit
    batch = next(embedding_batches(source, tokenizer, run_of("clip", []).data, 8, 0))
    caption, z_image = embed(clip.cfg, {"clip": clip.params}, batch)
    bare = embedding_batches(source, None, run_of("clip", []).data, 8, 0)
    stored, again = embed(None, {}, next(bare))
    np.testing.assert_allclose(stored.pooled, caption.pooled, atol=2e-6)
    np.testing.assert_array_equal(z_image, again)
    assert list(source.captions()) == list(pictures.captions())


def test_the_rows_are_those_of_the_shards(home, shards):
    from dalle2_jax.data.images import decode

    clip = load_component(home / "model", "clip")
    record, row = ShardSource(shards)[130], EmbeddingSource(home / "emb")[130]
    image = decode(record.image, clip.cfg.image.size)[None]
    z = encode_images(clip.cfg, clip.params, from_uint8(jnp.asarray(image)))
    np.testing.assert_allclose(row.z_image, z[0], atol=2e-6)
    tokenizer = Tokenizer.load(home / "model" / "tokenizer")
    tokens = tokenizer.encode([record.caption], clip.cfg.text.context)
    z = encode_captions(clip.cfg, clip.params, jnp.asarray(tokens)).pooled
    np.testing.assert_allclose(row.z_text, z[0], atol=2e-6)


def test_finished_parts_are_kept_and_others_made_again(home, shards, tmp_path):
    clip = load_component(home / "model", "clip")
    tokenizer = Tokenizer.load(home / "model" / "tokenizer")
    folder = tmp_path / "emb"
    shutil.copytree(home / "emb", folder)
    kept = (folder / "img_emb" / "img_emb_0.npy").stat().st_mtime_ns
    (folder / "text_emb" / "text_emb_1.npy").write_bytes(b"half")
    data, how = list(map(str, shards)), How(64, "float32")
    done = embed_shards(clip, tokenizer, data, folder, how)
    assert [part.made for part in done] == [False, True]
    assert (folder / "img_emb" / "img_emb_0.npy").stat().st_mtime_ns == kept
    one, two = (EmbeddingSource(f / "").chunks(300) for f in (home / "emb", folder))
    for a, b in zip(one, two, strict=True):
        jax.tree.map(np.testing.assert_array_equal, a, b)
    assert not list(folder.rglob(".*"))


def test_hosts_part_the_shards(home, shards, tmp_path):
    clip = load_component(home / "model", "clip")
    tokenizer = Tokenizer.load(home / "model" / "tokenizer")
    for index in range(2):
        how = How(64, "float32", index, 2)
        data = list(map(str, shards))
        (part,) = embed_shards(clip, tokenizer, data, tmp_path, how)
        assert part.shard == str(shards[index])
    assert len(EmbeddingSource(tmp_path)) == 256
    with pytest.raises(BadInput, match="another dtype"):
        embed_shards(clip, tokenizer, data, tmp_path, How(64, "float16"))


def test_a_prior_learns_from_embeddings_and_resumes(home):
    run = run_of("prior_diffusion", PRIOR)
    fit(run, job(home, home / "emb", "whole"))
    whole = load_component(home / "model", "prior").params

    def interrupt(step, metrics):
        if step == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    parts = job(home, home / "emb", "parts")
    with pytest.raises(Preempted):
        fit(run, parts, interrupt)
    fit(run, parts)
    again = load_component(home / "model", "prior").params
    jax.tree.map(np.testing.assert_array_equal, whole, again)


def test_the_image_tower_stays_at_home(home):
    run, work = run_of("prior_diffusion", PRIOR), job(home, home / "emb")
    mesh = make_mesh(MeshConfig(1), jax.devices()[:1])
    _, frozen = borrow_clip(run, work, mesh, open_source(run, work))
    assert "image" not in frozen["clip"] and "text" in frozen["clip"]


def test_codes_are_fitted_to_embeddings(home):
    run, work = run_of("prior_autoregressive", CODES), job(home, home / "emb")
    mesh = make_mesh(MeshConfig(1), jax.devices()[:1])
    source = open_source(run, work)
    cfg, frozen = borrow_clip(run, work, mesh, source)
    tokenizer = obtain_tokenizer(run, work, source)
    batches = embedding_batches(source, tokenizer, run.data, run.batch, run.seed)
    params = initial_params(run.stage, run.model, 0)
    params = fit_tables(run, cfg, frozen, params, batches, mesh)
    assert np.all(params["codes_share"] > 0)


def test_without_captions_a_prior_hears_the_pooled_text(home, tmp_path):
    shutil.copytree(home / "emb", tmp_path / "emb")
    shutil.rmtree(tmp_path / "emb" / "metadata")
    run = run_of("prior_diffusion", PRIOR)
    with pytest.raises(BadInput, match="holds no captions.*model.context=0"):
        open_source(run, job(home, tmp_path / "emb"))
    run = run_of("prior_diffusion", [*PRIOR, "model.context=0"])
    work = Job(str(tmp_path / "emb"), tmp_path / "run", tmp_path / "model")
    assert obtain_tokenizer(run, work, open_source(run, work)) is None
    fit(run, work)
    prior = load_component(tmp_path / "model", "prior")
    assert "states" not in prior.params
    z, t = jnp.ones((2, 64)), jnp.zeros(2, jnp.int32)
    mask, keep = jnp.ones((2, 20), bool), jnp.ones(2)
    heard = [
        Prior(prior.cfg).apply(
            {"params": prior.params}, z, t, Text(z, states, mask, keep)
        )
        for states in (jnp.zeros((2, 20, 64)), jnp.ones((2, 20, 64)))
    ]
    np.testing.assert_array_equal(*heard)
    karlo = run_of("prior_diffusion", ["model.null='empty'", "model.context=0"])
    z = jnp.ones((2, 64))
    with pytest.raises(BadInput, match="'learned'"):
        LOSSES["prior"](karlo, None)({}, {}, Encoded(z, z_text=z), jax.random.key(0))


def refusal(home, data, *changes, config="prior_diffusion"):
    """What is said of data that a run refuses."""
    run = run_of(config, changes)
    mesh = make_mesh(MeshConfig(1), jax.devices()[:1])
    with pytest.raises(BadInput) as error:
        source = open_source(run, job(home, data))
        borrow_clip(run, job(home, data), mesh, source)
    return str(error.value)


def test_what_does_not_fit_is_refused_in_one_sentence(home, tmp_path):
    said = refusal(home, home / "emb", "model.clip=32")
    assert "width 64" in said and "clip is 32" in said
    said = refusal(home, home / "emb", config="decoder_64")
    assert "give decoder tar shards" in said
    shutil.copytree(home / "emb", tmp_path / "emb")
    about = json.loads((tmp_path / "emb" / "embeddings.json").read_text())
    about["clip"] = "0123"
    (tmp_path / "emb" / "embeddings.json").write_text(json.dumps(about))
    said = refusal(home, tmp_path / "emb")
    assert "another CLIP made" in said and "0123" in said


def test_lengths_are_said_and_made_one(home, tmp_path, caplog):
    shutil.copytree(home / "emb", tmp_path / "emb")
    image = tmp_path / "emb" / "img_emb" / "img_emb_0.npy"
    rows = 9 * np.load(image)
    rows[7] = 0
    np.save(image, rows)
    run = run_of("prior_diffusion", [])
    mesh = make_mesh(MeshConfig(1), jax.devices()[:1])
    source = open_source(run, job(home, tmp_path / "emb"))
    cfg, frozen = borrow_clip(run, job(home, tmp_path / "emb"), mesh, source)
    assert "lengths 1 to 9; they are scaled to 1" in caplog.text
    assert "255 rows): left out are all-zero row: 1" in caplog.text
    tokenizer = Tokenizer.load(home / "model" / "tokenizer")
    batch = next(embedding_batches(source, tokenizer, run.data, 64, 0))
    _, z_image = embed(cfg, frozen, batch)
    np.testing.assert_allclose(jnp.linalg.norm(z_image, axis=1), 1, atol=1e-5)


def test_metadata_says_where_a_row_comes_from(home, shards):
    table = pq.read_table(home / "emb" / "metadata" / "metadata_1.parquet")
    record = ShardSource(shards)[128]
    first = table.slice(0, 1).to_pylist()[0]
    assert first["key"] == record.key and first["shard"] == str(shards[1])


@pytest.fixture(scope="module")
def members(home, shards, tmp_path_factory):
    """The shards with the embedding of every sample as its member KEY.npy."""
    folder, rows = tmp_path_factory.mktemp("members"), EmbeddingSource(home / "emb")
    number = iter(range(len(rows)))
    for shard in shards:
        with tarfile.open(shard) as old, tarfile.open(folder / shard.name, "w") as new:
            for member in old:
                data = old.extractfile(member).read()
                new.addfile(member, io.BytesIO(data))
                if member.name.endswith(".txt"):
                    z = io.BytesIO()
                    np.save(z, rows[next(number)].z_image)
                    info = tarfile.TarInfo(member.name.replace(".txt", ".npy"))
                    info.size = len(z.getvalue())
                    new.addfile(info, io.BytesIO(z.getvalue()))
    return folder


@pytest.mark.parametrize("config", ["prior_diffusion", "decoder_64"])
def test_embeddings_in_the_shards_take_the_image_towers_place(home, members, config):
    mesh = make_mesh(MeshConfig(1), jax.devices()[:1])
    found = {}
    for name in ("", "npy"):
        run = run_of(config, [f"data.embeddings='{name}'", "batch=8", "data.threads=1"])
        work = job(home, members)
        source = open_source(run, work)
        cfg, frozen = borrow_clip(run, work, mesh, source)
        assert ("image" in frozen["clip"]) == (name == "")
        tokenizer = obtain_tokenizer(run, work, source)
        batch = next(open_batches(run, source, tokenizer, 0))
        found[name] = embed(cfg, frozen, jax.tree.map(jnp.asarray, batch))
    for ours, theirs in zip(*map(jax.tree.leaves, found.values()), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-2)  # of pictures of 64 px


def test_a_decoder_is_shown_stored_embeddings(home, members):
    exact = ["model.size=8", "corrupt.noise_image=0.0"]
    run = run_of("decoder_64", ["data.embeddings='npy'", "batch=8", *exact])
    work, key = job(home, members), jax.random.key(0)
    mesh = make_mesh(MeshConfig(1), jax.devices()[:1])
    source = open_source(run, work)
    cfg, frozen = borrow_clip(run, work, mesh, source)
    tokenizer = obtain_tokenizer(run, work, source)
    batch = jax.tree.map(jnp.asarray, next(open_batches(run, source, tokenizer, 0)))
    shown = LOSSES["decoder"](run, cfg).prepare(frozen, batch, key)
    kept = shown.given.keep_image.astype(bool)
    z = shown.given.z_image[kept] / run.model.clip**0.5
    np.testing.assert_allclose(z, batch.z_image[kept], atol=1e-6)
    assert shown.x_0.shape == (8, 8, 8, 3)


def test_members_that_do_not_fit_are_refused(home, members):
    named = "data.embeddings='npy'"
    said = refusal(home, members, named, config="clip")
    assert "'npy'" in said and "hears no embeddings" in said
    said = refusal(home, members, named, "model.clip=32")
    assert all(part in said for part in ("0.tar: 0", "width 64", "clip is 32"))
    said = refusal(home, members, "data.embeddings='img_emb.npy'")
    assert "No usable sample" in said and "no img_emb.npy: 256" in said


def test_broken_samples_are_left_out_and_counted(home, shards, tmp_path):
    clip = load_component(home / "model", "clip")
    tokenizer = Tokenizer.load(home / "model" / "tokenizer")
    data, first = bytearray(shards[0].read_bytes()), ShardSource(shards)
    start = data.index(first[2].image)
    data[start : start + len(first[2].image)] = bytes(len(first[2].image))
    cut = data.index(first[100].image) + 5
    (tmp_path / "0.tar").write_bytes(data[:cut])
    (tmp_path / "1.tar").write_bytes(b"")
    shown, to = [], tmp_path / "emb"
    done = embed_shards(
        clip, tokenizer, tmp_path, to, How(64), lambda *given: shown.append(given)
    )
    assert [part.rows for part in done] == [99, 0]
    assert done[0].left_out["is no picture in a known format"] == 1
    assert sum(done[0].left_out.values()) >= 2 and sum(done[1].left_out.values()) == 1
    assert [number for number, *_ in shown] == [0, 1]
    again = embed_shards(clip, tokenizer, tmp_path, to, How(64))
    assert again == [part._replace(made=False) for part in done]
    source = EmbeddingSource(to)
    assert len(source) == 99 and source.caption(2) == first.caption(3)
