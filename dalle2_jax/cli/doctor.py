"""`dalle2 doctor`: is this machine, or this set of machines, fit for it?"""

NAME = "doctor"
HELP = (
    "Print the processes found, versions, devices, a small all-reduce, and whether\n"
    "storage can be used; exit 1 where something is amiss."
)
EXAMPLE = (
    "dalle2 doctor\n"
    "         dalle2 doctor --workdir runs --data 'gs://bucket/{00000..00099}.tar'\n"
    "         dalle2 launch --processes 2 -- doctor"
)
PACKAGES = (
    "jax",
    "jaxlib",
    "libtpu",
    "jax-cuda13-plugin",
    "jax-cuda12-plugin",
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
    from dalle2_jax.cli.machine import add_process_flags

    parser.add_argument("--workdir", default=".", help="folder that runs will write to")
    parser.add_argument(
        "--data", nargs="+", default=[], help="tar shards (pattern) that are to be read"
    )
    add_process_flags(parser)


def run(args):
    """Prints one line per finding; raises Failed when the machine is unfit."""
    import os
    import platform

    from dalle2_jax.cli.machine import join
    from dalle2_jax.errors import BadInput, Failed

    print(f"python {platform.python_version()}, {os.cpu_count()} cores")
    print_versions()
    place = join(args)
    print(f"found: {place.kind}, process {place.index} of {place.count}", end="")
    print(f", coordinator {place.coordinator}" if place.coordinator else "")
    problems = []
    checks = (check_devices, check_cache, lambda: check_storage(args.workdir))
    for check in (*checks, lambda: check_data(args.data)):
        try:
            check()
        except (BadInput, Failed) as error:
            print(f"problem: {error}")
            problems.append(str(error))
    if problems:
        raise Failed(" ".join(problems))


def print_versions():
    """A line for each package: its version, or that it is absent."""
    from importlib.metadata import PackageNotFoundError, version

    for name in PACKAGES:
        try:
            print(f"  {name} {version(name)}")
        except PackageNotFoundError:
            print(f"  {name} is not installed")


def check_devices():
    """Lists devices by process and adds a one from each of them over the mesh."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from dalle2_jax.errors import Failed
    from dalle2_jax.shard.mesh import MeshConfig, batch_sharding, make_mesh
    from dalle2_jax.shard.processes import spread, whole

    devices = jax.devices()
    kinds = sorted({d.device_kind for d in devices})
    counts = np.bincount([d.process_index for d in devices])
    print(
        f"devices: {len(devices)} x {', '.join(kinds)}, processes "
        f"{jax.process_count()} with {', '.join(map(str, counts))}"
    )
    layout = batch_sharding(make_mesh(MeshConfig()))
    ones = spread(np.ones(len(devices), np.float32), layout)
    total = int(whole(jax.jit(jnp.sum)(ones)))
    if total != len(devices):
        raise Failed(f"an all-reduce over {len(devices)} devices gave {total}.")
    print(f"all-reduce: {total}, right")
    if len(set(counts)) > 1:
        raise Failed(
            f"processes have {', '.join(map(str, counts))} devices; give each of them "
            "equally many."
        )


def check_cache():
    """Where compiled programs are kept, and that it can be written."""
    import os
    from pathlib import Path

    place = os.environ["JAX_COMPILATION_CACHE_DIR"]
    if "://" in place:
        print(f"compiled programs: {place}")
        return
    try:
        Path(place).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(place, error) from error
    check_writing(place, "compiled programs")


def check_storage(workdir):
    """Says whether runs can write to a folder."""
    check_writing(workdir, "storage")


def check_writing(folder, name):
    """Writes and removes a small file; raises Failed if that does not work."""
    import tempfile

    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"dalle2")
    except OSError as error:
        raise _unwritable(folder, error) from error
    print(f"{name}: {folder} can be written")


def check_data(patterns):
    """Reads the first kilobyte of the first and of the last shard."""
    if not patterns:
        return
    import os

    from dalle2_jax.data import stores
    from dalle2_jax.data.shard_paths import expand
    from dalle2_jax.data.store_faults import shown
    from dalle2_jax.errors import Failed

    paths = expand(patterns)
    for path in dict.fromkeys((paths[0], paths[-1])):
        if os.path.isdir(path):
            continue  # of pictures, which `expand` has listed
        try:
            with (
                stores.open_file(path)
                if stores.is_url(path)
                else open(path, "rb") as file
            ):
                found = len(file.read(1024))
        except OSError as error:
            raise Failed(
                f"{path} cannot be read ({error.strerror or error}); see that it is "
                "there and that this machine may read it."
            ) from error
        print(f"data: {shown(path)} can be read ({found} bytes)")


def _unwritable(folder, error):
    from dalle2_jax.errors import Failed

    return Failed(f"{folder} cannot be written ({error.strerror or error}).")
