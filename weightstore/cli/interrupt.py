"""Ctrl-C: the first one stops, cleanly and soon; the second one ends the process, at once and without a word."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from weightstore.cli.terminal import can_move_its_cursor
from weightstore.errors import Cancelled

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

_SHOW_CURSOR = b"\x1b[?25h\n"


@contextmanager
def interruptible() -> Iterator[threading.Event]:
    """Yield an event that Ctrl-C sets as it raises KeyboardInterrupt. A second Ctrl-C ends the process there and then.

    Where the signal is ignored, as by nohup, or handled by somebody else, it stays so.
    """
    stop = threading.Event()
    is_ours = threading.current_thread() is threading.main_thread()
    if not is_ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield stop
        return

    def stop_soon(_: int, __: FrameType | None) -> None:
        stop.set()
        signal.signal(signal.SIGINT, _end_now)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, stop_soon)
    try:
        yield stop
    finally:
        # After a first Ctrl-C the process is about to end, and another one is to end it still.
        if signal.getsignal(signal.SIGINT) is stop_soon:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _end_now(_: int, __: FrameType | None) -> None:
    if sys.stderr.isatty() and can_move_its_cursor():
        os.write(sys.stderr.fileno(), _SHOW_CURSOR)  # bars hide it
    # Not sys.exit(): threads may hang in the network or on a disk. What they wrote is for the next run to check.
    os._exit(Cancelled.exit_code)
