"""A whole random UnCLIPPipeline of diffusers: imported, sampled, exported, loaded."""

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import foreign
import numpy as np
import pytest
import torch

from dalle2_jax.convert.diffusers_configs import (
    decoder_json,
    prior_json,
    scheduler_json,
    upsampler_json,
)
from dalle2_jax.convert.exporter import export_weights
from dalle2_jax.convert.importer import import_weights, recognise
from dalle2_jax.decoder.decoder import DecoderConfig
from dalle2_jax.decoder.upsampler import UpsamplerConfig
from dalle2_jax.diffusion.schedule import Noise
from dalle2_jax.errors import BadInput
from dalle2_jax.layers.unet import UNetConfig
from dalle2_jax.prior.diffusion import PriorConfig
from dalle2_jax.unclip import load


class Saved(NamedTuple):
    pipe: Any
    theirs: Path
    model: Path
    back: Path
    pictures: np.ndarray


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """(the pipeline, its folder, the model directory, its export, its pictures)."""
    folder = tmp_path_factory.mktemp("pipeline")
    pipe = foreign.pipeline(folder / "theirs", variation=True)
    import_weights(folder / "theirs", folder / "model")
    export_weights(folder / "model", folder / "back", "diffusers")
    return Saved(
        pipe,
        folder / "theirs",
        folder / "model",
        folder / "back",
        foreign.pictures_of(pipe),
    )


def test_the_pictures_are_those_of_the_pipeline(saved):
    ours = foreign.our_pictures(saved.model)
    assert saved.pictures.std() > 0.1  # not one grey
    assert np.abs(saved.pictures - ours).max() < 1e-2


def test_captions_become_the_same_ids(saved):
    captions = [*foreign.CAPTIONS, "Über: émigré? it's 10%!", ""]
    pads = {"padding": "max_length", "max_length": foreign.CONTEXT, "truncation": True}
    ids = saved.pipe.tokenizer(captions, **pads).input_ids
    ours = load(saved.model).tokenizer.encode(captions, foreign.CONTEXT)
    np.testing.assert_array_equal(ids, ours)


def test_export_is_the_inverse_bit_for_bit(saved):
    there, back = foreign.states(saved.theirs), foreign.states(saved.back)
    assert there.keys() == back.keys()
    for file, state in there.items():
        assert state.keys() == back[file].keys()
        assert all(torch.equal(state[k], back[file][k]) for k in state), file


def test_the_loader_of_an_export_gives_the_pipeline_back(saved):
    again = foreign.loaded(saved.back)
    for name, part in saved.pipe.components.items():
        other = getattr(again, name)
        assert type(other) is type(part)
        if isinstance(part, torch.nn.Module):
            other.load_state_dict(part.state_dict(), strict=True)
    np.testing.assert_array_equal(
        saved.pictures, foreign.pictures_of(foreign.loaded(saved.back))
    )


def test_torch_files_hold_the_same(saved, tmp_path):
    export_weights(saved.model, tmp_path / "back", "diffusers", torch_files=True)
    path = tmp_path / "back" / "prior" / "diffusion_pytorch_model.bin"
    state = torch.load(path, weights_only=True)
    there = foreign.states(saved.theirs)["prior/diffusion_pytorch_model.safetensors"]
    assert state.keys() == there.keys()
    assert all(torch.equal(state[k], there[k]) for k in state)
    import_weights(tmp_path / "back", tmp_path / "again")
    assert (
        foreign.states(tmp_path / "again").keys() == foreign.states(saved.model).keys()
    )


def test_karlos_own_spelling_is_the_same_model(saved, tmp_path):
    """diffusers -> ours -> Karlo's files -> ours; the rows of c_qkv per head."""
    export_weights(saved.model, tmp_path / "karlo", "karlo")
    unet = {"head_width": 8, "groups": 8}
    config = {
        "prior": {"heads": 2},
        "decoder": {"size": 8, "unet": unet},
        "upsampler": {"size": 16, "factor": 2, "unet": unet},
    }
    import_weights(tmp_path / "karlo", tmp_path / "again", override=config)
    there, again = foreign.states(saved.model), foreign.states(tmp_path / "again")
    for file, state in there.items():
        assert all(torch.equal(state[k], again[file][k]) for k in state), file
    state = foreign.states(tmp_path / "karlo")["prior.safetensors"]
    block = foreign.states(saved.theirs)["prior/diffusion_pytorch_model.safetensors"]
    fused = state["model.transformer.resblocks.1.attn.c_qkv.weight"]
    k = block["transformer_blocks.1.attn1.to_k.weight"]
    assert torch.equal(fused[16:32], k[:16])  # head 0: q, k, v of 16 rows each
    assert torch.equal(fused[64:80], k[16:])


def test_an_image_variation_folder_has_no_prior(saved, tmp_path):
    theirs = saved.theirs
    copy = tmp_path / "variation"
    copy.mkdir()
    for part in theirs.iterdir():
        if not part.name.startswith("prior") and part.is_dir():
            (copy / part.name).symlink_to(part)
    index = json.loads((theirs / "model_index.json").read_text())
    index["_class_name"] = "UnCLIPImageVariationPipeline"
    (copy / "model_index.json").write_text(json.dumps(index))
    assert recognise(copy) == "diffusers"
    import_weights(copy, tmp_path / "model")
    model = load(tmp_path / "model")
    assert model.prior is None and model.clip.cfg.image.size == 16
    export_weights(tmp_path / "model", tmp_path / "back", "diffusers")
    kind = json.loads((tmp_path / "back" / "model_index.json").read_text())
    assert kind["_class_name"] == "UnCLIPImageVariationPipeline"


def copied(saved, tmp_path):
    """A copy of the pipeline's folder, to be spoilt."""
    return Path(shutil.copytree(saved.theirs, tmp_path / "theirs"))


def change_json(path, change):
    path.write_text(json.dumps(json.loads(path.read_text()) | change))


SPOILT = [
    (lambda p: shutil.rmtree(p / "text_proj"), "without text_proj/"),
    (lambda p: (p / "super_res_last" / WEIGHTS).unlink(), "super_res_last holds no"),
    (
        lambda p: change_json(
            p / "decoder" / "config.json", {"flip_sin_to_cos": False}
        ),
        "flip_sin_to_cos is False; only True",
    ),
    (
        lambda p: change_json(p / "prior" / "config.json", {"num_layers": 3}),
        "transformer_blocks.2.* is missing",
    ),
    (
        lambda p: change_json(p / "model_index.json", {"_class_name": "SDPipeline"}),
        "of SDPipeline; only",
    ),
    (
        lambda p: change_json(
            p / "prior_scheduler" / "scheduler_config.json", {"prediction_type": "v"}
        ),
        "prediction_type 'v' is not supported",
    ),
    (
        lambda p: shutil.copy(p / "prior" / WEIGHTS, p / "super_res_first" / WEIGHTS),
        "has shape",
    ),
]
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize("spoil, sentence", SPOILT)
def test_a_spoilt_folder_is_named_and_nothing_is_written(
    saved, tmp_path, spoil, sentence
):
    folder = copied(saved, tmp_path)
    spoil(folder)
    with pytest.raises(BadInput, match=sentence):
        import_weights(folder, tmp_path / "model")
    assert [p.name for p in tmp_path.iterdir()] == ["theirs"]


UNET = UNetConfig(32, (1, 2), 1, (2,), context_width=32)
FLAT = UNetConfig(32, (1, 2), 1)
TEXT = {"text_width": 24, "pooled_text": True}


@pytest.mark.parametrize(
    "function, args, sentence",
    [
        (prior_json, [PriorConfig(24, text_width=24)], "PriorConfig.null = 'learned'"),
        (
            prior_json,
            [PriorConfig(24, text_width=8, null="empty", whiten=True)],
            "text_width = 8",
        ),
        (
            decoder_json,
            [DecoderConfig(8, UNET, 24, spatial_map=4, **TEXT)],
            "spatial_map",
        ),
        (decoder_json, [DecoderConfig(8, UNET, 24, tokens=0, **TEXT)], "tokens made"),
        (upsampler_json, [UpsamplerConfig(16, FLAT)], "resize = 'bilinear'"),
        (upsampler_json, [UpsamplerConfig(16, UNET, resize="bicubic")], "attend"),
        (scheduler_json, [Noise("linear"), {}], "schedule = 'linear'"),
        (scheduler_json, [Noise(predicts="v"), {}], "predicts = 'v'"),
    ],
)
def test_what_diffusers_cannot_express_is_refused(function, args, sentence):
    with pytest.raises(BadInput, match=sentence):
        function(*args)


def test_a_model_that_speaks_unit_vectors_is_refused(saved, tmp_path):
    model = Path(shutil.copytree(saved.model, tmp_path / "model"))
    config = json.loads((model / "clip" / "config.json").read_text())
    config["model"]["unit"] = True
    (model / "clip" / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadInput, match="ClipConfig.unit = True"):
        export_weights(model, tmp_path / "back", "diffusers")
    assert not (tmp_path / "back").exists()
