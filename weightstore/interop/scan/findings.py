"""What a scan finds, as values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A line of a file; of a notebook the line of a cell, both counted from 1."""

    file: str
    line: int
    cell: int | None = None

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.cell is None else f"{self.file}[{self.cell}]:{self.line}"


@dataclass(frozen=True, slots=True)
class Finding:
    """One place in code that asks for weights.

    Attributes:
        place: where.
        what: the code, shortened, without the credentials that a URL in it may carry.
        target: what it asks for, as ``weightstore prefetch`` takes it: a weights name with its namespace, or a source.
            Empty where that cannot be told without running the code.
        note: why not; or what else there is to know.
        asked_by: the library that would ask for it.
    """

    place: Place
    what: str
    target: str = ""
    note: str = ""
    asked_by: str = ""

    @property
    def is_resolved(self) -> bool:
        return bool(self.target)


@dataclass(frozen=True, slots=True)
class Unread:
    """A file, cell or directory that could not be looked into, and why."""

    place: str
    reason: str


@dataclass(frozen=True, slots=True)
class Scan:
    """What a scan found, in order of place."""

    findings: tuple[Finding, ...]
    unread: tuple[Unread, ...]
    files: int

    @property
    def targets(self) -> list[str]:
        """What could be given to ``weightstore prefetch``: each once, in the order found."""
        return list(dict.fromkeys(finding.target for finding in self.findings if finding.is_resolved))

    @property
    def unresolved(self) -> list[Finding]:
        return [finding for finding in self.findings if not finding.is_resolved]
