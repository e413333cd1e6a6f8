"""``weightstore doctor``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from weightstore.cli import terminal
from weightstore.cli.options import command_with_example, shared_options
from weightstore.errors import StoreError

if TYPE_CHECKING:
    from weightstore.cli.diagnosis import Finding
    from weightstore.cli.settings import Settings

_COLOURS = {"ok": "green", "note": "cyan", "warn": "yellow", "bad": "red"}


@command_with_example(
    example="""
weightstore doctor
WEIGHTSTORE_HOME=/project/weights weightstore doctor --json
""",
)
@shared_options("home", "offline", "json")
@click.pass_obj
def command(settings: Settings) -> None:
    """Check everything that storing and fetching weights depends on, and say what each finding means.

    Exits with 8 when the store cannot be used, with 0 otherwise, whatever else was found.
    """
    import os

    from weightstore.cli.diagnosis import diagnose

    findings = []
    area = ""
    for finding in diagnose(settings.config(), environ=os.environ):
        findings.append(finding)
        if not settings.json:
            if finding.area != area:
                click.echo(("\n" if area else "") + _styled(finding.area, bold=True))
                area = finding.area
            _print(finding)
    usable = not any(finding.level == "bad" and finding.area == "store" for finding in findings)
    if settings.json:
        settings.print_json(
            {
                "usable": usable,
                "findings": [
                    {
                        "area": finding.area,
                        "level": finding.level,
                        "what": finding.what,
                        "found": finding.found,
                        "meaning": finding.meaning,
                    }
                    for finding in findings
                ],
            }
        )
    else:
        worst = sum(finding.level in {"warn", "bad"} for finding in findings)
        verdict = "The store can be used" if usable else "The store cannot be used"
        click.echo(f"\n{verdict}; {worst or 'nothing'} to look at.")
    click.get_current_context().exit(0 if usable else StoreError.exit_code)


def _print(finding: Finding) -> None:
    import textwrap

    width = max(40, min(100, terminal.width()) - 1)
    level = _styled(f"{finding.level:<5}", fg=_COLOURS[finding.level])
    found = textwrap.wrap(finding.found, width - 24, break_long_words=False, break_on_hyphens=False) or [""]
    click.echo(f"  {level}{finding.what:<16} {found[0]}")
    for line in found[1:]:
        click.echo(f"{'':<24}{line}")
    if finding.meaning:
        click.echo(textwrap.fill(finding.meaning, width, initial_indent=" " * 7, subsequent_indent=" " * 7))


def _styled(text: str, **style: Any) -> str:
    return text if terminal.is_plain() else click.style(text, **style)
