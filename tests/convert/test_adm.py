"""ADM's and GLIDE's tables: recorded weights through them and back, what is refused."""

from pathlib import Path

import numpy as np
import pytest

from dalle2_jax.convert import adm, glide
from dalle2_jax.convert.parity import read_case
from dalle2_jax.convert.parity_adm import import_adm, import_classifier, import_glide
from dalle2_jax.convert.rename import export_params
from dalle2_jax.errors import BadInput

DATA = Path(__file__).parent.parent / "parity" / "data"


def classifier_rows(cfg, shapes):
    return adm.classifier_table(cfg, shapes)


def superres_rows(cfg, shapes):
    return adm.decoder_table(cfg, shapes)


CASES = {  # import, table
    "classifier_guided_diffusion": (import_classifier, classifier_rows),
    "superres_guided_diffusion": (import_adm, superres_rows),
    "glide_text2im": (import_glide, glide.glide_table),
    "glide_inpaint": (import_glide, glide.glide_table),
    "glide_superres": (import_glide, glide.glide_table),
}


@pytest.mark.parametrize("family", CASES)
def test_import_then_export_gives_the_file_back(family):
    case = read_case(DATA / f"{family}.safetensors")
    read, table = CASES[family]
    cfg, params = read(case)
    back = export_params(params, table(cfg, params))
    assert back.keys() == case.params.keys()
    for key, value in back.items():
        np.testing.assert_array_equal(value, case.params[key], err_msg=key)


def test_a_classifier_that_pools_otherwise_is_refused():
    arguments = adm.GUIDED_FILES["64x64_classifier.pt"].arguments
    with pytest.raises(BadInput, match="pool"):
        adm.classifier_config({**arguments, "pool": "spatial"})


def test_a_glide_without_learned_padding_is_refused():
    arguments = glide.GLIDE_FILES["base.pt"].arguments
    with pytest.raises(BadInput, match="xf_padding"):
        glide.glide_config({**arguments, "xf_padding": False})
