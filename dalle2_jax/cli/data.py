"""`dalle2 data`: makes generated data sets, looks into shards, trains a tokenizer."""

from dalle2_jax.cli import embeddings

NAME = "data"
HELP = "Make generated pictures, look into tar shards, train a tokenizer."
EXAMPLE = (
    "dalle2 data make-shapes --to shards --world simple --count 16000\n"
    "         dalle2 data embed --model MODEL --data 'shards/*.tar' --to emb\n"
    "         dalle2 data fit-pca --embeddings emb --model MODEL --to pca.safetensors"
)
CAPTION_SAMPLE = 20_000


def add_arguments(parser):
    """Adds the verbs of `dalle2 data` to an argparse parser."""
    verbs = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    make = verbs.add_parser("make-shapes", help="write a generated world as tar shards")
    make.add_argument("--to", required=True, metavar="DIR", help="a new folder")
    make.add_argument("--world", default="simple", help="simple, pairs or full")
    make.add_argument("--count", type=int, default=16_000, help="pictures")
    make.add_argument("--seed", type=int, default=0)
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
    train.add_argument("--to", required=True, metavar="DIR")
    train.add_argument("--vocab", type=int, required=True, help="ids at most")
    train.set_defaults(call=train_tokenizer)
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
    from dalle2_jax.data.records import ShardSource

    if is_embeddings(args.data[0]):
        embeddings.describe(args.data[0])
        return
    source = ShardSource(args.data)
    print(f"shards    {len(source.shards)}")
    print(f"samples   {len(source)} usable, {sum(source.problems.values())} left out")
    for reason, number in sorted(source.problems.items()):
        print(f"  left out  {number} x {reason}, first {_first(source, reason)}")
    _show_pictures(source, args.check)
    _show_captions(source)
    for i in range(0, len(source), max(1, len(source) // 5))[:5]:
        print(f"  {source.name(i)}  {source.caption(i)!r}")


def _first(source, reason):
    """'SHARD: KEY' of the first sample left out for this reason."""
    pairs = zip(source.shards, source.indices)
    shard, index = next(p for p in pairs if reason in p[1].problems)
    key = index.problems[reason][0]
    return f"{shard}: {key}" if key else shard


def _even(n, most):
    """At most `most` numbers spread over range(n); all for 0."""
    return range(0, n, max(1, -(-n // most)) if most else 1)


def _show_pictures(source, most):
    """Decodes pictures; prints their sizes and which ones are broken."""
    import io
    from collections import Counter

    from PIL import Image

    from dalle2_jax.data.images import decode
    from dalle2_jax.errors import BadInput

    kinds, sizes, broken = Counter(), [], []
    chosen = _even(len(source), most)
    for i in chosen:
        record = source[i]
        try:
            decode(record.image, 64, source.name(i))
        except BadInput as error:
            broken.append(str(error))
            continue
        with Image.open(io.BytesIO(record.image)) as image:
            kinds[f"{image.format} {image.mode}"] += 1
            sizes.append(image.size)
    print(f"pictures  {len(chosen)} decoded, {len(broken)} broken")
    for sentence in broken[:5]:
        print(f"  {sentence}")
    if sizes:
        _show_sizes(sizes, kinds)


def _show_sizes(sizes, kinds):
    low, high = min(sizes, key=min), max(sizes, key=max)
    print(f"  sizes     {low[0]} x {low[1]} to {high[0]} x {high[1]}")
    print(f"  formats   {', '.join(f'{k}: {n}' for k, n in kinds.most_common())}")


def _show_captions(source):
    from statistics import median

    said = [source.caption(i) for i in _even(len(source), CAPTION_SAMPLE)]
    words = [len(caption.split()) for caption in said]
    print(
        f"captions  {len(set(said))} different of {len(said)}; words: "
        f"{min(words)} to {max(words)}, median {median(words):g}"
    )
