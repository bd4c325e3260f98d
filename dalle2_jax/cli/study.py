"""`dalle2 study`: the experiments of the paper's section 5, on any model directory."""

from dalle2_jax.cli import (
    study_human,
    study_judges,
    study_manipulations,
    study_routes,
    study_sweep,
)

NAME = "study"
HELP = "Sections 3 to 5 in numbers: prior, guidance, manipulations, people, ..."
EXAMPLE = (
    "dalle2 study prior --model runs/model --world simple --n 200 --out study\n"
    "         dalle2 study guidance --model runs/model --world simple --scales 1,2,4\n"
    "         dalle2 study aesthetic --model M --data 'shards/*.tar' --ratings r.csv\n"
    "         dalle2 study human --model M --world simple --n 20 --out sheet\n"
    "         dalle2 study human --answers answers.csv --key sheet/key.json\n"
    "         dalle2 study manipulations --model runs/model --n 100 --out study\n"
    "         dalle2 study judges --model runs/model --world simple --out study"
)


def add_arguments(parser):
    """The verbs of `dalle2 study`."""
    studies = parser.add_subparsers(dest="study", required=True, metavar="STUDY")
    study_routes.add_verbs(studies)
    study_sweep.add_verbs(studies)
    study_human.add_verb(studies)
    study_manipulations.add_verb(studies)
    study_judges.add_verb(studies)


def run(args):
    """Does the chosen study."""
    args.call(args)
