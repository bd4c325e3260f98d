"""Devices that are not there: TPU pods for the compiler alone, or virtual CPUs."""

import os
import re

import jax

from dalle2_jax.errors import BadInput

EXAMPLES = (
    "v4:2x2x2, v5e:4x4, v5e:16x16, v5p:4x4x4, v5p:8x8x8, v6e:4x4, v6e:16x16 (any of "
    "them with +2 for two slices), or cpu:8"
)
FORM = re.compile(r"(cpu):(\d+)|(v\w+):(\d+(?:x\d+)+)(?:\+(\d+))?")
INSTALL = "pip install 'dalle2_jax[tpu]'"
ALONE = {  # the compiler needs no device, no neighbours and no metadata server
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5p-8",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
OPTIONS = {  # layouts of a single host, whose bounds the compiler does not guess
    "v5e:1x1": {"chips_per_host_bounds": [1, 1, 1]},
    "v6e:1x1": {"chips_per_host_bounds": [1, 1, 1]},
    "v5e:2x4": {"chips_per_host_bounds": [2, 4, 1]},
    "v6e:2x4": {"chips_per_host_bounds": [2, 4, 1]},
}


def devices_of(name):
    """The devices of a topology.

    Args:
        name: "v5p:4x4x4", "v5e:16x16+2" (two slices of that) or "cpu:8".

    Returns:
        (generation as in shard/hardware.py CHIPS, or "cpu"; list of devices).

    Raises:
        BadInput: no such topology, too few virtual CPUs, or libtpu is not installed.
    """
    found = FORM.fullmatch(name)
    if found is None:
        raise BadInput(f"--topology {name!r} is none; examples are {EXAMPLES}.")
    if found[1]:
        return "cpu", _cpus(int(found[2]))
    return found[3], _tpus(name.partition("+")[0], int(found[5] or 1))


def _cpus(count):
    devices = jax.devices("cpu")
    if len(devices) < count:
        raise BadInput(
            f"--topology cpu:{count} needs as many virtual devices and there are "
            f"{len(devices)}; set XLA_FLAGS=--xla_force_host_platform_device_count="
            f"{count}."
        )
    return devices[:count]


def _tpus(name, slices):
    from jax.experimental import topologies

    options = dict(OPTIONS.get(name, {}))
    if slices > 1:
        options["num_slices"] = slices
    before = dict(os.environ)
    os.environ.update({**ALONE, **before})
    try:
        found = topologies.get_topology_desc(name, platform="tpu", **options)
    except Exception as error:
        raise _refusal(name, str(error)) from error
    finally:  # what is started from here must not take this for a pod
        for key in set(ALONE) - set(before):
            del os.environ[key]
    return list(found.devices)


def _refusal(name, said):
    if "not installed" in said:
        return BadInput(
            f"--topology {name} needs the TPU compiler, which is not installed here; "
            f"{INSTALL}."
        )
    return BadInput(
        f"--topology {name} is refused by the TPU compiler "
        f"({said.splitlines()[0][:200]}); examples are {EXAMPLES}."
    )
