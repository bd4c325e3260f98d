"""How a run begins: its directory, its first parameters, or where it stopped."""

from pathlib import Path

import jax

from dalle2_jax.components import (
    expected_shapes,
    flatten,
    initial_params,
    load_component,
    read_json,
    unflatten,
    write_json,
)
from dalle2_jax.errors import BadInput
from dalle2_jax.shard.processes import is_first
from dalle2_jax.train.inputs import open_batches
from dalle2_jax.train.losses import LOSSES
from dalle2_jax.train.pca import with_tables
from dalle2_jax.train.prepare import fit_tables
from dalle2_jax.train.run import as_dict, difference, run_from
from dalle2_jax.train.state import create_state, fresh_state, state_layout


def claim(workdir, run, init=None):
    """Makes the run directory this run's own, or refuses one of another run.

    init: the model directory that the run starts from, noted at its beginning.

    Raises:
        BadInput: it holds another configuration (names the field), cannot be written,
            or the stage is none that is trained.
    """
    if run.stage not in LOSSES:
        raise BadInput(
            f"config.stage is {run.stage!r}, which is imported and sampled but not "
            f"trained here; stages to train are {', '.join(LOSSES)}."
        )
    path = workdir / "config.json"
    origin = provenance(init, run.stage)
    if path.is_file():
        found = read_json(path, "remove the directory or choose another")
        origin, old = found.get("provenance"), run_from(found)
        field = difference(run, old)
        if field:
            raise BadInput(
                f"{workdir} holds a run with another {field}; continue it with its own "
                "configuration or choose another --workdir."
            )
    if not is_first():
        return
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        known = {"provenance": origin} if origin else {}
        write_json(path, {**as_dict(run), **known})
    except OSError as error:
        raise BadInput(
            f"{workdir} cannot be written ({error.strerror}); choose another --workdir."
        ) from error


def begin(run, tx, mesh, checkpoints, prepare=lambda params, mesh: params):
    """The newest intact state and its data position, or a fresh state and 0.

    prepare: (first parameters, mesh) -> those that a fresh state starts from.
    """
    averages = len(run.optim.ema_more)
    params = initial_params(run.stage, run.model, run.seed)
    if not checkpoints.manager.all_steps():
        return create_state(prepare(params, mesh), tx, mesh, averages), 0
    shapes = jax.eval_shape(lambda p: fresh_state(p, tx, averages), params)
    like = jax.tree.map(
        lambda s, place: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=place),
        shapes,
        state_layout(shapes, mesh),
    )
    return checkpoints.restore(like)


def prepared(run, job, work, params, mesh):
    """What a fresh run starts from: another component, or what the data give."""
    if job.init is not None:
        return inherited(run, job.init)
    if run.codes:
        return with_tables(run, params)
    if not run.codes_from:
        return params
    batches = open_batches(run, work.source, work.tokenizer, 0)
    return fit_tables(run, work.clip_cfg, work.frozen, params, batches, mesh)


def inherited(run, folder):
    """The parameters of a trained or imported component of the same sizes.

    Raises:
        BadInput: it is absent, or of other sizes; names the first that differs.
    """
    found = flatten(load_component(folder, run.stage).params)
    wanted = expected_shapes(run.stage, run.model)
    for name in (*wanted, *found):
        have = found[name].shape if name in found else None
        if have != wanted.get(name):
            raise BadInput(
                f"{folder}/{run.stage}: {name} is {have or 'absent'}, config.model "
                f"asks for {wanted.get(name) or 'none'}; give the run the model of "
                f"{folder}/{run.stage}/config.json."
            )
    return unflatten({name: x.astype("float32") for name, x in found.items()})


def provenance(init, stage):
    """What config.json says of the component a run starts from, or None."""
    if init is None:
        return None
    path = Path(init) / stage / "config.json"
    about = read_json(path, f"--init needs a model directory with a {stage}")
    names = ("steps", "seed", "provenance")
    return {"init": str(init), **{k: about[k] for k in names if k in about}}
