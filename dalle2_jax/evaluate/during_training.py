"""What a training run is told of its pictures now and then (train/judged.py)."""

from dalle2_jax.evaluate.clip_score import clip_score, unit
from dalle2_jax.evaluate.frechet import frechet_distance, moments


def judge(z, z_real, z_text):
    """Numbers of drawn pictures in the space of the run's CLIP.

    Args:
        z, z_real, z_text: [n, clip] of what was drawn, of the real pictures and of
            their captions; of length 1 where CLIP's are.

    Returns:
        {"frechet_clip", "clip_score", "clip_score_real", "cosine_to_real"}.
    """
    z, z_real, z_text = (unit(x) for x in (z, z_real, z_text))
    return {
        "frechet_clip": frechet_distance(moments(z), moments(z_real)),
        "clip_score": clip_score(z, z_text),
        "clip_score_real": clip_score(z_real, z_text),
        "cosine_to_real": clip_score(z, z_real),
    }
