"""`dalle2 sample`: its flags, what its pictures tell, what it refuses."""

import dataclasses
import io
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from dalle2_jax.cli.main import main
from dalle2_jax.cli.ways import FIELDS, JUDGES, changed_ways
from dalle2_jax.unclip import Sampling, load


def sampled(folder, tmp_path, *words):
    """The exit code of `dalle2 sample`, and its folder."""
    out = tmp_path / "out"
    base = ["sample", "--model", str(folder), "--out", str(out), "--steps", "2/2/2"]
    return main([*base, *words]), out


def test_stages_run_one_by_one_give_the_pictures_of_the_whole(folder, tmp_path):
    assert sampled(folder, tmp_path / "a", "a ring", "big")[0] == 0
    code, first = sampled(folder, tmp_path / "b", "a ring", "big", "--stages", "prior")
    assert code == 0
    rest = ["--stages", "decoder,upsampler", "--embeddings", str(first / "z_i.npy")]
    assert sampled(folder, tmp_path / "c", "a ring", "big", *rest)[0] == 0
    for name in ("00000.png", "00001.png"):
        one, two = (Image.open(tmp_path / d / "out" / name) for d in "ac")
        apart = np.asarray(one).astype(int) - np.asarray(two)
        assert np.abs(apart).max() <= 1
    words = ["a ring", "--stages", "prior,decoder"]
    assert Image.open(sampled(folder, tmp_path, *words)[1] / "00000.png").size == (8, 8)


def test_captions_from_a_file_reranked(folder, tmp_path):
    (tmp_path / "lines.txt").write_text("a ring\n\na cross\n")
    lines = ["--captions-file", str(tmp_path / "lines.txt"), "--n", "3", "--keep", "1"]
    code, out = sampled(folder, tmp_path, *lines)
    assert code == 0 and len(list(out.glob("0*.png"))) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a", "--stages", "prior,upsampler"], "no stages in a row"),
        (["a", "--stages", "decoder"], "--embeddings takes the place of the prior"),
        (["a", "--keep", "2"], "--keep 2 must lie between 1 and --n 1"),
        (["a", "--keep", "1", "--stages", "prior"], "--keep ranks pictures"),
        (["a", "--sampler", "euler"], "sampler must be one of ancestral, ddim"),
        (["a", "--sampler", "analytic"], "needs the mean square of the network's eps"),
        (["a " * 40, "--no-cut"], "shorten it, or leave out --no-cut"),
        (["a", "--steps", "2/2000"], "--steps '2000': 2000 sampling steps do not fit"),
        (["a", "--preset", "fast"], "--preset fast is none of paper, karlo"),
        (["a", "--dtype", "float8"], "dtype must be one of float32, bfloat16"),
        (["a", "--interval", "/0.9:0.1"], "interval must lie in 0 to 1"),
        (["a", "--interval", "/0.9"], "--interval '0.9': write it as LOW:HIGH"),
        (["a", "--guidance", "1/inf"], "--guidance 'inf': guidance is inf"),
        (["a", "--clip-guidance", "nan"], "--clip-guidance: clip_guidance is nan"),
        (["a", "--clip-guidance", "1"], "the model holds no noised_clip"),
        (["a", "--decoder-caption", "b", "--decoder-caption", "c"], "once or 1"),
        (["a", "--memory", "-1"], "--memory must be above 0 GiB"),
        ([" "], "no caption given"),
        ([""], "no caption given"),
    ],
)
def test_bad_usage_of_sample_is_one_sentence(words, said, folder, tmp_path, capsys):
    code, out = sampled(folder, tmp_path, *words)
    heard = capsys.readouterr().err.strip()
    assert code == 2 and said in heard and "\n" not in heard


def test_a_long_caption_is_cut_with_a_warning(folder, tmp_path, capsys):
    assert sampled(folder, tmp_path, "a " * 40)[0] == 0
    assert "its end is cut off" in capsys.readouterr().err


def test_every_field_of_sampling_has_a_flag(folder, tmp_path):
    values = {"steps": "2/2/2", "guidance": "/2", "sampler": "/ddim", "eta": "/0.5"}
    values |= {"bound": "2/1", "threshold": "/0.9", "interval": "/0.1:0.9"}
    values |= {"rescale": "/0.7", "candidates": "3", "temperature": "1"}
    values |= {"percentile": "40"}
    assert set(values) == set(FIELDS)
    how = changed_ways(load(folder), values)
    first, second = how["prior"], how["decoder"]
    assert (first.candidates, first.percentile, first.clip) == (3, 40.0, 2.0)
    assert (second.sampler, second.eta, second.threshold) == ("ddim", 0.5, 0.9)
    assert (second.interval, second.rescale, second.guidance) == ((0.1, 0.9), 0.7, 2.0)
    named = {field for field, _, _ in FIELDS.values()} | set(JUDGES) | {"empty"}
    assert named == {field.name for field in dataclasses.fields(Sampling)}
    flags = [word for flag, text in values.items() for word in (f"--{flag}", text)]
    assert sampled(folder, tmp_path, "a ring", *flags)[0] == 0


def test_a_picture_tells_where_it_comes_from(folder, tmp_path, monkeypatch):
    lines = io.BytesIO("\ufeffa ring\r\n\u200b\n\nbig\n".encode())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(lines))
    words = ["-", "--n", "2", "--seed", "3", "--guidance", "/2", "--batch", "2"]
    code, out = sampled(folder, tmp_path, *words, "--decoder-caption", "two")
    assert code == 0 and len(list(out.glob("0*.png"))) == 4
    with Image.open(out / "00003.png") as image:
        facts, xmp = json.loads(image.info["dalle2"]), image.info["XML:com.adobe.xmp"]
        assert "digitalsourcetype/trainedAlgorithmicMedia" in xmp
    expected = {"caption": "big", "decoder_caption": "two", "seed": 3, "sample": 3}
    expected |= {"model": folder.name, "steps": "2/2/2", "guidance": "/2"}
    assert facts.items() >= expected.items()
    usual = {"steps": "2", "guidance": 2.0, "clip": 1.0}  # the model's own, told too
    assert facts["sampling"] == dict.fromkeys(("prior", "decoder", "upsampler"), usual)
    assert Image.open(out / "grid.png").size[0] > 4 * 128


def test_damaged_model_directories_end_in_one_sentence(folder, tmp_path, capsys):
    base = ["sample", "a", "--out", str(tmp_path / "out"), "--model"]
    model = tmp_path / "model"
    shutil.copytree(folder, model)
    weights = model / "decoder" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert main([*base, str(model)]) == 2
    shutil.rmtree(model / "decoder")
    assert main([*base, str(model)]) == 2
    shutil.rmtree(model / "tokenizer")
    assert main([*base, str(model)]) == 2
    assert main([*base, str(tmp_path / "nowhere")]) == 2
    heard = capsys.readouterr().err.strip().splitlines()
    said = ["cannot be read", "holds no decoder", "tokenizer", "is no model directory"]
    assert len(heard) == 4 and all(part in line for part, line in zip(said, heard))


def test_a_second_process_compiles_nothing(folder, tmp_path):
    cache = tmp_path / "cache"
    env = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache), "XLA_FLAGS": ""}
    env |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    words = ["sample", "a ring", "--model", str(folder), "--steps", "2/2/2"]
    found = []
    for name in "ab":
        out = str(tmp_path / name)
        command = [sys.executable, "-m", "dalle2_jax.cli.main", *words, "--out", out]
        subprocess.run(command, env=env, check=True, capture_output=True)
        found.append({p.name for p in cache.rglob("*") if not p.name.endswith("atime")})
    assert len(found[0]) > 3 and found[0] == found[1]
    one, two = (np.asarray(Image.open(tmp_path / d / "00000.png")) for d in "ab")
    np.testing.assert_array_equal(one, two)


def facts_of(path):
    with Image.open(path) as image:
        return json.loads(image.info["dalle2"])


def test_pictures_of_another_run_are_neither_mixed_nor_lost(folder, tmp_path, capsys):
    words = ["--stages", "prior,decoder", "--n"]
    assert sampled(folder, tmp_path, "a ring", *words, "3")[0] == 0
    out = tmp_path / "out"
    before = {path: path.read_bytes() for path in out.iterdir()}
    assert sampled(folder, tmp_path, "a cross", *words, "1")[0] == 2
    said = capsys.readouterr().err
    assert "--overwrite" in said and "00000.png" in said
    assert {path: path.read_bytes() for path in out.iterdir()} == before
    (out / "notes.txt").write_text("mine")
    assert sampled(folder, tmp_path, "a cross", *words, "1", "--overwrite")[0] == 0
    names = sorted(path.name for path in out.iterdir())
    assert names == ["00000.png", "grid.png", "notes.txt"]
    assert facts_of(out / "00000.png")["caption"] == "a cross"


def test_pictures_that_are_not_ours_are_never_written_over(folder, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    Image.new("RGB", (4, 4)).save(out / "00001.png")
    before = (out / "00001.png").read_bytes()
    assert sampled(folder, tmp_path, "a ring", "--overwrite")[0] == 2
    assert "00001.png" in capsys.readouterr().err
    assert (out / "00001.png").read_bytes() == before


def test_embeddings_and_their_pictures_share_a_folder(folder, tmp_path):
    assert sampled(folder, tmp_path, "a ring", "--stages", "prior")[0] == 0
    z = str(tmp_path / "out" / "z_i.npy")
    words = ["a ring", "--stages", "decoder", "--embeddings", z]
    assert sampled(folder, tmp_path, *words)[0] == 0
    assert sampled(folder, tmp_path, "a ring", "--stages", "prior")[0] == 2
    again = ["a ring", "--stages", "prior", "--overwrite"]
    assert sampled(folder, tmp_path, *again)[0] == 0
    assert (tmp_path / "out" / "00000.png").is_file()


def test_a_picture_of_a_longer_run_is_drawn_alone(folder, tmp_path):
    words = ["--stages", "prior,decoder", "--seed", "5000000000"]
    _, long = sampled(folder, tmp_path / "a", "a ring", "a cross", *words)
    _, alone = sampled(folder, tmp_path / "b", "a cross", *words, "--first", "1")
    assert [p.name for p in sorted(alone.iterdir())] == ["00001.png", "grid.png"]
    one, other = (np.asarray(Image.open(d / "00001.png")) for d in (long, alone))
    assert np.abs(one.astype(int) - other).max() <= 1
    assert facts_of(long / "00001.png") == facts_of(alone / "00001.png")
    _, first = sampled(folder, tmp_path / "c", "a cross", *words)
    assert not np.array_equal(np.asarray(Image.open(first / "00000.png")), other)


def test_presets_that_ruin_a_model_are_not_offered(folder, tmp_path, capsys):
    from dalle2_jax.cli.ways import PRESETS, presets_of

    assert sampled(folder, tmp_path, "a ring", "--preset", "karlo-fast")[0] == 2
    assert "karlo-fast" in capsys.readouterr().err
    model = load(folder)
    assert list(presets_of(model)) == ["paper"]
    cfg = dataclasses.replace(model.clip.cfg, unit=False)
    karlo = model._replace(clip=model.clip._replace(cfg=cfg))
    assert presets_of(karlo) == PRESETS
