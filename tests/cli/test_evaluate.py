"""`dalle2 evaluate` from its command line: numbers, files, what it refuses."""

import json

import numpy as np
import pytest
from PIL import Image

from dalle2_jax.cli.main import main
from dalle2_jax.evaluate import features
from dalle2_jax.evaluate.resize import RESIZES

METRICS = "fid,kid,clip_score,cmmd,precision,recall,density,coverage"


def evaluate(*words):
    return main(["evaluate", *map(str, words)])


@pytest.fixture(scope="module")
def drawn(folder, shards, tmp_path_factory):
    """What one ordinary call leaves: 22 samples against as many pictures."""
    home = tmp_path_factory.mktemp("drawn")
    words = ("--model", folder, "--data", *shards, "--n", 22, "--metrics", METRICS)
    kept = ("--keep-samples", home / "kept", "--write-reference", home / "real.npz")
    assert evaluate(*words, *kept, "--unit", 4, "--out", home / "scores.json") == 0
    return home


def scores_of(path):
    return json.loads(path.read_text())["scores"]


def values(path):
    return {name: found["value"] for name, found in scores_of(path).items()}


def test_every_number_says_how_it_was_measured(drawn):
    found = scores_of(drawn / "scores.json")
    assert list(found) == [*METRICS.split(","), "clip_score_reference"]
    fid = found["fid"]
    assert fid["n"] == fid["reference"]["n"] == 22
    assert fid["features"].startswith("CLIP of") and fid["resize"] == "its own"
    assert fid["samples"]["sampling"]["decoder"] == {
        "sampler": "ancestral",
        "steps": "4",
        "guidance": 2.0,
    }
    keys = (fid["features_sha256"], fid["reference"]["sha256"])
    keys += (fid["samples"]["sha256"], fid["samples"]["model_sha256"])
    assert all(len(key) == 64 for key in keys) and len(set(keys)) == 4
    assert fid["samples"]["seed"] == 0 and fid["version"]
    assert found["kid"]["subset_size"] == 22
    assert not (drawn / "scores.json.work").exists()


def test_batches_change_no_number(drawn, folder, shards, tmp_path):
    words = ("--model", folder, "--data", *shards, "--n", 22, "--metrics", METRICS)
    for batch in (7, 64):
        out = tmp_path / f"{batch}.json"
        assert evaluate(*words, "--unit", 4, "--batch", batch, "--out", out) == 0
        assert values(out) == values(drawn / "scores.json")


def test_kept_samples_give_the_same_numbers(drawn, folder, tmp_path):
    kept = sorted((drawn / "kept").glob("*.png"))
    assert len(kept) == 22
    np.savez(tmp_path / "kept.npz", arr_0=np.stack([Image.open(p) for p in kept]))
    words = ("--clip", folder, "--reference", drawn / "real.npz", "--unit", 4)
    for number, samples in enumerate((drawn / "kept", tmp_path / "kept.npz")):
        out = tmp_path / f"{number}.json"
        chosen = ("--metrics", "fid,kid,recall", "--out", out, "--samples", samples)
        assert evaluate(*words, *chosen) == 0
        found, before = scores_of(out), scores_of(drawn / "scores.json")
        for name in ("fid", "kid", "recall"):
            assert np.isclose(found[name]["value"], before[name]["value"], rtol=1e-9)
        digests = [one["fid"]["samples"]["sha256"] for one in (found, before)]
        assert digests[0] == digests[1]


def test_samples_are_exported_as_one_file(drawn, folder, tmp_path):
    out = tmp_path / "again.npz"
    words = ("--samples", drawn / "kept", "--clip", folder, "--data", drawn / "kept")
    assert evaluate(*words, "--metrics", "fid", "--keep-samples", out) == 0
    with np.load(out) as file:
        assert file["arr_0"].shape == (22, 16, 16, 3)
        assert file["arr_0"].dtype == np.uint8


def test_a_result_of_other_settings_is_not_written_over(drawn, folder, shards, capsys):
    out = drawn / "scores.json"
    before = out.read_bytes()
    words = ("--model", folder, "--data", *shards, "--n", 22, "--unit", 4)
    said = refused(capsys, *words, "--metrics", METRICS, "--seed", 1, "--out", out)
    assert "holds the scores of another samples.seed; choose another --out" in said
    assert out.read_bytes() == before


def test_statistics_of_another_size_are_refused(drawn, folder, tmp_path, capsys):
    other = {"mu": np.zeros(8), "sigma": np.eye(8), "num_samples": 9}
    with np.load(drawn / "real.npz") as file:
        np.savez(tmp_path / "a.npz", **other, protocol=file["protocol"])
    words = ("--samples", drawn / "kept", "--clip", folder, "--metrics", "fid")
    said = refused(capsys, *words, "--reference", tmp_path / "a.npz")
    assert "is of 8 features a picture, the samples have 16" in said


def test_a_plugin_takes_the_features(drawn, tmp_path, monkeypatch, capsys):
    (tmp_path / "colours.py").write_text(
        "def mean(images):\n    return images.mean((1, 2)).astype('float32')\n"
        "def wrong(images):\n    return images\n"
    )
    monkeypatch.chdir(tmp_path)
    words = ("--samples", drawn / "kept", "--data", drawn / "kept", "--metrics", "fid")
    out = tmp_path / "a.json"
    assert evaluate(*words, "--features", "colours:mean", "--out", out) == 0
    fid = scores_of(out)["fid"]
    assert abs(fid["value"]) < 1e-6 and fid["features"] == "colours:mean"
    said = refused(capsys, *words, "--features", "colours:wrong")
    assert "it must return one row of numbers for each" in said
    assert "cannot be imported" in refused(capsys, *words, "--features", "colours:no")


def test_coco_by_its_protocol(folder, tmp_path, capsys):
    rng, coco, entries = np.random.default_rng(0), tmp_path / "coco", []
    (coco / "val2014").mkdir(parents=True)
    for number in range(6):
        image = Image.fromarray(rng.integers(0, 256, (270, 260, 3), dtype=np.uint8))
        image.save(coco / "val2014" / f"COCO_val2014_{number:012d}.jpg")
        entries.append({"image_id": number, "id": number, "caption": "a red ring"})
    words = ("--model", folder, "--protocol", "coco2014-val-30k-v1", "--data", coco)
    words += ("--metrics", "fid,clip_score", "--n", 4, "--unit", 4)
    said = refused(capsys, *words)
    assert "captions_val2014.json does not exist" in said
    (coco / "captions_val2014.json").write_text(json.dumps({"annotations": entries}))
    out = tmp_path / "coco.json"
    assert evaluate(*words, "--out", out) == 0
    fid = scores_of(out)["fid"]
    assert fid["protocol"] == "coco2014-val-30k-v1, but n=4, references=6"
    assert fid["reference"]["n"] == 6 and fid["size"] == 256 and fid["n"] == 4


@pytest.fixture
def shrinking(monkeypatch):
    """In Inception's place: 4 x 4 pixels by the rule of resize."""

    def extractor(path, resize="legacy_tf"):
        def function(images):
            return {"pool": RESIZES[resize](images, 4).reshape(len(images), -1)}

        return features.Extractor("inception", function, resize, "weights")

    monkeypatch.setattr(features, "inception_extractor", extractor)


def test_coco_has_fid_by_both_rules_of_resize(folder, tmp_path, capsys, shrinking):
    rng, coco, lines = np.random.default_rng(0), tmp_path / "coco", ["image_id,text"]
    (coco / "val2014").mkdir(parents=True)
    for number in range(5):
        image = Image.fromarray(rng.integers(0, 256, (260, 256, 3), dtype=np.uint8))
        image.save(coco / "val2014" / f"COCO_val2014_{number:012d}.jpg")
        lines.append(f"{number},a red ring")
    (tmp_path / "list.csv").write_text("\n".join(lines))
    words = ("--model", folder, "--protocol", "coco2014-val-30k-v1", "--data", coco)
    words += ("--captions", tmp_path / "list.csv", "--n", 4, "--unit", 4)
    out = tmp_path / "coco.json"
    assert evaluate(*words, "--inception", "any", "--out", out) == 0
    found = scores_of(out)
    assert list(found)[:2] == ["fid_clean", "fid"] and "clip_score" in found
    rules = found["fid_clean"]["resize"], found["fid"]["resize"]
    assert rules == ("clean", "legacy_tf")
    assert found["fid_clean"]["value"] != found["fid"]["value"]
    assert found["fid_clean"]["reference"] == found["fid"]["reference"]
    said = refused(capsys, *words, "--metrics", "fid_clean")
    assert "fid_clean needs Inception; give --inception FILE" in said


def test_what_features_lack_is_said_before_anything_is_drawn(
    drawn, folder, shards, tmp_path, capsys, shrinking
):
    words = ("--model", folder, "--data", *shards, "--n", 4)
    kept = ("--keep-samples", tmp_path / "kept")
    said = refused(capsys, *words, *kept, "--metrics", "fid,is")
    assert "is needs logits of" in said and not (tmp_path / "kept/000000.png").exists()
    words = ("--samples", drawn / "kept", "--inception", "any")
    real = tmp_path / "real.npz"
    assert (
        evaluate("--data", drawn / "kept", *words[2:], "--write-reference", real) == 0
    )
    words += ("--clip", folder, "--reference", real)
    for name in ("cmmd", "fid_clean"):
        said = refused(capsys, *words, "--metrics", name)
        assert f"{name} needs reference pictures: statistics are of one" in said


def refused(capsys, *words):
    """The sentence on stderr of a call that exits with 2, after what it told."""
    capsys.readouterr()
    assert evaluate(*words) == 2
    err = capsys.readouterr().err
    assert "Traceback" not in err
    return err.splitlines()[-1]


def test_bad_input_is_one_sentence(drawn, folder, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    kept, clip = ("--samples", drawn / "kept"), ("--clip", folder)
    against = ("--data", drawn / "kept")
    for said, *words in (
        ("--n must be at least 2, not 1", *kept, *clip, *against, "--n", 1),
        ("holds no pictures", "--samples", tmp_path / "empty", *clip, *against),
        ("give --model DIR, which draws, or --samples", *against),
        ("give --data, --captions or --world", "--model", folder),
        ("no feature network: give --inception FILE", *kept, *against),
        ("fid needs a reference; give --data", *kept, *clip, "--metrics", "fid"),
        ("is needs logits of", *kept, *clip, *against, "--metrics", "is"),
        ("--metrics fd: fd is no metric", *kept, *clip, *against, "--metrics", "fd"),
        ("clip_score needs the samples' captions", *kept, *clip, *against),
        ("--protocol x is not known", *kept, *clip, *against, "--protocol", "x"),
        ("--resize x is none of", *kept, *clip, *against, "--resize", "x"),
        ("crop must be one of", *kept, *clip, *against, "--crop", "x"),
        ("holds 22 pictures; ask for no more", *kept, *clip, *against, "--n", 23),
    ):
        assert said in refused(capsys, *words)


def test_a_wrong_weight_file_is_refused(drawn, folder, tmp_path, capsys):
    (tmp_path / "inception.pth").write_bytes(b"words" * 99)
    words = ("--samples", drawn / "kept", "--data", drawn / "kept")
    said = refused(capsys, *words, "--inception", tmp_path / "inception.pth")
    assert "inception.pth" in said


def test_too_few_pictures_for_neighbours_lose_nothing_else(drawn, folder, tmp_path):
    words = ("--samples", drawn / "kept", "--data", drawn / "kept", "--clip", folder)
    out = [tmp_path / f"{name}.json" for name in ("few", "one", "all")]
    asked = ("--metrics", "fid,precision,density", "--n", 4)
    assert evaluate(*words, *asked, "--n-reference", 4, "--out", out[0]) == 0
    found = scores_of(out[0])
    assert found["fid"]["value"] is not None and "reason" not in found["fid"]
    assert found["precision"]["value"] is not None  # 3 neighbours of 4
    assert (
        found["density"]["value"] is None and "neighbours" in found["density"]["reason"]
    )
    chosen = ("--neighbours", 1, "--n-reference", 4)
    assert evaluate(*words, *asked, *chosen, "--out", out[1]) == 0
    assert scores_of(out[1])["density"]["neighbours"] == 1
    assert values(out[1])["density"] is not None
    assert values(out[1])["fid"] == values(out[0])["fid"]


def test_numbers_that_cannot_be_had_at_all_are_refused(drawn, folder, capsys):
    words = ("--samples", drawn / "kept", "--data", drawn / "kept", "--clip", folder)
    asked = ("--metrics", "precision,recall", "--neighbours", 22)
    assert "--neighbours" in refused(capsys, *words, *asked)


def test_weights_of_no_publication_do_not_take_its_name(monkeypatch):
    from dalle2_jax.convert.inception import SHA256
    from dalle2_jax.evaluate import inception

    names = []
    for digest in (SHA256, "0" * 64):
        made = inception.Inception({}, digest)
        monkeypatch.setattr(inception, "load_inception", lambda path, made=made: made)
        names.append(features.inception_extractor("inception.safetensors").name)
    assert names[0] == "inception-2015-12-05" and "2015" not in names[1]
