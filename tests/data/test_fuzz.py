"""Hostile bytes: what `data` reads, changed thousands of times, in their own process.

The process has little memory and may not crash, hang or show a traceback; what it
checks of each input stands in fuzz_readers.py.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
LEAST = 9_000  # inputs of all kinds
SECONDS = 600  # a hang, not a measure


def test_no_bytes_break_a_reader_or_pair_a_picture_with_another_caption():
    done = subprocess.run(
        [sys.executable, HERE / "fuzz_readers.py"],
        env=os.environ | {"PYTHONPATH": str(HERE.parent.parent)},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    counts = json.loads(done.stdout)
    for kind, (tried, refused, read) in counts.items():
        print(f"{kind}: {tried} tried, {refused} refused, {read} read")
        assert read > 0, kind
    assert sum(tried for tried, _, _ in counts.values()) >= LEAST
