"""What ``weightstore mirror pull`` tells of what it leaves out, and of what it would do."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from weightstore.errors import TransferError

if TYPE_CHECKING:
    from weightstore.batch import Plan
    from weightstore.cli.settings import Settings
    from weightstore.client import Client
    from weightstore.cluster.mirror.place import Place
    from weightstore.cluster.mirror.plan import PullPlan


def skipped_notes(prepared: PullPlan) -> list[str]:
    """Return a sentence for each reason for which something is not pulled."""
    names: dict[str, list[str]] = {}
    for one in prepared.skipped:
        names.setdefault(one.reason, []).append(one.name)
    return [f"not pulled: {_and_more(told)}: {reason}" for reason, told in names.items()]


def skipped_as_json(prepared: PullPlan) -> dict[str, object]:
    return {"skipped": [{"name": one.name, "reason": one.reason} for one in prepared.skipped]}


def print_pull_plan(plan: Plan, prepared: PullPlan, *, place: Place, settings: Settings, client: Client) -> int:
    """Print what a pull would do, having asked the mirror what it has of it; return the exit code it would end with.

    What is skipped does not count here.

    Raises:
        TransferError: the mirror cannot be asked.
    """
    from weightstore.cli.prefetch import foreseen, print_plan  # start-up: not for --help
    from weightstore.cluster.mirror.pull import lacking

    absent = lacking(plan.missing, place, client=client)
    coming = replace(plan, items=tuple(item for item in plan.items if item not in absent))
    code = foreseen(coming, client=client) or (TransferError.exit_code if absent else 0)
    more = {"lacking": [item.wanted.name for item in absent], **skipped_as_json(prepared)}
    print_plan(coming, settings=settings, client=client, more=more, left_out=bool(absent or prepared.skipped))
    if absent and not settings.json:
        settings.note(f"the mirror does not have {_and_more([item.wanted.name for item in absent])}")
    return code


def _and_more(names: list[str]) -> str:
    return f"{names[0]}, and {len(names) - 1} more" if len(names) > 1 else names[0]
