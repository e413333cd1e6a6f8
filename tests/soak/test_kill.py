"""``kill -9`` at random moments: three writers at once, readers verifying all along."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Self

import pytest

from tests.servers.behaviours import rate_cap
from tests.servers.hostile import HostileServer
from weightstore.client import Client
from weightstore.config import Config
from weightstore.digest import Digest
from weightstore.store.gc import plan_removals, remove, take_inventory
from weightstore.store.layout import create_layout

KILLS = 120
WRITERS = 3


class Readers:
    """Hash everything that stands under a blob's name, again and again, by means of hashlib alone."""

    def __init__(self, blobs: Path, take_away: random.Random) -> None:
        self._blobs = blobs
        self._take_away = take_away
        self._stop = threading.Event()
        self.wrong: list[str] = []
        self.read = 0
        self._threads = [threading.Thread(target=self._run, args=(number == 0,)) for number in range(2)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, removes: bool) -> None:
        while not self._stop.is_set():
            for path in sorted(self._blobs.iterdir()):
                try:
                    actual = hashlib.sha256(path.read_bytes()).hexdigest()
                except FileNotFoundError:
                    continue
                self.read += 1
                if actual != path.name:
                    self.wrong.append(f"{path.name}: {actual}")
                if removes and self._take_away.random() < 0.2:
                    path.unlink(missing_ok=True)  # so that there is always something to download
            time.sleep(0.005)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("locks", ["flock", "none", "lying"])
def test_no_unverified_byte_is_ever_visible_and_no_stray_is_left(tmp_path: Path, locks: str) -> None:
    seed = int(os.environ.get("WEIGHTSTORE_TEST_SEED", "0")) or random.SystemRandom().randrange(1 << 30)
    print(f"seed {seed}")
    chance = random.Random(seed)
    layout = create_layout(tmp_path / "store")
    with HostileServer() as server:
        urls = []
        for number in range(6):
            data = chance.randbytes(chance.randrange(20_000, 2_000_000))
            name = hashlib.sha256(data).hexdigest()
            pin = "" if number % 3 == 0 else f"-{name[:8]}"
            fragment = f"#sha256={name}" if number % 3 == 1 else ""
            urls.append(server.serve(f"/model{number}{pin}.pth", data, rate_cap(25_000_000)) + fragment)
        nurseries = []
        with Readers(layout.blobs, chance) as readers:
            for number in range(WRITERS):
                plan = {
                    "home": str(layout.root),
                    "state": str(tmp_path / "state"),
                    "urls": urls,
                    "seed": seed + number,
                    "kills": KILLS,
                    "locks": locks != "none",
                    "lie": locks == "lying",
                }
                path = tmp_path / f"plan{number}.json"
                path.write_text(json.dumps(plan))
                nurseries.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "tests.soak.nursery", str(path)],
                        stdout=subprocess.PIPE,
                        stderr=subprocess.PIPE,
                        text=True,
                    )
                )
            outcomes = [nursery.communicate(timeout=280) for nursery in nurseries]
    tallies = [json.loads(out) for out, _ in outcomes]
    print(tallies, "blobs read", readers.read)
    assert readers.wrong == []
    assert sum(tally["failed"] for tally in tallies) == 0, [error for _, error in outcomes]
    assert sum(tally["killed"] for tally in tallies) >= WRITERS * KILLS / 4
    assert readers.read > 50

    # Whatever was interrupted: the next run gets everything right, and the collector leaves no stray.
    config = Config(home=layout.root, state=tmp_path / "state", offline=True)
    client = Client(config)
    time.sleep(2.1)  # the grace of half-written records
    remove(layout, plan_removals(take_inventory(layout, client.receipts), grace_s=0))
    assert list(layout.tmp.iterdir()) == []
    for path in layout.blobs.iterdir():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == Digest(path.name).hex
