"""What finds what in CLIP's space: recall@k (CLIP §3), R-precision (AttnGAN §4.1)."""

import numpy as np

RANKS = (1, 5, 10)


def retrieval(z_image, z_text, captions=None, ranks=RANKS):
    """How often a picture finds its caption among the nearest, and a caption a picture.

    Pictures with the same caption are all right answers to it; a caption counts once,
    however many pictures it has. Of equal cosines the wrong one comes first, so that
    embeddings that tell nothing apart find nothing.

    Args:
        z_image, z_text: unit [n, d], of matching rows.
        captions: n strings, to know equal ones; None: all differ.
        ranks: the k of recall@k.

    Returns:
        {"image_to_text": {k: fraction of n pictures},
         "text_to_image": {k: fraction of distinct captions}}.
    """
    first, group = _distinct(captions, len(z_image))
    cosines = np.asarray(z_image, np.float64) @ np.asarray(z_text, np.float64)[first].T
    right = group[:, None] == np.arange(len(first))
    return {
        "image_to_text": _recall(cosines, right, ranks),
        "text_to_image": _recall(cosines.T, right.T, ranks),
    }


def r_precision(z_picture, z_text, captions=None, distractors=99, seed=0):
    """How often a drawn picture is closer to its caption than to each of 99 others.

    Args:
        z_picture, z_text: unit [n, d]: of the pictures, and of their own captions.
        captions: as in `retrieval`.
        distractors: captions of other rows, drawn anew for every picture; all there are
            where there are fewer.
        seed: picture i's distractors are a function of (seed, i).

    Returns:
        (fraction of n, distractors used).
    """
    first, group = _distinct(captions, len(z_picture))
    used = min(distractors, len(first) - 1)
    found = []
    for i, z in enumerate(np.asarray(z_picture, np.float64)):
        chosen = np.random.default_rng([seed, i]).permutation(len(first))
        wrong = chosen[chosen != group[i]][:used]
        others = np.asarray(z_text, np.float64)[first[wrong]] @ z
        found.append(np.dot(z_text[i], z) > others.max(initial=-np.inf))
    return float(np.mean(found)), used


def _distinct(captions, n):
    """Rows where distinct captions first stand, [m]; the caption's number, [n]."""
    captions = np.arange(n) if captions is None else np.asarray(captions, dtype=object)
    _, first, group = np.unique(
        captions.astype(str), return_index=True, return_inverse=True
    )
    return first, group


def _recall(cosines, right, ranks):
    """Of [queries, answers]: how often one of the right ones is among the first k."""
    best = np.where(right, cosines, -np.inf).max(1, keepdims=True)
    ahead = ((cosines >= best) & ~right).sum(1)
    return {k: float(np.mean(ahead < k)) for k in ranks}
