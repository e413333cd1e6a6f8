"""Fresh processes, timed; rounds, interleaved."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from benchmarks.job import Job
    from benchmarks.tools import Tool

LIMIT_S = 900
REPOSITORY = Path(__file__).resolve().parent.parent


class MeasurementFailed(Exception):
    """A tool that did not do what it was asked to; ``str()`` is the reason."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One run. ``repeat_seconds`` is the median of the calls after the first.

    Of loading a model: ``pass_seconds`` is its first forward pass, ``ready_rss_bytes`` the peak before it, and
    ``output`` the digest of what came out.
    """

    seconds: float
    peak_rss_bytes: int | None = None
    repeat_seconds: float | None = None
    pass_seconds: float | None = None
    ready_rss_bytes: int | None = None
    output: str | None = None


@dataclass(frozen=True, slots=True)
class Series:
    """The counted runs of one contender in the order of the rounds, or why there are none."""

    samples: tuple[Sample, ...] = ()
    failure: str | None = None


class Worker:
    """A worker process: started, ready, told to go, read."""

    def __init__(self, tool: Tool, job: Job, env: Mapping[str, str]) -> None:
        self._errors: IO[str] = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed in result()
        self._process = subprocess.Popen(
            [sys.executable, "-m", tool.worker, tool.key, "--json"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd=REPOSITORY,
            env=dict(env),
            text=True,
        )
        self._timer = threading.Timer(LIMIT_S, self._process.kill)
        self._timer.start()
        self._send(f"{job}\n")

    def await_ready(self) -> None:
        if self._process.stdout is not None:
            self._process.stdout.readline()

    def go(self) -> None:
        self._send("go\n")

    def result(self) -> Sample:
        """Waits for the end and returns what was measured; raises MeasurementFailed."""
        with self._errors:
            try:
                output, _ = self._process.communicate()
            finally:
                self._timer.cancel()
            if self._process.returncode:
                raise MeasurementFailed(_last_line(self._errors, self._process.returncode))
        return Sample(**json.loads(output))

    def kill(self) -> None:
        """Ends a worker whose result nobody read."""
        if self._errors.closed:
            return
        self._process.kill()
        with contextlib.suppress(MeasurementFailed):
            self.result()

    def _send(self, line: str) -> None:
        if self._process.stdin is None:
            return
        with contextlib.suppress(BrokenPipeError):  # it died: result() says of what
            self._process.stdin.write(line)
            self._process.stdin.flush()


def run_tool(tool: Tool, job: Job, env: Mapping[str, str]) -> Sample:
    """One run of ``tool`` in a fresh process; raises MeasurementFailed."""
    size_bytes = sum(target.size_bytes for target in job.targets)
    if tool.command is None:
        worker = Worker(tool, job, env)
        try:
            worker.await_ready()
            warm_page_cache(job.into, size_bytes)
            worker.go()
            return worker.result()
        finally:
            worker.kill()
    command = tool.command(job)
    warm_page_cache(job.into, size_bytes)
    sample = run_program(command, env)
    for target in job.targets:
        path = job.into / target.name
        if not path.exists() or path.stat().st_size != target.size_bytes:
            msg = f"{target.name} is missing or short"
            raise MeasurementFailed(msg)
    return sample


def run_loader(tool: Tool, job: Job, env: Mapping[str, str]) -> Sample:
    """One model made ready by ``tool`` in a fresh process; raises MeasurementFailed."""
    worker = Worker(tool, job, env)
    try:
        worker.await_ready()
        worker.go()
        return worker.result()
    finally:
        worker.kill()


def run_python(arguments: Sequence[str], env: Mapping[str, str]) -> str:
    """What a Python process prints; raises MeasurementFailed."""
    command = [sys.executable, *arguments]
    try:
        done = subprocess.run(
            command, cwd=REPOSITORY, env=dict(env), capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        msg = f"no end after {LIMIT_S} s"
        raise MeasurementFailed(msg) from None
    if done.returncode:
        raise MeasurementFailed(done.stderr.strip().rpartition("\n")[2] or f"exit status {done.returncode}")
    return done.stdout


def run_program(command: Sequence[str], env: Mapping[str, str]) -> Sample:
    """A whole process from its start to its end; raises MeasurementFailed.

    A timer ends one that hangs: ``wait(timeout=…)`` polls in steps of up to 50 ms, which would be measured.
    """
    with tempfile.TemporaryFile("w+") as errors:
        start = time.perf_counter()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors, env=dict(env)
        )
        timer = threading.Timer(LIMIT_S, process.kill)
        timer.start()
        try:
            returncode = process.wait()
            seconds = time.perf_counter() - start
        except BaseException:
            process.kill()
            process.wait()
            raise
        finally:
            timer.cancel()
        if returncode:
            raise MeasurementFailed(_last_line(errors, returncode))
    return Sample(seconds)


def run_herd(tool: Tool, job: Job, env: Mapping[str, str], *, processes: int) -> Sample:
    """``processes`` workers with one job, let go together; the slowest one's time."""
    workers: list[Worker] = []
    try:
        for _ in range(processes):
            workers.append(Worker(tool, job, env))  # noqa: PERF401 - those started must be known if one fails
        for worker in workers:
            worker.await_ready()
        for worker in workers:
            worker.go()
        return Sample(max([worker.result().seconds for worker in workers]))
    finally:
        for worker in workers:
            worker.kill()


def warm_page_cache(directory: Path, size_bytes: int) -> None:
    """Fills as much page cache as a download will, and frees it again: the same start for every tool.

    A virtual machine hands free memory back to its host, and the page cache pays to get it again: writing 1 GiB took
    0.17 s just after 1 GiB had been freed, 1.0 to 1.2 s after eight idle seconds, all of it in the kernel. Without
    this a tool that is slow to import would pay and one that starts at once would not. (Anonymous memory shows no
    such cost, and touching it does not help.)
    """
    chunk = bytes(1 << 20)
    filler = directory / "filler"
    with filler.open("wb", buffering=0) as file:
        for _ in range(0, size_bytes, len(chunk)):
            file.write(chunk)
    filler.unlink()


@contextlib.contextmanager
def emptied(directory: Path) -> Iterator[Path]:
    """A new directory, gone again afterwards, and synced: write-back of one tool must not bill the next."""
    directory.mkdir(parents=True)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, onerror=_make_writable)
        os.sync()


def interleave(
    contenders: Mapping[str, Callable[[], Sample]],
    *,
    rounds: int,
    warmups: int = 1,
    say: Callable[[str], None],
) -> dict[str, Series]:
    """Runs every contender once a round, in order; one that fails is out, and the others go on."""
    samples: dict[str, list[Sample]] = {key: [] for key in contenders}
    failures: dict[str, str] = {}
    for number in range(-warmups, rounds):
        for key, run in contenders.items():
            if key in failures:
                continue
            try:
                sample = run()
            except MeasurementFailed as failure:
                failures[key] = str(failure)
                say(f"  {key}: failed: {failure}")
                continue
            if number >= 0:
                samples[key].append(sample)
            label = f"round {number + 1}" if number >= 0 else "warm-up"
            say(f"  {label}: {key} {sample.seconds:.3f} s")
    return {
        key: Series(failure=failures[key]) if key in failures else Series(tuple(samples[key])) for key in contenders
    }


def _last_line(errors: IO[str], returncode: int) -> str:
    errors.seek(0)
    lines = [line.strip() for line in errors if line.strip()]
    return lines[-1] if lines else f"exit status {returncode}"


def _make_writable(function: Callable[[str], object], path: str, _: object) -> None:
    """Opens a read-only folder of a store, so that what is in it can be deleted."""
    os.chmod(os.path.dirname(path), 0o700)
    function(path)
