"""Ctrl-C on a terminal with live bars: soon, without a traceback, and with a word on what was kept."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import signal
import termios
import threading
import time

import pytest

from tests.servers import behaviours as does


class Terminal:
    """A process on a terminal of its own, whose Ctrl-C reaches it as from a keyboard."""

    def __init__(self, spawn, *arguments):
        self._leader, follower = pty.openpty()
        environ = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"}
        self.process = spawn(
            *arguments,
            stdin=follower,
            stderr=follower,
            env=environ,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(follower)
        self.shown = b""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        with contextlib.suppress(OSError):  # EIO when the other side is closed
            while data := os.read(self._leader, 65536):
                self.shown += data

    def wait_for(self, text):
        deadline = time.monotonic() + 20
        while text not in self.shown:
            assert time.monotonic() < deadline, self.shown.decode()
            time.sleep(0.02)

    def ctrl_c(self):
        os.write(self._leader, b"\x03")

    def end(self):
        """Return the exit code, and everything that was shown."""
        code = self.process.wait(timeout=20)
        self.process.communicate()
        self._reader.join()
        os.close(self._leader)
        return code, self.shown.decode()


@pytest.mark.parametrize("behaviour", [does.rate_cap(1_000_000), does.stall(after=600_000, seconds=60)])
def test_ctrl_c_ends_within_a_second_and_says_what_was_kept(site, spawn, monkeypatch, behaviour):
    monkeypatch.setenv("WEIGHTSTORE_CONNECTIONS_PER_FILE", "1")
    url = site.server.serve("/big.bin", os.urandom(4_000_000), behaviour)
    terminal = Terminal(spawn, "prefetch", url)
    terminal.wait_for(b"600.0 kB" if behaviour.name == "stall" else b"MB")
    pressed = time.monotonic()
    terminal.ctrl_c()
    code, shown = terminal.end()
    assert code == 130, shown
    assert time.monotonic() - pressed < 2
    assert "kept " in shown
    assert "of 4.0 MB" in shown
    assert "the next run resumes" in shown
    assert "Traceback" not in shown


def test_a_second_ctrl_c_ends_at_once(site, spawn):
    url = site.server.serve("/big.bin", os.urandom(4_000_000), does.rate_cap(500_000))
    terminal = Terminal(spawn, "prefetch", url)
    terminal.wait_for(b"total 0/1")
    terminal.ctrl_c()
    terminal.ctrl_c()
    code, shown = terminal.end()
    # By the signal itself, where it comes when Python is ending anyway: to a shell that is 130 as well.
    assert code in {130, -signal.SIGINT}, shown
    assert "Traceback" not in shown
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")  # the cursor is there again


def test_ctrl_c_ends_a_verification(site, run, spawn):
    url = site.server.serve("/big.bin", bytes(300_000_000))
    run("prefetch", url)
    terminal = Terminal(spawn, "verify")
    terminal.wait_for(b"verifying")
    terminal.ctrl_c()
    code, shown = terminal.end()
    assert code == 130, shown
    assert "stopped" in shown
    assert "Traceback" not in shown
    assert any(site.home.glob("blobs/sha256/*"))


def test_an_ignored_interrupt_stays_ignored(site, spawn):
    url = site.server.serve("/big.bin", os.urandom(300_000), does.rate_cap(500_000))
    process = spawn("prefetch", url, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    while not site.bodies_sent:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 0, stderr


def test_ctrl_c_before_anything_came_says_that_the_next_run_goes_on(site, spawn):
    url = site.server.serve("/big.bin", os.urandom(300_000), does.stall(after=0, seconds=60))
    process = spawn("prefetch", url)
    deadline = time.monotonic() + 30
    while not site.server.connections and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=30)
    assert process.returncode == 130, told
    assert "the next run" in told
