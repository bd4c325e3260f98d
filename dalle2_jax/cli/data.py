"""`dalle2 data`: makes generated data sets, looks into shards, trains a tokenizer."""

from dalle2_jax.cli import embeddings, shards
from dalle2_jax.cli.flags import local, seed

NAME = "data"
HELP = "Make generated pictures, look into tar shards, train a tokenizer."
EXAMPLE = (
    "dalle2 data make-shapes --to shards --world simple --count 16000\n"
    "         dalle2 data embed --model MODEL --data 'shards/*.tar' --to emb\n"
    "         dalle2 data fit-pca --embeddings emb --model MODEL --to pca.safetensors"
)


def add_arguments(parser):
    """Adds the verbs of `dalle2 data` to an argparse parser."""
    verbs = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    make = verbs.add_parser("make-shapes", help="write a generated world as tar shards")
    make.add_argument(
        "--to", required=True, type=local, metavar="DIR", help="a new folder"
    )
    make.add_argument("--world", default="simple", help="simple, pairs or full")
    make.add_argument("--count", type=int, default=16_000, help="pictures")
    make.add_argument("--seed", type=seed, default=0)
    make.add_argument("--size", type=int, default=64, help="pixels of a side")
    make.add_argument("--shard-size", type=int, default=4096, help="pictures a shard")
    make.set_defaults(call=make_shapes)
    look = verbs.add_parser("inspect", help="count samples, sizes, captions, problems")
    look.add_argument("data", nargs="+", metavar="PATTERN", help="tars, folder, braces")
    look.add_argument(
        "--check", type=int, default=500, help="pictures to decode, 0 for all"
    )
    look.set_defaults(call=inspect)
    train = verbs.add_parser("train-tokenizer", help="learn a vocabulary from captions")
    train.add_argument("--data", required=True, nargs="+", metavar="PATTERN")
    train.add_argument("--to", required=True, type=local, metavar="DIR")
    train.add_argument("--vocab", type=int, required=True, help="ids at most")
    train.set_defaults(call=train_tokenizer)
    shards.add_verb(verbs)
    embeddings.add_verbs(verbs)


def run(args):
    """Does what was chosen."""
    args.call(args)


def make_shapes(args):
    """Writes a generated world and says where."""
    from dalle2_jax.data import write_shapes

    shards = write_shapes.make_shapes(
        args.world, args.count, args.seed, args.to, args.size, args.shard_size
    )
    megabytes = sum(shard.stat().st_size for shard in shards) / 1e6
    print(
        f"{args.to}: {args.count} pictures of the world {args.world!r}, "
        f"{args.size} px, in {len(shards)} shards, {megabytes:.1f} MB"
    )


def train_tokenizer(args):
    """Learns a vocabulary from all captions and writes the tokenizer's folder."""
    from dalle2_jax.data.records import ShardSource
    from dalle2_jax.data.tokens import Tokenizer

    source = ShardSource(args.data)
    tokenizer = Tokenizer.train(source.captions(), args.vocab)
    tokenizer.save(args.to)
    print(f"{args.to}: {tokenizer.size} ids from {len(source)} captions")


def inspect(args):
    """Prints what the shards hold and what is wrong with them."""
    from dalle2_jax.data.embeddings import is_embeddings

    if is_embeddings(args.data[0]):
        embeddings.describe(args.data[0])
        return
    shards.inspect(args.data, args.check)
