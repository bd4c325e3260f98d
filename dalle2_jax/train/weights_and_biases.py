"""Weights & Biases, when it is asked for and installed."""

from dalle2_jax.components import read_json, write_json
from dalle2_jax.errors import BadInput, Failed

STEP = "train_step"


class WeightsAndBiases:
    """A log like MetricsFile. The run keeps its identity across resumptions.

    Args:
        workdir: run directory; holds wandb.json with the identity.
        project: name of the project there.
        config: JSON-able configuration.

    Raises:
        BadInput: wandb is not installed.
        Failed: it did not let us in.
    """

    def __init__(self, workdir, project, config):
        self.wandb = _imported()
        path = workdir / "wandb.json"
        known = read_json(path, "remove it") if path.is_file() else {}
        try:
            self.run = self.wandb.init(
                project=project,
                dir=str(workdir),
                config=config,
                id=known.get("id"),
                resume="allow",
            )
        except Exception as error:  # its own kinds, none of which it promises
            raise Failed(
                f"Weights & Biases did not start ({str(error).splitlines()[0][:200]}); "
                "log in with `wandb login`, set WANDB_MODE=offline, or leave --wandb "
                "out."
            ) from error
        write_json(path, {"id": self.run.id, "project": project})
        self.run.define_metric("*", step_metric=STEP)

    def write(self, step, scalars):
        """scalars: {name: float}."""
        self.run.log({STEP: step, **scalars})

    def picture(self, step, name, image):
        """image uint8 [y, x, 3]."""
        self.run.log({STEP: step, name: self.wandb.Image(image)})

    def close(self):
        """Waits until everything is sent or kept."""
        self.run.finish()


def _imported():
    try:
        import wandb
    except ImportError as error:
        raise BadInput(
            "--wandb needs the package wandb, which is not installed; "
            "`pip install wandb`, or leave the flag out."
        ) from error
    return wandb
