"""Naming and finding, on vectors whose answer is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dalle2_jax.clip.contrastive import Clip, ClipConfig, example
from dalle2_jax.clip.image import ImageTowerConfig
from dalle2_jax.clip.text import TextTowerConfig
from dalle2_jax.clip.zero_shot import class_vectors, classify, retrieval
from dalle2_jax.components import Component
from dalle2_jax.data.tokens import Tokenizer
from dalle2_jax.errors import BadInput
from dalle2_jax.layers.embeddings import normalised
from dalle2_jax.layers.init import init_params
from dalle2_jax.unclip import encode_captions, encode_images, from_uint8

CFG = ClipConfig(
    8, ImageTowerConfig(16, 8, 16, 1, 2), TextTowerConfig(600, 12, 16, 1, 2)
)
NAMES = ["ring", "square", "cross"]


@pytest.fixture(scope="module")
def clip():
    return Component(CFG, None, init_params(Clip(CFG), 0, *example(CFG)), {})


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(["a ring", "a square", "a cross", "a photo of"] * 3, 600)


def test_probabilities_are_the_softmax_of_scaled_cosines(clip, tokenizer):
    images = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8)
    found = classify(clip, tokenizer, images, NAMES, batch=2)
    see, read = (jax.jit(f, static_argnums=0) for f in (encode_images, encode_captions))
    z_text = read(CFG, clip.params, jnp.asarray(tokenizer.encode(NAMES, 12))).pooled
    logits = see(CFG, clip.params, from_uint8(images)) @ z_text.T / 0.07
    expected = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(found, expected, rtol=2e-4)
    assert classify(clip, tokenizer, images[:0], NAMES).shape == (0, 3)


def test_a_class_is_the_mean_of_its_captions(clip, tokenizer):
    texts = ("a {}", "a photo of {}")
    both = class_vectors(clip, tokenizer, NAMES, texts)
    apart = [class_vectors(clip, tokenizer, NAMES, (text,)) for text in texts]
    np.testing.assert_allclose(both, normalised(sum(apart) / 2), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(both, axis=-1), 1, rtol=1e-5)


def test_what_is_known_is_found(clip, tokenizer):
    """A tower whose vector is that of class 2, whatever the picture."""
    classes = class_vectors(clip, tokenizer, NAMES)
    image = {**clip.params["image"], "projection": {"kernel": np.zeros((16, 8), "f")}}
    rigged = clip._replace(params={**clip.params, "image": image})
    alike = classify(rigged, tokenizer, np.zeros((1, 16, 16, 3), np.uint8), NAMES)
    np.testing.assert_allclose(alike, 1 / 3, rtol=1e-5)
    norm_out = {"scale": np.zeros(16, "f"), "bias": np.eye(16, dtype="f")[0]}
    kernel = np.zeros((16, 8), "f")
    kernel[0] = classes[2]
    image = {**image, "norm_out": norm_out, "projection": {"kernel": kernel}}
    rigged = clip._replace(params={**clip.params, "image": image})
    sure = classify(rigged, tokenizer, np.zeros((1, 16, 16, 3), np.uint8), NAMES)
    assert sure.argmax() == 2


@pytest.mark.parametrize(
    ("names", "templates", "words"),
    [([], ("{}",), "needs a class"), (NAMES, ("a photo",), "'a photo' has no {}")],
)
def test_questions_without_an_answer_are_refused(
    clip, tokenizer, names, templates, words
):
    with pytest.raises(BadInput, match=words):
        class_vectors(clip, tokenizer, names, templates)


def test_half_a_clip_cannot_see(clip, tokenizer):
    blind = clip._replace(cfg=ClipConfig(8, None, CFG.text))
    with pytest.raises(BadInput, match="no image tower"):
        classify(blind, tokenizer, np.zeros((1, 16, 16, 3), np.uint8), NAMES)


def test_recall_of_pairs_shifted_by_a_known_rank():
    """Caption i is closest to picture i - 2, then i - 1, then its own."""
    n = 20
    turn = np.arange(n) * 0.1
    circle = np.stack([np.cos(turn), np.sin(turn)], -1)
    later = np.stack([np.cos(turn + 0.14), np.sin(turn + 0.14)], -1)
    perfect = retrieval(circle, circle)
    assert set(perfect.values()) == {1.0} and len(perfect) == 6
    found = retrieval(circle, later, at=(1, 2, 3), chunk=7)
    assert found["text_to_image@1"] == pytest.approx(1 / n)  # the last has no later one
    assert found["text_to_image@2"] == pytest.approx(2 / n)
    assert found["text_to_image@3"] == 1.0
    assert found["image_to_text@1"] == pytest.approx(1 / n)


def test_vectors_that_are_all_alike_find_nothing():
    same = np.ones((12, 1), np.float32)
    assert set(retrieval(same, same).values()) == {0.0}
    few = retrieval(same[:4], same[:4])
    assert few["image_to_text@1"] == 0.0 and few["image_to_text@5"] == 1.0
