"""`dalle2 doctor`: is this machine fit for it?"""

NAME = "doctor"
HELP = (
    "Print versions, devices, a small all-reduce, and whether storage can be written."
)
EXAMPLE = "dalle2 doctor"
PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "numpy",
    "tokenizers",
    "safetensors",
    "transformers",
    "tensorflow-datasets",
)


def add_arguments(parser):
    """The flags of `dalle2 doctor`."""
    parser.add_argument("--workdir", default=".", help="folder that runs will write to")


def run(args):
    """Prints one line per finding; raises Failed when the machine is unfit."""
    import os
    import platform
    from importlib.metadata import PackageNotFoundError, version

    from dalle2_jax.cli.machine import start_jax

    print(f"python {platform.python_version()}, {os.cpu_count()} cores")
    for name in PACKAGES:
        try:
            print(f"  {name} {version(name)}")
        except PackageNotFoundError:
            print(f"  {name} is not installed")
    start_jax()
    check_devices()
    check_storage(args.workdir)


def check_devices():
    """Lists devices and adds a one from each of them over the mesh."""
    import jax
    import jax.numpy as jnp

    from dalle2_jax.errors import Failed
    from dalle2_jax.shard.mesh import MeshConfig, batch_sharding, make_mesh

    devices = jax.devices()
    kinds = sorted({d.device_kind for d in devices})
    print(
        f"devices: {len(devices)} x {', '.join(kinds)}, processes {jax.process_count()}"
    )
    ones = jax.device_put(
        jnp.ones(len(devices)), batch_sharding(make_mesh(MeshConfig()))
    )
    total = int(jax.jit(jnp.sum)(ones))
    if total != len(devices):
        raise Failed(f"an all-reduce over {len(devices)} devices gave {total}.")
    print(f"all-reduce: {total}, right")


def check_storage(workdir):
    """Writes and removes a small file."""
    import tempfile

    from dalle2_jax.errors import Failed

    try:
        with tempfile.TemporaryFile(dir=workdir) as file:
            file.write(b"dalle2")
    except OSError as error:
        raise Failed(f"{workdir} cannot be written ({error.strerror}).") from error
    print(f"storage: {workdir} can be written")
