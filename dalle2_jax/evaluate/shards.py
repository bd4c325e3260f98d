"""CLIP score and Fréchet distance of samples against a set of real pictures."""

import numpy as np

from dalle2_jax.data.images import decode
from dalle2_jax.data.records import ShardSource
from dalle2_jax.errors import BadInput
from dalle2_jax.evaluate.clip_score import clip_score, image_features, text_features
from dalle2_jax.evaluate.frechet import frechet_distance, moments
from dalle2_jax.unclip import generate


def judge_shards(model, data, n, seed, how):
    """Scores of pictures drawn for the captions of the first n records of tar shards.

    The real pictures are resized to CLIP's own input size; each side has n pictures.

    Raises:
        BadInput: the shards hold fewer than n records.
    """
    source = ShardSource(data)
    if len(source) < n:
        raise BadInput(f"{data} holds {len(source)} records; lower --n from {n}.")
    records = [source[i] for i in range(n)]
    size = model.clip.cfg.image.size
    real = np.stack([decode(r.image, size, f"{r.shard}: {r.key}") for r in records])
    captions = [record.caption for record in records]
    pictures = np.concatenate(list(generate(model, captions, seed, how=how)))
    z, z_real = image_features(model.clip, pictures), image_features(model.clip, real)
    z_text = text_features(model.clip, model.tokenizer, captions)
    return {
        "clip_score": clip_score(z, z_text),
        "clip_score_real": clip_score(z_real, z_text),
        "frechet_clip": frechet_distance(moments(z), moments(z_real)),
        "n": n,
    }
