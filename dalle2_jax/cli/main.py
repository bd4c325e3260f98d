"""`dalle2 <verb>`: finds the verb, runs it, and turns errors into one sentence."""

import argparse
import importlib
import os
import re
import signal
import sys
import threading
import traceback
from typing import NoReturn

from dalle2_jax import __version__
from dalle2_jax.errors import BadInput, Failed, Preempted

VERBS = (
    "quickstart",
    "train",
    "plan",
    "bench",
    "sample",
    "variations",
    "interpolate",
    "mix",
    "text-diff",
    "inpaint",
    "image-to-image",
    "upsample",
    "pca",
    "typographic",
    "demo",
    "evaluate",
    "study",
    "data",
    "inspect",
    "doctor",
    "launch",
    "parity",
    "import",
    "export",
)
FILES = {"import": "import_weights", "export": "export_weights"}  # else as the verb
CONFIGURED = ("train", "plan", "bench")  # take --config.NAME=VALUE
CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
EXIT = {BadInput: 2, Failed: 1, Preempted: 75}


class Parser(argparse.ArgumentParser):
    """Says what is wrong with a command line in one sentence, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Exits with 2."""
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help.\n")


def parser():
    """The whole command line; every verb is a module with the same five names."""
    top = Parser(
        prog="dalle2", description="unCLIP (DALL·E 2) in JAX, from a laptop to pods."
    )
    top.add_argument("--version", action="version", version=__version__)
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name in VERBS:
        file = FILES.get(name, name.replace("-", "_"))
        verb = importlib.import_module(f"dalle2_jax.cli.{file}")
        sub = verbs.add_parser(
            verb.NAME,
            help=verb.HELP,
            description=verb.HELP,
            epilog=f"example: {verb.EXAMPLE}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        verb.add_arguments(sub)
        sub.set_defaults(run=verb.run)
    return top


def unraisable(found):
    """What Python says of errors that nobody can catch: a ctrl-C is sent once more.

    An interrupt that arrives in a callback of the garbage collector (jax has one) or in
    a finalizer is swallowed there. Of other errors, closed event loops are not told.
    """
    if issubclass(found.exc_type, KeyboardInterrupt):
        again = (threading.main_thread().ident, signal.SIGINT)
        threading.Timer(0.01, signal.pthread_kill, again).start()
    elif not issubclass(found.exc_type, RuntimeError):
        sys.__unraisablehook__(found)


def main(argv=None):
    """Entry point; returns the exit code.

    One of several processes that failed ends at once: the others may be waiting for it
    in a collective, and it must not wait for them in turn.
    """
    try:
        code = outcome(argv)
    except Exception:
        if not several():
            raise
        traceback.print_exc()
        code = 1
    if code == EXIT[Preempted]:  # asked again while on its way out: it is leaving
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    elif code and several():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def several():
    """Whether this is one of several processes of a run."""
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized()


def tell(verb: str, said: str) -> None:
    """An error as one line on stderr.

    Names that come from files may hold line breaks and codes that a terminal obeys;
    they are shown escaped.
    """
    escaped = CONTROLS.sub(lambda found: repr(found[0])[1:-1], said)
    print(f"dalle2 {verb}: {escaped}", file=sys.stderr)


def outcome(argv):
    """Runs the verb that `argv` names; its exit code, errors told in one sentence."""
    top = parser()
    args, extra = top.parse_known_args(argv)
    args.overrides = [text for text in extra if text.startswith("--config.")]
    unknown = [text for text in extra if text not in args.overrides]
    if unknown or args.overrides and args.verb not in CONFIGURED:
        top.error(f"unrecognized arguments: {' '.join(unknown or args.overrides)}")
    sys.unraisablehook = unraisable
    try:
        args.run(args)
    except tuple(EXIT) as error:
        tell(args.verb, str(error))
        return next(code for kind, code in EXIT.items() if isinstance(error, kind))
    except KeyboardInterrupt:
        said = "interrupted; nothing half-written is kept, run it again to go on."
        tell(args.verb, said)
        return 130
    except BrokenPipeError:
        return 1
    except OSError as error:
        place = error.filename or "a file"
        said = (
            f"{place}: {error.strerror or error}; free space, mend the permissions or "
            "choose another place, and run it again."
        )
        tell(args.verb, said)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
