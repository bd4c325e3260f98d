"""Data sets of TensorFlow Datasets: prepared and read without TensorFlow."""

import io
import pickle
import sys
from itertools import islice

import numpy as np
import pytest
from PIL import Image

from dalle2_jax.cli.overrides import load_run
from dalle2_jax.data.batches import captioned_batches
from dalle2_jax.data.prepared import PreparedSource, is_prepared, open_prepared
from dalle2_jax.data.tokens import Tokenizer
from dalle2_jax.errors import BadInput

NAMES = ["cat", "ice_bear"]


def picture(number):
    out = io.BytesIO()
    Image.fromarray(np.full((9, 7, 3), 20 * number, np.uint8)).save(out, "PNG")
    out.seek(0)
    return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three tiny data sets: with captions, with labels, with neither."""
    tfds = pytest.importorskip("tensorflow_datasets")
    features = tfds.features
    kinds = {
        "said": {"captions": features.Sequence({"text": features.Text()})},
        "named": {"label": features.ClassLabel(names=NAMES)},
        "bare": {"number": features.Scalar(np.int64)},
    }
    home = tmp_path_factory.mktemp("tfds")
    for name, more in kinds.items():
        make(tfds, name, more, home)
    return home


def make(tfds, name, more, home):
    def info(self):
        shape = {"image": tfds.features.Image(shape=(None, None, 3)), **more}
        features = tfds.features.FeaturesDict(shape)
        return tfds.core.DatasetInfo(builder=self, features=features)

    def rows(self):
        for i in range(6):
            said = [{"text": f" said {i} {k}"} for k in range(1 + i % 2)]
            values = {"captions": said, "label": i % 2, "number": i}
            kept = {key: values[key] for key in more}
            yield i, {"image": picture(i), **kept}

    parts = {
        "VERSION": tfds.core.Version("1.0.0"),
        "_info": info,
        "_split_generators": lambda self, _: {"train": rows(self)},
        "_generate_examples": rows,
        "code_path": None,  # else importlib_resources is needed to look for it
    }
    builder = type(name, (tfds.core.GeneratorBasedBuilder,), parts)
    builder(data_dir=home, file_format="array_record").download_and_prepare()


def test_captions_and_encoded_pictures(folder):
    source = PreparedSource(f"tfds:{folder}/said/1.0.0:train")
    assert "tensorflow" not in sys.modules
    assert len(source) == 6 and "6 samples" in repr(source)
    for i, record in enumerate(source):
        shade = np.asarray(Image.open(io.BytesIO(record.image)))[0, 0, 0] // 20
        assert record.caption == f"said {shade} 0" == source.caption(i)
    assert list(pickle.loads(pickle.dumps(source)).captions()) == list(
        source.captions()
    )


def test_labels_become_captions(folder):
    source = PreparedSource([f"tfds:{folder}/named/1.0.0:train[:4]"])
    assert len(source) == 4
    assert set(source.captions()) <= {"a photo of a cat", "a photo of an ice bear"}


def test_a_feature_that_is_named_is_the_caption(folder):
    labels = PreparedSource(f"tfds:{folder}/named/1.0.0", "label")
    assert sorted(labels.captions()) == ["0"] * 3 + ["1"] * 3
    numbers = PreparedSource(f"tfds:{folder}/bare/1.0.0", "number")
    assert sorted(numbers.captions()) == list("012345")
    data = load_run("configs/clip.py:small", ["--config.data.caption=title"]).data
    with pytest.raises(BadInput, match="has captions, image, but config.data.caption"):
        open_prepared(f"tfds:{folder}/said/1.0.0", data)


def test_batches_are_made_of_them(folder):
    source = PreparedSource(f"tfds:{folder}/said/1.0.0")
    tokenizer = Tokenizer.train(source.captions(), 600)
    data = load_run("configs/clip.py:small").data
    batches = captioned_batches(source, tokenizer, data, 3, 0)
    both = list(islice(batches, 2))
    shades = np.concatenate([batch.image[:, 0, 0, 0] for batch in both])
    assert sorted(shades // 20) == list(range(6))
    for batch in both:
        for image, ids in zip(*batch):
            assert tokenizer.decode(ids) == f"said {image[0, 0, 0] // 20} 0"


def refusal(data):
    """What the data set is refused with."""
    with pytest.raises(BadInput) as error:
        PreparedSource(data)
    return str(error.value)


def test_what_cannot_be_read_is_said(folder):
    assert "Unknown split 'test'" in refusal(f"tfds:{folder}/said/1.0.0:test")
    lacks = "has image, number; a picture and a caption"
    assert lacks in refusal(f"tfds:{folder}/bare/1.0.0")
    assert "cannot be read" in refusal(f"tfds:{folder}/nothing")
    assert "names no data set" in refusal("tfds::train")
    assert is_prepared("tfds:mnist") and is_prepared(["tfds:mnist"])
    assert not is_prepared("shards/0.tar") and not is_prepared(["a", "tfds:b"])


def test_samples_without_a_caption_give_way_to_others(folder, monkeypatch):
    source = PreparedSource(f"tfds:{folder}/said/1.0.0")
    monkeypatch.setattr(source, "_caption", lambda value: "")
    words = ["--config.data.bad=1.0"]
    data = load_run("configs/clip.py:small", words).data
    batches = captioned_batches(source, Tokenizer.train(["a"], 600), data, 3, 0)
    with pytest.raises(BadInput, match="has no caption"):
        next(batches)


def test_what_only_shards_have_is_refused(folder):
    name = f"tfds:{folder}/said/1.0.0"
    for change, field in (
        ("keep=('width>1',)", "keep"),
        ("shuffle_shards=2", "shuffle_shards"),
    ):
        data = load_run("configs/clip.py:small", [f"--config.data.{change}"]).data
        with pytest.raises(BadInput, match=f"config.data.{field} is for"):
            open_prepared(name, data)


def test_another_format_is_said(folder, tmp_path):
    import shutil

    shutil.copytree(folder / "said", tmp_path / "said")
    info = tmp_path / "said" / "1.0.0" / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    assert "file_format='array_record'" in refusal(f"tfds:{tmp_path}/said/1.0.0")
