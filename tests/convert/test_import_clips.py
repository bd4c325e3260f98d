"""CLIP models of their own libraries: saved there, imported here, and back."""

import json

import foreign
import jax
import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file
from transformers import CLIPModel, CLIPTokenizer

from dalle2_jax.clip.contrastive import Clip
from dalle2_jax.components import load_component
from dalle2_jax.convert.exporter import export_weights
from dalle2_jax.convert.importer import import_weights, recognise
from dalle2_jax.data.tokens import Tokenizer
from dalle2_jax.errors import BadInput

OPENCLIP = {
    "embed_dim": 24,
    "vision_cfg": {
        "image_size": 16,
        "layers": 2,
        "width": 30,
        "head_width": 10,
        "patch_size": 8,
        "mlp_ratio": 4.9231,
    },
    "text_cfg": {
        "context_length": 12,
        "vocab_size": 560,
        "width": 32,
        "heads": 4,
        "layers": 1,
    },
}


def ours(folder, pixels, tokens):
    """z_image and z_text of an imported CLIP; torch tensors."""
    part = load_component(folder, "clip")
    args = np.moveaxis(pixels.numpy(), 1, -1), tokens.numpy().astype(np.int32)
    with jax.default_matmul_precision("highest"):
        return Clip(part.cfg).apply({"params": part.params}, *args)[:2]


def batch(made):
    pixels = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    return pixels, torch.tensor(made.encode(foreign.CAPTIONS, foreign.CONTEXT)).long()


def close(ours, theirs):
    for a, b in zip(ours, theirs):
        np.testing.assert_allclose(a, b.detach().numpy(), atol=1e-4)


def same(there, back):
    assert there.keys() == back.keys()
    assert all(torch.equal(there[key], back[key]) for key in there)


def test_hugging_face(tmp_path):
    model, made = foreign.hf_clip(tmp_path / "theirs")
    pixels, tokens = batch(made)
    assert recognise(tmp_path / "theirs") == "hf_clip"
    import_weights(tmp_path / "theirs", tmp_path / "model")
    out = model(pixel_values=pixels, input_ids=tokens)
    close(ours(tmp_path / "model", pixels, tokens), (out.image_embeds, out.text_embeds))
    export_weights(tmp_path / "model", tmp_path / "back", "hf_clip")
    again = CLIPModel.from_pretrained(tmp_path / "back")
    same(model.state_dict(), again.state_dict())
    other = again(pixel_values=pixels, input_ids=tokens)
    assert torch.equal(out.logits_per_image, other.logits_per_image)
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path / "back")
    for caption in foreign.CAPTIONS:
        ids = made.encode([caption], 20)[0]
        assert tokenizer(caption).input_ids == ids[: np.argmax(ids) + 1].tolist()


@pytest.mark.parametrize(
    "kind, quick", [("CLIP", False), ("CLIP", True), ("CustomTextCLIP", False)]
)
def test_openclip(tmp_path, kind, quick):
    theirs = tmp_path / "theirs"
    made = foreign.tokenizer()
    config = {**OPENCLIP, "quick_gelu": quick}
    config["text_cfg"] = {**config["text_cfg"], "vocab_size": made.size}
    torch.manual_seed(0)
    model = foreign.shaken(getattr(open_clip, kind)(**config))
    made.save(theirs)
    pixel_cfg = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}
    about = {"model_cfg": config, "preprocess_cfg": pixel_cfg}
    (theirs / "open_clip_config.json").write_text(json.dumps(about))
    save_file(model.state_dict(), theirs / "open_clip_model.safetensors")
    pixels, tokens = batch(made)
    import_weights(theirs, tmp_path / "model")
    assert load_component(tmp_path / "model", "clip").cfg.image.mean == (0.5, 0.4, 0.3)
    out = model(pixels, tokens)
    close(ours(tmp_path / "model", pixels, tokens), out)
    export_weights(tmp_path / "model", tmp_path / "back", "openclip")
    about = json.loads((tmp_path / "back" / "open_clip_config.json").read_text())
    assert about["preprocess_cfg"] == pixel_cfg
    again = open_clip.CLIP(**about["model_cfg"]).eval()
    state = foreign.states(tmp_path / "back")["open_clip_model.safetensors"]
    again.load_state_dict(state, strict=True)
    close([a.detach() for a in again(pixels, tokens)[:2]], out)
    if kind == "CLIP":
        there = {k: v for k, v in model.state_dict().items() if k in state}
        same(there, state)


class Module(torch.nn.Module):
    """Parameters under dotted names, and the numbers of OpenAI's archives."""

    def __init__(self, state):
        super().__init__()
        for key, value in state.items():
            head, _, rest = key.partition(".")
            if not rest:
                number = not value.is_floating_point()
                self.register_buffer(key, value) if number else setattr(
                    self, key, torch.nn.Parameter(value)
                )
            elif head not in dict(self.named_children()):
                inner = {k: v for k, v in state.items() if k.startswith(f"{head}.")}
                inner = {k.removeprefix(f"{head}."): v for k, v in inner.items()}
                self.add_module(head, Module(inner))

    def forward(self):
        """Never run here."""
        return 0


TOWERS = {
    "vit": {"layers": 1, "width": 64, "patch_size": 8, "image_size": 16},
    "resnet": {"layers": [1, 2, 1, 1], "width": 8, "image_size": 32},
}


@pytest.mark.parametrize("tower", TOWERS)
def test_openai_archives_without_running_them(tmp_path, tower, monkeypatch):
    made = foreign.tokenizer()
    text = {"context_length": 12, "width": 64, "heads": 1, "layers": 2}
    text["vocab_size"] = made.size
    model = open_clip.CLIP(24, TOWERS[tower], text, quick_gelu=True)
    foreign.shaken(model).half()
    state = model.state_dict()
    module = Module(state)
    side = TOWERS[tower]["image_size"]
    module.input_resolution, module.context_length = side, 12
    module.sizes = [side, 12]
    archive = tmp_path / "CLIP.pt"
    torch.jit.save(torch.jit.script(module), archive)
    monkeypatch.setattr(torch.jit, "load", None)
    monkeypatch.setattr(torch, "load", None)
    assert recognise(archive) == "openai_clip"
    with pytest.raises(BadInput, match="needs its tokenizer"):
        import_weights(archive, tmp_path / "model")
    assert not (tmp_path / "model").exists()
    monkeypatch.setattr("dalle2_jax.convert.parts.OPENAI_VOCAB", made.size)
    monkeypatch.setattr(Tokenizer, "openai", foreign.tokenizer)
    (part,) = import_weights(archive, tmp_path / "model")
    assert part.dtypes == ["float16"]
    _, tokens = batch(made)
    pixels = torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(1))
    close(ours(tmp_path / "model", pixels, tokens), model.float()(pixels, tokens))
    export_weights(tmp_path / "model", tmp_path / "back", "openai_clip")
    back = foreign.states(tmp_path / "back")["clip.safetensors"]
    same({key: value.to(back[key].dtype) for key, value in state.items()}, back)


@pytest.mark.parametrize(
    "where, field, sentence",
    [
        ("vision_cfg", {"pool_type": "avg"}, "vision_cfg.pool_type is not supported"),
        ("text_cfg", {"hf_model_name": "x"}, "text_cfg.hf_model_name is not"),
        ("text_cfg", {"heads": 5}, "impossible sizes|visual.conv1.weight is missing"),
    ],
)
def test_other_openclip_networks_are_refused(tmp_path, where, field, sentence):
    config = {**OPENCLIP, where: {**OPENCLIP[where], **field}}
    path = tmp_path / "open_clip_config.json"
    path.write_text(json.dumps({"model_cfg": config}))
    save_file({"visual.proj": torch.zeros(1)}, tmp_path / "open_clip_model.safetensors")
    with pytest.raises(BadInput, match=sentence):
        import_weights(tmp_path, tmp_path / "model")


def test_bare_openclip_weights_need_their_configuration(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({"visual.proj": torch.zeros(1)}, path)
    assert recognise(path) == "openclip"
    with pytest.raises(BadInput, match="activation and head width.*--config"):
        import_weights(path, tmp_path / "model")
