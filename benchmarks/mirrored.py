"""``weightstore serve`` beside nginx, over one and the same store; and a hundred clients at once."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import re
import subprocess
import sys
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from benchmarks import tools
from benchmarks.lab import MIB, seconds_row
from benchmarks.measure import LIMIT_S, MeasurementFailed, Sample, emptied, interleave, run_program, run_tool
from benchmarks.resident import peak_bytes
from benchmarks.table import Bar, Row, Table
from tests.servers.nginx import Nginx

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from benchmarks.job import Job
    from benchmarks.lab import Lab
    from benchmarks.origin import ServedFile

_ANNOUNCED = re.compile(r"serving .* at (\S+)")
_READ_BYTES = 256 << 10
# Where nothing listens: what comes, comes from the mirror.
_ELSEWHERE = "http://127.0.0.1:9"


def serve(lab: Lab) -> Table:
    """One large file pulled from a mirror: a store behind ``weightstore serve``, and the same behind nginx."""
    file = lab.file(lab.scale.big_bytes)
    with _stored(lab, file) as store, _serving(lab, store) as (url, _), Nginx(store, workers=1) as nginx:
        servers = {"serve": url, "nginx": nginx.url("")}
        labels = {"serve": "weightstore serve", "nginx": "nginx"}
        contenders: dict[str, Callable[[], Sample]] = {}
        for key, mirror in servers.items():
            contenders[f"ours:{key}"] = _pull(lab, file, mirror)
            contenders[f"curl:{key}"] = _curl(lab, f"{mirror}/blobs/sha256/{file.sha256}", file)
        series = interleave(contenders, rounds=lab.scale.rounds, say=lab.say)
    clients = {"ours": tools.OURS, "curl": tools.CURL}
    rows = []
    for key, measured in series.items():
        client, _, server = key.partition(":")
        row = seconds_row(clients[client], measured)
        rows.append(replace(row, key=key, label=f"{row.label}, from {labels[server]}"))
    return Table(
        "serve",
        f"One file of {file.size_bytes / (1 << 30):.3g} GiB pulled from a mirror",
        "s",
        tuple(rows),
        reference="ours:nginx",
        bars=(Bar("ours:serve", 1.25, "ours:nginx"), Bar("curl:serve", 1.25, "curl:nginx")),
        columns=("peak memory",),
        note="Both servers read one store. weightstore finds the blob by its digest, hashes it, syncs it and publishes "
        "it in an empty store of its own; the origin's address leads nowhere.",
    )


def clients(lab: Lab) -> Table:
    """Many clients at once on one blob of ``weightstore serve``: what it takes, and what the server grows by."""
    file = lab.file(lab.scale.herd_bytes, stem="herd")
    count = lab.scale.clients
    seconds, more, peaks = [], [], []
    with _stored(lab, file) as store:
        for number in range(lab.scale.herd_rounds):
            with _serving(lab, store) as (url, process):
                _all_at_once(url, file, count=1)
                before = peak_bytes(process.pid)
                seconds.append(_all_at_once(url, file, count=count))
                peaks.append(peak_bytes(process.pid) / MIB)
                more.append(peaks[-1] - before / MIB)
            lab.say(f"  round {number + 1}: {seconds[-1]:.3f} s, {more[-1]:.1f} MiB more")
    row = Row(
        "clients",
        "weightstore serve",
        tuple(more),
        extra=(f"{count} of {count}", f"{max(seconds):.3g}", f"{max(peaks):.0f}"),
    )
    return Table(
        "clients",
        f"{count} clients at once on one file of {file.size_bytes // MIB} MiB of weightstore serve",
        "MiB",
        (row,),
        bars=(Bar("clients", 16),),
        columns=("served right", "s until the last has it, highest", "peak memory, MiB"),
        note="By how much the server's peak memory is more than after one client. Each client hashes what it gets; the "
        "clients share one process and the machine with the server.",
        worst=True,
    )


@contextlib.contextmanager
def _stored(lab: Lab, file: ServedFile) -> Iterator[Path]:
    """A store that holds a file of the origin."""
    with emptied(lab.new_directory()) as into:
        job = lab.job([file], into)
        run_tool(tools.OURS, replace(job, repeats=0), lab.env(job))
        yield into / "store"


@contextlib.contextmanager
def _serving(lab: Lab, store: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """``weightstore serve`` over a store, in a process of its own, and its address."""
    with emptied(lab.new_directory()) as into:
        env = {**lab.env(lab.job([], into)), "WEIGHTSTORE_HOME": str(store)}
        command = [sys.executable, "-m", "weightstore", "serve", "--port", "0"]
        process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
        try:
            line = process.stderr.readline() if process.stderr is not None else ""
            if (announced := _ANNOUNCED.match(line)) is None:
                msg = f"weightstore serve says {line.strip()!r}"
                raise MeasurementFailed(msg)
            yield announced[1].rstrip("/"), process
        finally:
            process.terminate()
            process.communicate(timeout=60)


def _pull(lab: Lab, file: ServedFile, mirror: str) -> Callable[[], Sample]:
    def run() -> Sample:
        with emptied(lab.new_directory()) as into:
            job = lab.job([file], into)
            elsewhere = replace(job.targets[0], url=f"{_ELSEWHERE}/{file.name}")
            asked: Job = replace(job, targets=(elsewhere,), mirror=mirror)
            return run_tool(tools.OURS, asked, lab.env(job))

    return run


def _curl(lab: Lab, url: str, file: ServedFile) -> Callable[[], Sample]:
    def run() -> Sample:
        with emptied(lab.new_directory()) as into:
            path = into / file.name
            sample = run_program(["curl", "-q", "-sSf", "-o", str(path), url], lab.env(lab.job([], into)))
            if path.stat().st_size != file.size_bytes:
                msg = f"{file.name} is short"
                raise MeasurementFailed(msg)
            return sample

    return run


def _all_at_once(url: str, file: ServedFile, *, count: int) -> float:
    """So many clients fetch and hash one blob; returns the seconds until the last is done, if all have it right."""
    netloc, path = urlsplit(url).netloc, f"/blobs/sha256/{file.sha256}"
    start = threading.Barrier(count + 1)
    right: list[bool] = []

    def fetch() -> None:
        connection = http.client.HTTPConnection(netloc, timeout=LIMIT_S)
        digest, buffer = hashlib.sha256(), memoryview(bytearray(_READ_BYTES))
        try:
            start.wait()
            connection.request("GET", path)
            with connection.getresponse() as answer:
                while received := answer.readinto(buffer):
                    digest.update(buffer[:received])
        except OSError:
            return
        finally:
            connection.close()
        right.append(digest.hexdigest() == file.sha256)

    threads = [threading.Thread(target=fetch) for _ in range(count)]
    for thread in threads:
        thread.start()
    start.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    if right.count(True) != count:
        msg = f"{right.count(True)} of {count} clients got the file"
        raise MeasurementFailed(msg)
    return time.perf_counter() - began
