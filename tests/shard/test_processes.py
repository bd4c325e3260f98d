"""Processes: what an environment says, and what is said of one that is set in part."""

import jax
import numpy as np
import pytest

from dalle2_jax.errors import BadInput
from dalle2_jax.shard.mesh import MeshConfig, make_mesh
from dalle2_jax.shard.processes import (
    ASKED,
    CLUSTERS,
    Place,
    _see_every_device,
    asked,
    barrier,
    detect,
    is_first,
    start_processes,
    whole,
)

SLURM = dict.fromkeys(CLUSTERS["Slurm"].needs, "1")


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    names = {n for c in CLUSTERS.values() for n in (*c.marks, *c.needs)}
    for name in (*names, *ASKED):
        monkeypatch.delenv(name, raising=False)


def test_without_a_cluster_there_is_one_process():
    assert start_processes() == Place("one process", 0, 1, None)
    assert start_processes(count=1) == Place("one process", 0, 1, None)
    assert is_first()
    barrier("alone")


@pytest.mark.parametrize("name", CLUSTERS)
def test_a_cluster_is_known_by_its_variables(name):
    cluster = CLUSTERS[name]
    full = dict.fromkeys((*cluster.needs, cluster.marks[0]), "1")
    assert detect(full) == name
    assert detect({}) is None


@pytest.mark.parametrize("missing", [n for n in SLURM if n != "SLURM_JOB_ID"])
def test_a_cluster_set_in_part_is_refused_by_name(missing):
    some = {k: v for k, v in SLURM.items() if k != missing}
    with pytest.raises(BadInput, match=f"SLURM_JOB_ID set without {missing}.*srun"):
        detect(some)


def test_a_whole_cluster_wins_over_a_part_of_another():
    assert detect({**SLURM, "JOB_COMPLETION_INDEX": "0"}) == "Slurm"


@pytest.mark.parametrize("name", ["Slurm", "GKE TPU", "TPU slices", "Open MPI"])
def test_one_variable_of_a_cluster_is_too_few(name, monkeypatch):
    monkeypatch.setenv(CLUSTERS[name].marks[0], "1")
    with pytest.raises(BadInput, match=f"looks like {name} in part"):
        start_processes()


@pytest.mark.parametrize(
    "given, sentence",
    [
        (("host:1", None, None), r"--num-processes .* and --process-id .* must be"),
        ((None, 4, None), r"--coordinator .* and --process-id .* must be given"),
        (("host:1", 4, 4), "process 4 of 4"),
        (("host", 4, 0), "HOST:PORT"),
        (("host:1", "four", 0), "whole numbers"),
    ],
)
def test_flags_belong_together(given, sentence):
    with pytest.raises(BadInput, match=sentence):
        asked(*given)


def test_the_environment_stands_for_flags_and_flags_come_first(monkeypatch):
    for name, value in zip(ASKED, ("host:12", "4", "3")):
        monkeypatch.setenv(name, value)
    assert asked(None, None, None) == ("host:12", 4, 3)
    assert asked(None, None, 0) == ("host:12", 4, 0)


def test_one_task_per_node_sees_all_its_devices():
    node = {**SLURM, "SLURM_NTASKS": "2", "SLURM_GPUS_ON_NODE": "4"}
    _see_every_device(two := {**node, "SLURM_STEP_NUM_NODES": "2"})
    assert two["JAX_LOCAL_DEVICE_IDS"] == "0,1,2,3"
    _see_every_device(one := {**node, "SLURM_STEP_NUM_NODES": "1"})
    assert "JAX_LOCAL_DEVICE_IDS" not in one


def test_whole_copies_what_is_sharded():
    mesh = make_mesh(MeshConfig(data=2, fsdp=4))
    x = np.arange(64.0).reshape(8, 8)
    where = jax.NamedSharding(mesh, jax.sharding.PartitionSpec("fsdp", "data"))
    found = whole({"x": jax.device_put(x, where), "y": 3})
    np.testing.assert_array_equal(found["x"], x)
    assert isinstance(found["x"], np.ndarray) and found["y"] == 3
