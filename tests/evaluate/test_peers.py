"""Our numbers beside torch-fidelity's and clean-fid's, from the same PNG files.

Weights are made up and calibrated: with untrained ones all pictures have the same
features and every comparison passes. `make test-peers` installs both packages.
"""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from dalle2_jax.data.write_shapes import evaluation_specs
from dalle2_jax.evaluate.frechet import frechet_distance, moments
from dalle2_jax.evaluate.inception import inception_features, load_inception
from dalle2_jax.evaluate.inception_score import inception_score
from dalle2_jax.evaluate.kernel import cubic, kid, mmd2
from dalle2_jax.evaluate.neighbours import precision_recall
from dalle2_jax.evaluate.parity import drawn_state

importlib.import_module("torchvision_names")
NEEDS = "{} is not installed; `make test-peers` installs it and runs this"
torch_fidelity = pytest.importorskip(
    "torch_fidelity", reason=NEEDS.format("torch-fidelity")
)
clean_fid = pytest.importorskip("cleanfid.fid", reason=NEEDS.format("clean-fid"))
pytestmark = pytest.mark.slow
RECORDED = Path(__file__).parent.parent / "parity/data/inception_fid.safetensors"
COUNT, FEW, SUBSET = 240, 60, 100


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    """[(folder of PNGs, the same as uint8 [n, 64, 64, 3])]: generated, then real."""
    rng, found = np.random.default_rng(0), []
    for seed, noise in ((1, 12), (2, 4)):
        images = evaluation_specs("simple", COUNT, seed).images
        images = np.clip(images + rng.normal(0, noise, images.shape), 0, 255)
        images = images.astype(np.uint8)
        folder = tmp_path_factory.mktemp(f"side_{seed}")
        for i, image in enumerate(images):
            Image.fromarray(image).save(folder / f"{i:05d}.png")
        found.append((folder, images))
    return found


@pytest.fixture(scope="module")
def weights(tmp_path_factory, sides):
    """The port's form, with the statistics that its BatchNorms have of pictures."""
    with safe_open(RECORDED, framework="numpy") as file:
        shapes = json.loads(file.metadata()["param_shapes"])
    path = tmp_path_factory.mktemp("weights") / "made_up.pth"
    state = {k: torch.from_numpy(v) for k, v in drawn_state(shapes, seed=3).items()}
    torch.save(state, path)
    network = theirs(path)
    norms = (m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d))
    for norm in norms:
        norm.momentum = None  # a plain mean over batches
        norm.reset_running_stats()
    pictures = np.concatenate([images[:32] for _, images in sides])
    with torch.no_grad():
        network.train()(torch.from_numpy(pictures.transpose(0, 3, 1, 2).copy()))
    torch.save(network.state_dict(), path)
    return path


def theirs(path):
    """torch-fidelity's network."""
    module = importlib.import_module("torch_fidelity.feature_extractor_inceptionv3")
    return module.FeatureExtractorInceptionV3(
        "made up", ["2048", "logits_unbiased"], feature_extractor_weights_path=path
    )


def ours(path, sides, resize, count=COUNT):
    inception = load_inception(path, published=False)
    return [inception_features(inception, x[:count], resize) for _, x in sides]


def test_torch_fidelity(weights, sides):
    generated, real = ours(weights, sides, "legacy_tf")
    assert generated["pool"].std(0).mean() > 0.1
    want = torch_fidelity.calculate_metrics(
        input1=str(sides[0][0]),
        input2=str(sides[1][0]),
        fid=True,
        kid=True,
        isc=True,
        prc=True,
        feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=str(weights),
        kid_subset_size=SUBSET,
        cuda=False,
        cache=False,
        verbose=False,
    )
    x, y = generated["pool"], real["pool"]
    found = {
        "frechet_inception_distance": frechet_distance(moments(x), moments(y)),
        **pair("kernel_inception_distance", kid(x, y, size=SUBSET)),
        **pair("inception_score", inception_score(generated["logits"])),
        **dict(zip(("precision", "recall"), precision_recall(y, x))),
    }
    show("torch-fidelity", found, want)
    assert 0 < found["precision"] < 1
    assert 0 < found["recall"] < 1
    assert found["inception_score_mean"] > 1.05
    for name, value in found.items():
        assert value == pytest.approx(want[name], abs=ALLOWED[name[:9]]), name


def test_the_spatial_features_are_those_of_the_graphs_mixed_6(weights, sides):
    """`mixed_6/conv` of the graph is `Mixed_6d.branch1x1` of the port."""
    network, seen = theirs(weights), []
    network.Mixed_6d.branch1x1.register_forward_hook(lambda *found: seen.append(found))
    network(torch.from_numpy(sides[0][1][:4].transpose(0, 3, 1, 2).copy()))
    want = seen[0][-1][:, :7].permute(0, 2, 3, 1).reshape(4, 17 * 17 * 7)
    found = ours(weights, sides[:1], "legacy_tf", 4)[0]["spatial"]
    np.testing.assert_allclose(found, want.numpy(), rtol=1e-4, atol=1e-4)


ALLOWED = {  # by the beginning of a name
    "frechet_i": 1e-3,
    "kernel_in": 1e-6,
    "inception": 1e-4,
    "precision": 1e-7,  # theirs are float32
    "recall": 1e-7,
}


def test_functions_of_the_same_features():
    """No network between: what is left is the packages' own float32."""
    rng = np.random.default_rng(0)
    x = rng.gamma(1, 0.4, (400, 96)).astype(np.float32)
    y = rng.gamma(1.2, 0.4, (300, 96)).astype(np.float32)
    peer = {
        name: importlib.import_module(f"torch_fidelity.metric_{name}")
        for name in ("fid", "kid", "isc", "prc")
    }
    a, b = torch.from_numpy(x), torch.from_numpy(y)
    statistics = (peer["fid"].fid_features_to_statistics(z) for z in (a, b))
    kernel = {"kid_subset_size": SUBSET, "verbose": False}
    want = {
        **peer["fid"].fid_statistics_to_metric(*statistics, False),
        **peer["kid"].kid_features_to_metric(a.double(), b.double(), **kernel),
        **peer["isc"].isc_features_to_metric(a),
        **peer["prc"].prc_features_to_metric(a, b, verbose=False),
    }
    found = {
        "frechet_inception_distance": frechet_distance(moments(x), moments(y)),
        **pair("kernel_inception_distance", kid(x, y, size=SUBSET)),
        **pair("inception_score", inception_score(x)),
        **dict(zip(("precision", "recall"), precision_recall(y, x))),
    }
    show("torch-fidelity, same features", found, want)
    for name, value in found.items():
        assert value == pytest.approx(want[name], rel=1e-6), name


@pytest.mark.parametrize("mode", ["clean", "legacy_pytorch"])
def test_clean_fid(weights, sides, mode, tmp_path, monkeypatch):
    folders = []
    for folder, _ in sides:
        few = tmp_path / folder.name
        few.mkdir()
        for i in range(FEW):
            name = f"{i:05d}.png"
            (few / name).symlink_to(folder / name)
        folders.append(str(few))
    network = {"clean": published_scale, "legacy_pytorch": pytorch_fid}[mode]
    network = network(weights, monkeypatch)
    options = {"mode": mode, "num_workers": 0, "verbose": False}
    options |= {"device": torch.device("cpu")}
    their_x, their_y = (
        clean_fid.get_folder_features(folder, network, **options) for folder in folders
    )
    np.random.seed(0)
    want = {
        "frechet_i": clean_fid.fid_from_feats(their_x, their_y),
        "kernel_in": clean_fid.kernel_distance(their_x, their_y, 1, FEW),
    }
    x, y = (side["pool"] for side in ours(weights, sides, mode, FEW))
    np.testing.assert_allclose(x, their_x, atol=2e-4)
    found = {"frechet_i": frechet_distance(moments(x), moments(y))}
    found["kernel_in"] = mmd2(cubic, *(z.astype(np.float64) for z in (x, y)))
    show(f"clean-fid {mode}", found, want)
    for name, value in found.items():
        assert value == pytest.approx(want[name], abs=ALLOWED[name]), name


def published_scale(weights, monkeypatch):
    """The network that clean-fid downloads, as a function of resized pictures."""
    layers = torch.nn.Sequential(*list(theirs(weights).children())[:-1])
    return lambda x: layers((x - 128) / 128).flatten(1)


def pytorch_fid(weights, monkeypatch):
    """clean-fid's copy of pytorch-fid's network."""
    module = importlib.import_module("cleanfid.inception_pytorch")
    state = torch.load(weights, weights_only=True)
    monkeypatch.setattr(module, "load_state_dict_from_url", lambda *_, **__: state)
    features = importlib.import_module("cleanfid.features")
    device = torch.device("cpu")
    return features.build_feature_extractor("legacy_pytorch", device, False)


def pair(name, mean_and_spread):
    return dict(zip((f"{name}_mean", f"{name}_std"), mean_and_spread))


def show(package, found, want):
    """For the reports: pytest prints it with -s."""
    for name, value in found.items():
        apart = abs(value - want[name])
        print(f"{package}: {name} {value:.9g}, theirs {want[name]:.9g}, {apart:.1e}")
