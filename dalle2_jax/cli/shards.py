"""`dalle2 data inspect` and `dalle2 data index`: what tar shards hold."""

CAPTION_SAMPLE = 20_000
QUANTILES = (0, 10, 50, 90, 100)  # per cent


def add_verb(verbs):
    """Adds `index` to the verbs of `dalle2 data`."""
    parser = verbs.add_parser(
        "index",
        help="write NAME.tar.dalle2.idx beside each shard, once for all hosts; part I "
        "of N with --part I/N",
    )
    parser.add_argument("data", nargs="+", metavar="PATTERN")
    parser.add_argument("--part", type=part, default=(0, 1), metavar="I/N")
    parser.set_defaults(call=index)


def part(text):
    """ "0/8" -> (0, 8)."""
    first, count = map(int, text.split("/"))
    if not 0 <= first < count:
        raise ValueError(text)
    return first, count


def index(args):
    """Indexes every N-th shard and keeps the index beside it, remote or not."""
    from dalle2_jax.data.shard_index import publish
    from dalle2_jax.data.shard_paths import expand
    from dalle2_jax.data.stores import in_parallel

    first, count = args.part
    shards = expand(args.data)[first::count]
    found = in_parallel(publish, shards)
    samples = sum(len(one.keys) for one in found)
    lost = sum(len(keys) for one in found for keys in one.problems.values())
    print(f"{len(shards)} shards indexed: {samples} samples, {lost} left out")


def inspect(paths, check):
    """Prints what the shards hold and what is wrong with them.

    check: pictures to decode, 0 for all.
    """
    from dalle2_jax.data.records import ShardSource
    from dalle2_jax.data.sample_members import REMEDIES

    source = ShardSource(paths)
    print(f"shards    {len(source.shards)}")
    print(f"samples   {len(source)} usable, {sum(source.problems.values())} left out")
    for reason, number in sorted(source.problems.items()):
        first = _first([index.problems for index in source.indices], source, reason)
        print(f"  left out  {number} x {reason}, first {first}")
    for reason, number in sorted(source.notes.items()):
        first = _first([index.notes for index in source.indices], source, reason)
        print(f"  note      {number} captions are {reason}, first {first}")
    for reason in sorted(REMEDIES.keys() & (source.problems | source.notes).keys()):
        print(f"  {reason}: {REMEDIES[reason]}")
    _show_pictures(source, check)
    _show_captions(source)
    _show_members(source)
    for i in range(0, len(source), max(1, len(source) // 5))[:5]:
        print(f"  {source.name(i)}  {source.caption(i)!r}")


def _first(found, source, reason):
    """'SHARD: KEY' of the first sample of this reason; found: of each shard."""
    shard, there = next(p for p in zip(source.shards, found) if reason in p[1])
    key = there[reason][0]
    return f"{shard}: {key}" if key else shard


def _even(n, most):
    """At most `most` numbers spread over range(n); all for 0."""
    return range(0, n, max(1, -(-n // most)) if most else 1)


def _show_pictures(source, most):
    """Decodes pictures; prints their sizes and which ones are broken."""
    from collections import Counter

    from dalle2_jax.data.images import decode, describe
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
        found = describe(record.image)
        kinds[f"{found.kind} {found.mode}"] += 1
        sizes.append(found.size)
    print(f"pictures  {len(chosen)} decoded, {len(broken)} broken")
    for sentence in broken[:5]:
        print(f"  {sentence}")
    if sizes:
        _show_sizes(sizes, kinds)


def _show_sizes(sizes, kinds):
    import numpy as np

    low, high = min(sizes, key=min), max(sizes, key=max)
    print(f"  sizes     {low[0]} x {low[1]} to {high[0]} x {high[1]}")
    print(f"  shorter   {_quantiles(np.min(sizes, axis=1))} px")
    ratio = np.max(sizes, axis=1) / np.min(sizes, axis=1)
    print(f"  ratio     {_quantiles(ratio)} of the sides")
    print(f"  formats   {', '.join(f'{k}: {n}' for k, n in kinds.most_common())}")


def _quantiles(values):
    """'0 %: 3, 10 %: 4, ...', or 'all 3'."""
    import numpy as np

    if np.min(values) == np.max(values):
        return f"all {np.min(values):.4g}"
    found = np.percentile(values, QUANTILES)
    return ", ".join(f"{q} %: {value:.4g}" for q, value in zip(QUANTILES, found))


def _show_captions(source):
    said = [source.caption(i) for i in _even(len(source), CAPTION_SAMPLE)]
    words = [len(caption.split()) for caption in said]
    print(f"captions  {len(set(said))} different of {len(said)}")
    print(f"  words     {_quantiles(words)}")
    print(f"  letters   {_quantiles([len(caption) for caption in said])}")


def _show_members(source):
    """Prints the numbers in the JSON members, and what other members there are."""
    import numpy as np

    from dalle2_jax.data.shard_index import index_of

    fields, kinds = {}, {}
    for index in map(index_of, source.shards):
        for name, values in zip(index.names.tolist(), index.fields.T):
            fields.setdefault(name, []).append(values[~np.isnan(values)])
        for kind in index.kinds.tolist():
            kinds[kind] = kinds.get(kind, 0) + int(index.having(kind).sum())
    for name, parts in sorted(fields.items()):
        values = np.concatenate(parts)
        print(f"field     {name}: {len(values)} samples; {_quantiles(values)}")
    for kind, count in sorted(kinds.items()):
        print(f"member    .{kind}: {count} samples")
