"""The table of Inception's PyTorch port, and what tells its published file.

`pt_inception-2015-12-05-6726825d.pth` of pytorch-fid is
`weights-inception-2015-12-05-6726825d.pth` of torch-fidelity; Apache-2.0.
"""

from pathlib import Path

from dalle2_jax.components import file_sha256
from dalle2_jax.convert.rename import CONV, LINEAR, SAME, Row
from dalle2_jax.errors import BadInput

NAME = "pt_inception-2015-12-05-6726825d.pth"
BYTES = 95_628_359
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
NORM = {
    "weight": "scale",
    "bias": "bias",
    "running_mean": "mean",
    "running_var": "variance",
}


def inception_table(names):
    """Rows for the convolutions of these paths ("Mixed_5b/branch1x1") and the head."""
    rows = [
        Row("fc.weight", ("fc_kernel",), LINEAR),
        Row("fc.bias", ("fc_bias",), SAME),
    ]
    for ours in names:
        theirs = ours.replace("/", ".")
        rows.append(Row(f"{theirs}.conv.weight", (f"{ours}/conv/kernel",), CONV))
        rows += [
            Row(f"{theirs}.bn.{a}", (f"{ours}/norm/{b}",), SAME)
            for a, b in NORM.items()
        ]
    return rows


def counters(state):
    """The keys that one of the port's two spellings has and the other has not."""
    return [key for key in state if key.endswith(".num_batches_tracked")]


def check_published(path):
    """Nothing, for the published file.

    Raises:
        BadInput: any other file; the sentence says how it differs.
    """
    size = Path(path).stat().st_size
    wrong = f"{size:,} bytes" if size != BYTES else "the SHA-256 " + file_sha256(path)
    if wrong.endswith(SHA256):
        return
    right = f"{BYTES:,} bytes" if size != BYTES else SHA256
    raise BadInput(
        f"{path} has {wrong} and {NAME} has {right}: download that file again, or keep "
        "weights of your own with `dalle2 import --as inception --unpublished`."
    )
