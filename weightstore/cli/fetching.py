"""Running a plan for a command: what is going to happen, progress, a summary, an exit code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from weightstore.cli import units
from weightstore.cli.progress import progress_for
from weightstore.cli.settings import described
from weightstore.errors import Cancelled, NoSpace

if TYPE_CHECKING:
    from weightstore.batch import Plan, Report, Result
    from weightstore.cli.settings import Settings
    from weightstore.client import Client


def fetch(plan: Plan, *, settings: Settings, client: Client, jobs: int | None = None) -> Report:
    """Announce a plan, carry it out with progress, and sum it up. Failures are told as they come."""
    if plan.missing:
        settings.say(announcement(plan, client=client))
        with progress_for(settings) as progress:
            if settings.quiet:
                report = client.prefetch(plan=plan, jobs=jobs)
            else:
                report = client.prefetch(plan=plan, jobs=jobs, progress=progress)
        if settings.quiet:
            for result in report.failures:
                if result.status == "failed":
                    settings.complain(str(result.error))
    else:
        report = client.prefetch(plan=plan, jobs=jobs)
    settings.say(summary(report))
    if exit_code(report) == Cancelled.exit_code:
        settings.complain(str(Cancelled()))
    return report


def announcement(plan: Plan, *, client: Client) -> str:
    """Return what a plan will do, in one line: files, bytes, what is here, free space."""
    present = len(plan.items) - len(plan.missing)
    fetched = f"{units.count(len(plan.missing), 'file')} to fetch, {bytes_to_fetch(plan)}"
    here = f"; {present} already here" if present else ""
    free = f"; {units.size(plan.free)} free" if plan.free is not None else ""
    return f"{fetched}{here}{free} in {client.config.home}"


def bytes_to_fetch(plan: Plan) -> str:
    """Return how much is to be fetched, and how well that is known."""
    exact = all(item.wanted.size_is_exact for item in plan.missing)
    known = ("" if exact or not plan.bytes_to_fetch else "about ") + units.size(plan.bytes_to_fetch)
    if not plan.sizes_unknown:
        return known
    if not plan.bytes_to_fetch:
        return "of unknown size"
    return f"{known} and {plan.sizes_unknown} of unknown size"


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
    """Return the exit code of the worst failure. A full disk, which stops the others, and an interruption go first."""
    errors = [result.error for result in report.failures if result.error is not None]
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
