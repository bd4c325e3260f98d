"""`dalle2 bench data`: how fast pictures come out of the shards."""


def add_verb(verbs):
    """Adds `data` to the verbs of `dalle2 bench`."""
    parser = verbs.add_parser(
        "data", help="samples/s of reading and decoding, beside decoding alone"
    )
    parser.add_argument("--data", required=True, nargs="+", help="tar shards (pattern)")
    parser.add_argument("--size", type=int, default=256, help="pixels of a batch")
    parser.add_argument("--context", type=int, default=77, help="tokens of a caption")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=9, help="of each way, in turn")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--workers", type=int, default=0, help="processes that decode; 0: threads"
    )
    parser.add_argument("--cores", type=int, default=1, help="that workers may use")
    parser.add_argument("--json", action="store_true", help="one JSON object instead")
    parser.set_defaults(call=data)


def data(args):
    """Measures, and prints rates per core and their ratio to bare decode."""
    import json
    from statistics import median

    from dalle2_jax.cli.machine import start_jax
    from dalle2_jax.data.records import ShardSource
    from dalle2_jax.data.throughput import BARE, measure, ratio
    from dalle2_jax.data.tokens import Tokenizer
    from dalle2_jax.train.run import Data

    start_jax()
    source = ShardSource(args.data)
    how = Data(
        args.size,
        args.context,
        threads=args.threads,
        workers=args.workers,
        cache=0,
        bad=1.0,
    )
    found = measure(
        source, Tokenizer.openai(), how, args.batch, args.rounds, args.cores
    )
    rates = {
        name: {
            "samples_per_second_per_core": round(median(rounds), 1),
            "of_bare_decode": round(ratio(found, name), 3),
        }
        for name, rounds in found.items()
    }
    if args.json:
        print(json.dumps({"size": args.size, "rounds": args.rounds, **rates}))
        return
    print(f"{'':14}{'samples/s/core':>16}{'of ' + BARE:>18}")
    for name, rate in rates.items():
        speed, share = rate.values()
        print(f"{name:14}{speed:16.1f}{share:18.3f}")
