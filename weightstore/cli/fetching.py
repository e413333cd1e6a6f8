"""Running a plan for a command: what is going to happen, progress, a summary, an exit code."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from weightstore.cli import units
from weightstore.cli.complaints import complaining
from weightstore.cli.interrupt import interruptible
from weightstore.cli.progress import progress_for
from weightstore.cli.settings import described
from weightstore.errors import Cancelled, NoSpace

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from weightstore.batch import Item, Plan, Report, Result
    from weightstore.cli.settings import Settings
    from weightstore.client import Client
    from weightstore.errors import WeightStoreError


def fetch(plan: Plan, *, settings: Settings, client: Client, jobs: int | None = None) -> Report:
    """Announce a plan, carry it out with progress, and sum it up. Failures are told as they come."""
    if plan.missing:
        if any(may_fetch(item, client) for item in plan.missing):  # else what fails, and the sum, tell it all
            settings.say(announcement(plan, client=client))
        with interruptible() as stop, progress_for(settings) as progress:
            if settings.quiet:
                report = client.prefetch(plan=plan, jobs=jobs, stop=stop)
            else:
                report = client.prefetch(plan=plan, jobs=jobs, progress=progress, stop=stop)
        if settings.quiet:
            with complaining(settings) as complaints:
                for result in report.failures:
                    if result.status == "failed":
                        complaints.tell(result)
    else:
        report = client.prefetch(plan=plan, jobs=jobs)
    if exit_code(report) != Cancelled.exit_code:
        settings.say(summary(report))
        return report
    if sys.stderr.isatty() and not settings.is_live:
        click.echo(err=True)  # closes the terminal's ^C echo
    lines = kept(report, client=client)
    for line in [*lines, summary(report)]:
        settings.say(line)
    settings.complain(str(Cancelled()) if lines else "stopped. Run it again: the next run goes on with what is left")
    return report


def announcement(plan: Plan, *, client: Client) -> str:
    """Return what a plan will do, in one line: files, bytes, what is here, free space."""
    present = len(plan.items) - len(plan.missing)
    here = f"; {present} already here" if present else ""
    offline = [item for item in plan.missing if not may_fetch(item, client)]
    to_fetch = [item for item in plan.missing if may_fetch(item, client)]
    if not to_fetch:
        return f"{units.count(len(offline), 'file')} missing, and offline mode forbids fetching{here}"
    fetched = f"{units.count(len(to_fetch), 'file')} to fetch, {_size_of(to_fetch, client)}"
    kept_out = f"; {len(offline)} missing that offline mode forbids fetching" if offline else ""
    free = f"; {units.size(plan.free)} free" if plan.free is not None else ""
    return f"{fetched}{kept_out}{here}{free} in {client.config.home}"


def may_fetch(item: Item, client: Client) -> bool:
    """Tell whether there is a place to fetch from: offline, that is one on this machine."""
    return not client.config.offline or any(source.startswith("file://") for source in item.sources)


def _size_of(items: Sequence[Item], client: Client) -> str:
    """Return how much is to be fetched, and how well that is known."""
    known = [item for item in items if item.size is not None]
    unknown = len(items) - len(known)
    if not known:
        return "of unknown size"
    about = "" if all(_is_exact(item, client) for item in known) else "about "
    total = about + units.size(sum(item.size or 0 for item in known))
    return f"{total} and {unknown} of unknown size" if unknown else total


def _is_exact(item: Item, client: Client) -> bool:
    source = item.wanted.source
    if item.wanted.size_is_exact or source.scheme == "file" or item.word is not None:
        return True
    entry = client.entry_of(source)
    return entry is not None and entry.size_is_exact and entry.size == item.size


def kept(report: Report, *, client: Client) -> list[str]:
    """Return, for each unfinished item of which something lies in the store, a line that says how much."""
    from weightstore.store.parts import list_parts, read_journal

    layout = client.obtainer.layers()[-1].layout
    if layout is None:
        return []
    lines = []
    for item in (result.item for result in report.failures if result.status == "cancelled"):
        key = f"sha256-{item.digest.hex}" if item.digest is not None else f"source-{item.wanted.source.key}"
        journals = [journal for part in list_parts(layout, key) if (journal := read_journal(part)) is not None]
        if journals:
            furthest = max(journals, key=lambda journal: journal.offset)
            total = furthest.total or item.size
            of = f" of {units.size(total)}" if total else ""
            lines.append(f"{'kept':<9} {item.wanted.name}  {units.size(furthest.offset)}{of}")
    return lines


def summary(report: Report) -> str:
    """Return what a prefetch did, in one line."""
    counts = {"fetched": 0, "present": 0, "failed": 0, "cancelled": 0}
    for result in report.results:
        counts[result.status] += 1
    told = [f"{counts[name]} {name}" for name in ("fetched", "present", "failed")]
    if counts["cancelled"]:
        told.append(f"{counts['cancelled']} unfinished")
    received = f" · {units.size(report.bytes_received)} in {units.duration(report.elapsed_s)}"
    return ", ".join(told) + (received if report.bytes_received else "")


def exit_code(report: Report) -> int:
    """Return the exit code of the worst failure."""
    return worst([result.error for result in report.failures if result.error is not None])


def worst(errors: Collection[WeightStoreError]) -> int:
    """Return the exit code of some errors. A full disk, which stops the others, and an interruption go first."""
    for first in (NoSpace, Cancelled):
        if any(isinstance(error, first) for error in errors):
            return first.exit_code
    return max((error.exit_code for error in errors), default=0)


def as_json(report: Report) -> dict[str, object]:
    """Return a report as ``--json`` prints it."""
    results = [_result_as_json(result) for result in report.results]
    counts = {
        status: sum(result.status == status for result in report.results)
        for status in ("fetched", "present", "failed", "cancelled")
    }
    return {
        "items": results,
        **counts,
        "received_bytes": report.bytes_received,
        "elapsed_s": round(report.elapsed_s, 3),
        "exit_code": exit_code(report),
    }


def _result_as_json(result: Result) -> dict[str, object]:
    obtained = result.obtained
    digest = obtained.digest if obtained else result.item.digest
    return {
        "names": list(result.item.names),
        "source": result.item.wanted.source.display,
        "status": result.status,
        "digest": str(digest) if digest else None,
        "size_bytes": obtained.size if obtained else result.item.size,
        "path": str(obtained.path) if obtained else None,
        "via": obtained.via if obtained else None,
        "place": obtained.place if obtained else None,
        "received_bytes": obtained.received if obtained else 0,
        "elapsed_s": round(result.elapsed_s, 3),
        "error": described(result.error) if result.error else None,
    }
