"""What a run and the CLIP and tokenizer of its model do not agree on is said first."""

import dataclasses

import pytest
from small_model import CFG

from dalle2_jax.cli.main import main
from dalle2_jax.cli.overrides import load_run
from dalle2_jax.data.labels import Classes
from dalle2_jax.data.tokens import Tokenizer
from dalle2_jax.errors import BadInput
from dalle2_jax.train.agreement import check_tokens, mismatches

CLIP = CFG["clip"]  # width 16, 24 tokens of width 16, 600 ids
FITS = ["model.clip=16", "model.text_width=16", "data.context=24"]
OWN = {"prior": "prior_diffusion", "autoregressive": "prior_autoregressive"}
ALIKE = {"autoregressive": ["model.codes=3"]}
STAGES = {**OWN, "decoder": "decoder_64"}


def run_of(config, *changes):
    return load_run(f"configs/{config}.py:small", [f"--config.{c}" for c in changes])


def fitting(stage, *changes):
    own = ["model.context=24"] if stage in OWN else []
    own += ALIKE.get(stage, [])
    return run_of(STAGES[stage], *FITS, *own, *changes)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    "change", ["model.clip=8", "model.text_width=8", "data.context=20"]
)
def test_every_stage_that_borrows_clip_is_compared(stage, change):
    assert not list(mismatches(fitting(stage), CLIP))
    (found,) = mismatches(fitting(stage, change), CLIP)
    name, value = change.split("=")
    assert (found.field, found.ours) == (name, int(value))


@pytest.mark.parametrize("stage", OWN)
def test_priors_have_a_context_of_their_own(stage):
    (found,) = mismatches(fitting(stage, "model.context=20"), CLIP)
    assert found == ("model.context", 20, 24)


def test_a_prior_of_pooled_text_does_not_look_at_states():
    other = "model.text_width=99"
    assert not list(mismatches(fitting("prior", "model.context=0", other), CLIP))


@pytest.mark.parametrize("stage", STAGES)
def test_it_is_said_before_anything_is_computed(
    stage, folder, shards, tmp_path, capsys
):
    own = ["--config.model.context=20"] if stage in OWN else []
    fits = [f"--config.{c}" for c in (*FITS[:2], *ALIKE.get(stage, []))]
    words = ["--data", *map(str, shards), "--workdir", str(tmp_path / "run")]
    words += ["--model", str(folder), "--config", f"configs/{STAGES[stage]}.py:small"]
    assert main(["train", *words, *own, *fits, "--config.batch=8"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "context is 20" in err and "reads 24" in err
    assert not list((tmp_path / "run").glob("checkpoints/[0-9]*"))


@pytest.fixture(scope="module")
def tokenizer(folder):
    return Tokenizer.load(folder / "tokenizer")


def test_the_ids_of_a_tokenizer_are_known_to_all_that_read_them(tokenizer, tmp_path):
    size = tokenizer.size
    check_tokens(fitting("prior"), CLIP, tokenizer, tmp_path)
    few = dataclasses.replace(CLIP.text, vocab=size - 1)
    with pytest.raises(BadInput, match=f"vocab is {size - 1}.* {size} ids"):
        clip = dataclasses.replace(CLIP, text=few)
        check_tokens(fitting("prior"), clip, tokenizer, tmp_path)
    clip = run_of("clip", f"model.text.vocab={size - 1}")
    with pytest.raises(BadInput, match="config.model.text.vocab"):
        check_tokens(clip, clip.model, tokenizer, tmp_path)
    ends = dataclasses.replace(CLIP.text, pool="end", end_id=tokenizer.end + 1)
    with pytest.raises(BadInput, match="end_id"):
        clip = dataclasses.replace(CLIP, text=ends)
        check_tokens(fitting("prior"), clip, tokenizer, tmp_path)
    check_tokens(fitting("prior"), CLIP, Classes(["a"]), tmp_path)


def test_a_clip_reads_as_many_tokens_as_it_is_given(tokenizer, tmp_path):
    for config in ("clip", "clip.py:noised_small"):
        name = config if ":" in config else f"{config}.py:small"
        run = load_run(f"configs/{name}", ["--config.data.context=12"])
        with pytest.raises(BadInput, match="config.data.context is 12"):
            check_tokens(run, run.model, tokenizer, tmp_path)
