"""One measurement in a fresh process: ``python -m benchmarks.worker TOOL --json``, with the job on standard input.

The worker imports what the tool needs, prints ``ready``, waits for a line, runs the operation and prints what
it took. The wait lets a herd of workers start together.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import time

from benchmarks.job import Job
from benchmarks.libraries import LIBRARIES
from benchmarks.resident import peak_bytes


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.worker", description=__doc__)
    parser.add_argument("tool", choices=sorted(LIBRARIES))
    parser.add_argument("--json", action="store_true", help="print JSON instead of a sentence")
    arguments = parser.parse_args()

    job = Job.parse(sys.stdin.readline())
    with contextlib.redirect_stdout(sys.stderr):  # torch.hub and others talk on standard output
        operation = LIBRARIES[arguments.tool](job)
    print("ready", flush=True)
    sys.stdin.readline()

    seconds = []
    with contextlib.redirect_stdout(sys.stderr):
        for _ in range(1 + job.repeats):
            start = time.perf_counter()
            operation.run()
            seconds.append(time.perf_counter() - start)
    peak_rss_bytes = peak_bytes()

    with contextlib.redirect_stdout(sys.stderr):
        paths = operation.paths()
    for path, target in zip(paths, job.targets, strict=True):
        if path.stat().st_size != target.size_bytes:
            sys.exit(f"{arguments.tool} left {path.stat().st_size} of {target.size_bytes} bytes in {path}")
    measured = {
        "seconds": seconds[0],
        "repeat_seconds": statistics.median(seconds[1:]) if job.repeats else None,
        "peak_rss_bytes": peak_rss_bytes,
    }
    if arguments.json:
        print(json.dumps(measured))
    else:
        print(f"{arguments.tool}: {seconds[0]:.3f} s, peak {peak_rss_bytes / (1 << 20):.0f} MiB")


if __name__ == "__main__":
    main()
