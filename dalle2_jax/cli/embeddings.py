"""`dalle2 data embed` and `dalle2 data fit-pca`: what the priors are trained on."""

from dalle2_jax.cli.flags import local


def add_verbs(verbs):
    """Adds both verbs to the sub-parsers of `dalle2 data`."""
    from dalle2_jax.cli.machine import add_process_flags

    embed_verb = verbs.add_parser(
        "embed", help="write CLIP embeddings of tar shards, a part for each shard"
    )
    embed_verb.add_argument("--model", required=True, type=local, metavar="DIR")
    embed_verb.add_argument("--data", required=True, nargs="+", metavar="PATTERN")
    embed_verb.add_argument("--to", required=True, type=local, metavar="DIR")
    embed_verb.add_argument("--dtype", default="float16", help="or float32")
    embed_verb.add_argument("--batch", type=int, default=256, help="pictures at a time")
    add_process_flags(embed_verb)
    embed_verb.set_defaults(call=embed)
    pca = verbs.add_parser(
        "fit-pca", help="fit an autoregressive prior's codes to embeddings"
    )
    pca.add_argument("--embeddings", required=True, type=local, metavar="DIR")
    pca.add_argument("--model", required=True, type=local, metavar="DIR")
    pca.add_argument("--to", required=True, type=local, metavar="FILE.safetensors")
    pca.add_argument("--components", type=int, default=319, help="kept (paper: 319)")
    pca.add_argument("--buckets", type=int, default=1024, help="of each component")
    pca.add_argument("--dots", type=int, default=1024, help="buckets of z_i . z_t")
    pca.add_argument(
        "--sample", type=int, default=200_000, help="rows that bound the buckets"
    )
    pca.set_defaults(call=fit_pca)


def embed(args):
    """Embeds this process's shards; finished parts are recognised and kept."""
    from dalle2_jax.cli.machine import join

    place = join(args)
    from dalle2_jax.components import load_component
    from dalle2_jax.data.tokens import Tokenizer
    from dalle2_jax.shard.processes import barrier
    from dalle2_jax.train.embed import How, embed_shards

    how = How(args.batch, args.dtype, place.index, place.count)
    clip = load_component(args.model, "clip")
    tokenizer = Tokenizer.load(args.model / "tokenizer")
    done = embed_shards(clip, tokenizer, args.data, args.to, how, _progress())
    barrier("embedded")
    rows = sum(part.rows for part in done)
    left_out = sum(sum(part.left_out.values()) for part in done)
    print(
        f"{args.to}: {rows} samples of {len(done)} shards, width {clip.cfg.clip}, "
        f"{args.dtype}; {left_out} left out"
    )


def describe(folder):
    """`dalle2 data inspect` of a folder of embeddings."""
    from dalle2_jax.data.embeddings import EmbeddingSource

    source = EmbeddingSource(folder)
    print(f"parts     {len(source.parts)}")
    print(f"rows      {len(source)} usable, {sum(source.problems.values())} left out")
    for reason, number in sorted(source.problems.items()):
        print(f"  left out  {number} x {reason}")
    low, high = source.norms
    kind = source.images[0].dtype
    print(f"z_i       width {source.width}, {kind}, lengths {low:.4g} to {high:.4g}")
    print(f"z_t       {'of every row' if source.has_text else 'none'}")
    print(f"captions  {'of every row' if source.has_captions else 'none'}")
    for i in range(0, len(source), max(1, len(source) // 5))[:5]:
        print(f"  {source.name(i)}  {source.caption(i)!r}")


def fit_pca(args):
    """Writes the tables that `--config.codes=FILE` begins from; prints what they keep.

    The whitening of Karlo's prior is in the same file.
    """
    from dalle2_jax.cli.machine import start_jax

    start_jax()
    from dalle2_jax.components import load_component, params_sha256
    from dalle2_jax.data.embeddings import EmbeddingSource
    from dalle2_jax.train.embedded import check_clip
    from dalle2_jax.train.pca import Sizes, fit_file, save_tables

    source, clip = EmbeddingSource(args.embeddings), load_component(args.model, "clip")
    check_clip(source, clip)
    sizes = Sizes(args.components, args.buckets, args.dots, args.sample)
    digest = params_sha256(clip.params)
    tables, about = fit_file(source, clip.cfg.unit, sizes, digest)
    save_tables(args.to, tables, about)
    _say_shares(tables["codes_share"], source.width)
    print(
        f"{args.to}: {args.components} of {source.width} components, fitted to "
        f"{about['rows']} embeddings, explain {100 * about['explained']:.2f} % of the "
        f"variance; with {args.buckets} buckets {100 * about['lost']:.3f} % is lost"
    )


def _say_shares(share, width):
    """The variance that the first 1, 2, 4, ... components explain."""
    count = 1
    while count <= len(share):
        print(f"  {count:5d} of {width}  {100 * share[:count].sum():6.2f} %")
        count *= 2


def _progress():
    """Prints a line for each finished part, with the rate since the one before."""
    import time

    last = time.monotonic()

    def show(number, count, part):
        nonlocal last
        now = time.monotonic()
        rate = f"{part.rows / (now - last):.0f} samples/s" if part.made else "was there"
        last = now
        print(
            f"{number + 1}/{count}  {part.shard}  {part.rows} rows, {rate}", flush=True
        )
        for reason, number in part.left_out.items():
            print(f"  left out  {number} x {reason}")

    return show
