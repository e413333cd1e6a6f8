"""What a download tells while it runs."""

from __future__ import annotations

from typing import Protocol


class Meter(Protocol):
    """Watches one blob arrive. Called from several threads."""

    def start(self, source: str, *, offset: int, total: int | None) -> None:
        """Bytes begin to come from ``source``; ``offset`` of ``total`` bytes are already here."""
        ...

    def advance(self, size: int) -> None:
        """``size`` more bytes have come."""
        ...

    def note(self, message: str) -> None:
        """Something worth knowing happened: a retry, a wait, a source given up."""
        ...


class Silent:
    """A meter that shows nothing."""

    def start(self, source: str, *, offset: int, total: int | None) -> None:
        pass

    def advance(self, size: int) -> None:
        pass

    def note(self, message: str) -> None:
        pass
