"""Numbers while a decoder trains: there, right, and the same however it is resumed."""

from types import SimpleNamespace

import numpy as np
import pytest

from dalle2_jax.cli.main import main
from dalle2_jax.data.records import ShardSource
from dalle2_jax.errors import BadInput
from dalle2_jax.evaluate.clip_score import clip_score, image_features, text_features
from dalle2_jax.evaluate.during_training import judge
from dalle2_jax.evaluate.pictures import open_pictures
from dalle2_jax.train.judged import judge_hook
from dalle2_jax.train.loop import Moment
from dalle2_jax.train.metrics import open_log, read_metrics
from dalle2_jax.train.run import Data, Evaluate, as_dict, run_from
from dalle2_jax.unclip import Sampling

RNG = np.random.default_rng(0)


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_known_answers():
    z, text = (unit(RNG.normal(size=(40, 5))) for _ in range(2))
    found = judge(z, z, text)
    assert abs(found["frechet_clip"]) < 1e-9
    assert found["cosine_to_real"] == pytest.approx(1)
    assert found["clip_score"] == found["clip_score_real"]
    assert judge(-z, z, -z)["clip_score"] == pytest.approx(1)
    assert judge(-z, z, text)["frechet_clip"] > 0


@pytest.mark.parametrize("said", ["caption", "background"])
def test_the_hook_reads_draws_and_writes(said, model, shards, tmp_path):
    n, cfg = 20, model.decoder.cfg
    data = Data(16, model.clip.cfg.text.context, caption=said)
    asked = Evaluate(every=1, n=n, data=str(shards[0]))
    run = SimpleNamespace(stage="decoder", evaluate=asked, seed=0, data=data, model=cfg)
    run.noise, run.sampling = model.decoder.noise, Sampling(steps="2")
    frozen = {"clip": model.clip.params}
    work = SimpleNamespace(
        source=None, tokenizer=model.tokenizer, clip_cfg=model.clip.cfg, frozen=frozen
    )
    log = open_log(tmp_path, 0)
    state = SimpleNamespace(ema=model.decoder.params)
    judge_hook(run, work, judge, log)(Moment(3, state, {}, None))
    log.close()
    (found,) = read_metrics(tmp_path / "metrics.jsonl")
    assert found["step"] == 3 and found["evaluate/frechet_clip"] > 0
    real = open_pictures(shards[0], 16)
    z = image_features(model.clip, real.fetch(range(n)))
    captions = [record.meta[said] for record in ShardSource(shards[0])][:n]
    z_text = text_features(model.clip, model.tokenizer, captions)
    expected = clip_score(z, z_text)
    assert found["evaluate/clip_score_real"] == pytest.approx(expected, abs=1e-4)
    assert any((tmp_path / "logs").iterdir())


@pytest.fixture(scope="module")
def words(shards, tmp_path_factory):
    """The command line of a tiny decoder's run that is evaluated at every 2nd step."""
    home = tmp_path_factory.mktemp("judged")
    data = ["--data", *map(str, shards)]
    clip = ["model.text.depth=1", "model.image.width=16", "data.size=32"]
    usual = ["batch=8", "log_every=1", "save_every=100"]
    changes = [f"--config.{c}" for c in (*clip, *usual, "steps=1")]
    place = ["--workdir", str(home / "clip"), "--model", str(home / "model")]
    assert (
        main(["train", "--config", "configs/clip.py:small", *data, *place, *changes])
        == 0
    )
    small = ["model.unet.multiples=(1,)", "model.unet.attend=(1,)", "model.size=8"]
    changes = (*small, *usual, "steps=4", "sampling.steps='3'")
    changes += ("evaluate.every=2", "evaluate.n=20")
    place = ["--workdir", str(home / "decoder"), "--model", str(home / "model")]
    given = ["train", "--config", "configs/decoder_64.py:small", *data, *place]
    return home / "decoder", [*given, *(f"--config.{c}" for c in changes)]


@pytest.mark.slow
def test_numbers_are_written_at_their_steps(words):
    folder, given = words
    assert main(given) == 0
    lines = read_metrics(folder / "metrics.jsonl")
    found = [line for line in lines if "evaluate/frechet_clip" in line]
    assert [line["step"] for line in found] == [2, 4]
    for line in found:
        assert line["evaluate/frechet_clip"] > 0
        assert -1 <= line["evaluate/clip_score"] <= 1
        assert line["evaluate/clip_score_real"] == found[0]["evaluate/clip_score_real"]
    assert any((folder / "logs").iterdir())


@pytest.mark.slow
def test_two_processes_write_each_number_once(words, tmp_path):
    folder, given = words
    given = [str(tmp_path / "run") if word == str(folder) else word for word in given]
    with pytest.raises(SystemExit, match="^0$"):
        main(["launch", "--processes", "2", "--", *given])
    lines = read_metrics(tmp_path / "run/metrics.jsonl")
    found = [line for line in lines if "evaluate/frechet_clip" in line]
    assert [line["step"] for line in found] == [2, 4]
    assert all(line["evaluate/frechet_clip"] > 0 for line in found)


@pytest.mark.slow
def test_more_pictures_than_there_are_is_refused(words, capsys, tmp_path):
    folder, given = words
    given = [str(tmp_path) if word == str(folder) else word for word in given]
    assert main([*given, "--config.evaluate.n=2000"]) == 2
    assert "config.evaluate.n is 2000" in capsys.readouterr().err


def test_other_stages_are_not_evaluated(words):
    from dalle2_jax.cli.overrides import load_run

    values = as_dict(load_run("configs/prior_diffusion.py:small"))
    with pytest.raises(BadInput, match="config.evaluate.every is 5, but only decoders"):
        run_from(values | {"evaluate": {"every": 5}})
