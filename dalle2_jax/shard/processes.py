"""The processes of a run: who they are, what they found, what they do together.

One process per host (TPU) or per device (Slurm, Open MPI) is started by whatever
launches jobs there; `start_processes` finds the others through `jax.distributed`.
"""

import itertools
import os
import time
from typing import NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from dalle2_jax.errors import BadInput, Failed
from dalle2_jax.shard.coordinator import (
    FLAG,
    connect_seconds,
    look_at,
    parse_address,
    say,
    within,
)

GRACE = 3600  # seconds; jax aborts the process at the end of its time, we say why
BARRIER_SECONDS = 3600
ASKED = ("DALLE2_COORDINATOR", "DALLE2_NUM_PROCESSES", "DALLE2_PROCESS_ID")
FLAGS = ("--coordinator", "--num-processes", "--process-id")
ALONE = f"--num-processes 1 ({ASKED[1]}=1) runs as one process"
NO_TPU = "TPU_SKIP_MDS_QUERY"  # set by jax where there are no TPUs to ask about
NUMBER = itertools.count()


class Cluster(NamedTuple):
    """How an environment shows: marks that say it is there, and all that it must set.

    remedy: how a job is started there.
    """

    marks: tuple
    needs: tuple
    remedy: str


CLUSTERS = {  # in the order in which they are looked for
    "Open MPI": Cluster(
        ("OMPI_MCA_orte_hnp_uri", "OMPI_COMM_WORLD_RANK"),
        (
            "OMPI_MCA_orte_hnp_uri",
            "OMPI_COMM_WORLD_SIZE",
            "OMPI_COMM_WORLD_RANK",
            "OMPI_COMM_WORLD_LOCAL_RANK",
        ),
        "start it with mpirun of Open MPI 4",
    ),
    "Slurm": Cluster(
        ("SLURM_JOB_ID",),
        (
            "SLURM_JOB_ID",
            "SLURM_STEP_NODELIST",
            "SLURM_NTASKS",
            "SLURM_PROCID",
            "SLURM_LOCALID",
        ),
        "start it with srun",
    ),
    "GKE TPU": Cluster(
        ("TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES"),
        ("TPU_WORKER_ID",),
        "let the JobSet set them",
    ),
    "TPU slices": Cluster(
        ("MEGASCALE_COORDINATOR_ADDRESS", "MEGASCALE_NUM_SLICES", "MEGASCALE_SLICE_ID"),
        ("MEGASCALE_COORDINATOR_ADDRESS", "MEGASCALE_NUM_SLICES", "MEGASCALE_SLICE_ID"),
        "let the JobSet or the queued resource set them",
    ),
    "Kubernetes": Cluster(
        ("JOB_COMPLETION_INDEX",),
        ("JOB_COMPLETION_INDEX", "KUBERNETES_SERVICE_HOST"),
        "pip install jax[k8s] and let the job's service account list pods",
    ),
}


class Place(NamedTuple):
    """Who this process is; kind: "one process", "flags" or the name of a cluster."""

    kind: str
    index: int
    count: int
    coordinator: str | None


def start_processes(coordinator=None, count=None, index=None, seconds=None):
    """Joins the processes of this run, before anything touches a backend.

    Each argument left out is read from the environment (ASKED). With none of them, the
    cluster is detected; without a cluster this is the only process.

    Args:
        coordinator: "HOST:PORT" of process 0.
        count: number of processes.
        index: number of this one.
        seconds: in which the processes must find each other; None: of the environment
            (DALLE2_CONNECT_SECONDS) or 300.

    Returns:
        Place.

    Raises:
        BadInput: no such port, some of the three without the others, or a cluster's
            environment that is set in part; names the variables.
        Failed: the others cannot be reached in time, or the port is taken.
    """
    seconds = connect_seconds(seconds)
    coordinator, count, index = asked(coordinator, count, index)
    if count == 1 and coordinator is None:
        return Place("one process", 0, 1, None)
    if coordinator is not None:
        _join(seconds, coordinator, count, index)
        return Place("flags", index, count, coordinator)
    name = detect(os.environ)
    if name == "Slurm":
        _see_every_device(os.environ)
    if name is None and (NO_TPU in os.environ or not _join(seconds)):
        return Place("one process", 0, 1, None)
    if name:
        _join(seconds)
    if not jax.distributed.is_initialized():
        raise BadInput(
            f"{name} variables are set ({_listed(CLUSTERS[name].marks)}) and jax found "
            f"no such cluster here; {CLUSTERS[name].remedy}, give "
            f"{', '.join(FLAGS)}, or {ALONE}."
        )
    where = os.environ.get("JAX_COORDINATOR_ADDRESS")
    return Place(name or "Cloud TPU", jax.process_index(), jax.process_count(), where)


def asked(coordinator, count, index):
    """The three settings, each from its argument or from the environment.

    Raises:
        BadInput: some without the others, or no numbers.
    """
    given = (coordinator, count, index)
    values = [os.environ.get(n) if v is None else v for n, v in zip(ASKED, given)]
    named = [f"{flag} ({name})" for flag, name in zip(FLAGS, ASKED)]
    missing = [n for n, value in zip(named, values) if value in (None, "")]
    if len(missing) == len(ASKED):
        return None, None, None
    if missing == [named[0], named[2]] and str(values[1]) == "1":
        return None, 1, 0
    if missing:
        raise BadInput(
            f"{' and '.join(missing)} must be given too: {', '.join(FLAGS)} belong "
            "together."
        )
    try:
        count, index = int(values[1]), int(values[2])
    except ValueError as error:
        raise BadInput(f"{named[1]} and {named[2]} must be whole numbers.") from error
    parse_address(values[0], named[0])
    if not 0 <= index < count:
        raise BadInput(
            f"process {index} of {count} cannot be: {FLAGS[2]} counts from 0 to "
            f"{FLAGS[1]} - 1."
        )
    return values[0], count, index


def detect(environment):
    """The name of the cluster that an environment describes, or None.

    Raises:
        BadInput: one is described in part and none in full; names the variables.
    """
    partial = None
    for name, cluster in CLUSTERS.items():
        if not any(mark in environment for mark in cluster.marks):
            continue
        missing = [need for need in cluster.needs if need not in environment]
        if not missing:
            return name
        partial = partial or (name, missing)
    if partial is None:
        return None
    name, missing = partial
    seen = [m for m in CLUSTERS[name].marks if m in environment]
    raise BadInput(
        f"{_listed(seen)} set without {_listed(missing)}: this looks like {name} in "
        f"part; {CLUSTERS[name].remedy}, give {', '.join(FLAGS)}, or {ALONE}."
    )


def is_first():
    """Whether this is process 0, the one that writes what there is one of."""
    return jax.process_index() == 0


def barrier(name):
    """Waits until every process is here. name: says where, should one be missing."""
    wait = ocp.multihost.get_barrier_sync_fn()
    wait(key=f"dalle2/{next(NUMBER)}/{name}", timeout_ms=BARRIER_SECONDS * 1000)


def in_step(function):
    """A jitted function whose first call, compiled, waits for the other processes.

    Collectives of CPUs give up when one process comes much later than another, as it
    does after compiling. Every call must have arguments of the same shapes.
    """
    if jax.process_count() == 1:
        return function
    compiled = []

    def call(*args):
        if not compiled:
            compiled.append(function.lower(*args).compile())
            barrier("compiled")
        return compiled[0](*args)

    return call


def whole(tree):
    """Host copies of arrays that may be spread over processes; all must call it.

    One leaf at a time, so that a device holds one whole leaf and no more.
    """
    return jax.tree.map(_whole, tree)


def spread(tree, layout):
    """Lays host arrays that every process has alike over the devices of all of them.

    Args:
        tree: arrays.
        layout: their shardings, a tree of the same shape.
    """

    def one(x, place):
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, place, lambda index: x[index])

    return jax.tree.map(one, tree, layout)


def preempted(step):
    """Whether all processes stop after this step, as one of them was told SIGTERM.

    Every process calls it at every step; they get the same answer at the same step.
    """
    return multihost_utils.reached_preemption_sync_point(step)


def _whole(x):
    if not isinstance(x, jax.Array) or x.is_fully_addressable:
        return np.asarray(x)
    if not x.is_fully_replicated:
        everywhere = NamedSharding(x.sharding.mesh, P())
        x = jax.jit(_same, out_shardings=everywhere)(x)
    return np.asarray(x.addressable_data(0))


def _same(x):
    return x


def _join(seconds, coordinator=None, count=None, index=None):
    """jax.distributed; False where it detects no cluster."""
    until = time.monotonic() + seconds
    method = None if coordinator is None else "deactivate"
    if coordinator is not None:
        look_at(parse_address(coordinator, FLAGS[0]), index, seconds)
    others = "the other processes" if index == 0 else "the processes of this run"
    left = max(1.0, until - time.monotonic())
    try:
        within(
            left,
            lambda: jax.distributed.initialize(
                coordinator,
                count,
                index,
                cluster_detection_method=method,
                initialization_timeout=int(seconds) + GRACE,
            ),
            lambda: say(f"waiting for {others}, {left:.0f} s at most"),
        )
    except ValueError:  # nothing detected
        return False
    except Exception as error:
        raise Failed(
            f"the processes of this run did not find each other "
            f"({str(error).splitlines()[0][:200]}); see that all were started and that "
            f"{coordinator or 'process 0'} can be reached from here, or wait longer "
            f"with {FLAG}."
        ) from error
    return True


def _see_every_device(environment):
    """One task per node has all its devices; jax would give it the first alone."""
    nodes = environment.get("SLURM_STEP_NUM_NODES", environment.get("SLURM_NNODES"))
    devices = int(environment.get("SLURM_GPUS_ON_NODE", "0"))
    if environment["SLURM_NTASKS"] == nodes and devices > 1:
        every = ",".join(map(str, range(devices)))
        environment.setdefault("JAX_LOCAL_DEVICE_IDS", every)


def _listed(names):
    return ", ".join(names)
