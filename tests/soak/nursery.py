"""A process that imports everything once, then forks a child for each download and kills it at a random moment.

Run as ``python -m tests.soak.nursery CONFIG.json`` with home, state, urls, seed, kills, locks, lie. It prints one JSON
line: how many children were killed and how many ended by themselves, with the failures of the latter.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import filelock  # noqa: F401 - imported before the fork, so that children start quickly

import weightstore.transfer.http  # noqa: F401 - likewise
from weightstore.client import Client
from weightstore.config import Config


def child(config: Config, url: str) -> None:
    try:
        report = Client(config).prefetch([url])
        for failure in report.failures:
            print(f"failure: {failure.error!r} {failure.error}", file=sys.stderr, flush=True)
        os._exit(3 if report.failures else 0)
    except BaseException as error:
        print(f"error: {error!r} {error}", file=sys.stderr, flush=True)
        os._exit(4)


def lie_about_locks() -> None:
    """Make every lock succeed for everybody, as some network file systems do."""
    import fcntl

    fcntl.flock = lambda *_: None  # type: ignore[assignment, misc]
    fcntl.fcntl = lambda *_: 0  # type: ignore[assignment, misc]


def main(plan: dict[str, Any]) -> None:
    chance = random.Random(plan["seed"])
    if plan.get("lie"):
        lie_about_locks()
    config = Config(
        home=Path(plan["home"]), state=Path(plan["state"]), locks=plan["locks"], stall_s=plan.get("stall_s", 1.0)
    )
    killed = finished = failed = 0
    patience_s = 0.15  # follows the machine's speed, so that about half of the children are killed on the way
    for _ in range(plan["kills"]):
        pid = os.fork()
        if pid == 0:
            child(config, chance.choice(plan["urls"]))
        time.sleep(chance.uniform(0.0, patience_s))
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        if os.WIFSIGNALED(status):
            killed += 1
            patience_s *= 1.1
        elif os.WEXITSTATUS(status) == 0:
            finished += 1
            patience_s *= 0.9
        else:
            failed += 1
    print(json.dumps({"killed": killed, "finished": finished, "failed": failed}))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
