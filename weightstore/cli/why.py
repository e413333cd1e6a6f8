"""``weightstore why``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from weightstore.cli.options import WeightsName, command_with_example, shared_options
from weightstore.records import timestamp

if TYPE_CHECKING:
    from weightstore.cli.settings import Settings
    from weightstore.client import Explanation
    from weightstore.signing.vouchers import Word

_KNOWN_BY = {
    "pin": "its pin, which is the full digest",
    "ref": "a record of an earlier download",
    "signature": "the signed index of a mirror",
    "nothing": "not known",
}
_SIGNED = "a record of what a signed index told when it was fetched"


@command_with_example(
    example="""
weightstore why resnet50
""",
)
@click.argument("name", type=WeightsName())
@click.option("--sha256", metavar="HEX", help="The digest, or its first 8 or more digits.")
@shared_options("home", "offline", "json")
@click.pass_obj
def command(settings: Settings, *, name: str, sha256: str | None) -> None:
    """Explain where a name leads: every place that is asked, in order, and what it answers. Opens no connection."""
    explanation = settings.client().why(name, sha256=sha256)
    if settings.json:
        settings.print_json(_as_json(explanation))
        return
    from weightstore.cli.table import print_facts

    wanted = explanation.wanted
    digest = explanation.digest
    facts = [
        ("name", wanted.name),
        ("source", wanted.source.display),
        ("pin", str(wanted.pin)),
        ("digest", str(digest) if digest else "not known yet"),
        ("known by", (_SIGNED if explanation.is_signed else _KNOWN_BY[explanation.known_by]) if digest else ""),
    ]
    print_facts(facts)
    click.echo("asked, in this order:")
    for number, step in enumerate(explanation.steps, 1):
        click.echo(f"  {number}. {step.place}\n     {step.answer}")
    click.echo(f"leads to {explanation.path}" if explanation.path else "leads nowhere yet: it would have to be fetched")


def _as_json(explanation: Explanation) -> dict[str, object]:
    return {
        "name": explanation.wanted.name,
        "source": explanation.wanted.source.display,
        "pin": str(explanation.wanted.pin),
        "digest": str(explanation.digest) if explanation.digest else None,
        "known_by": explanation.known_by,
        "steps": [{"place": step.place, "answer": step.answer} for step in explanation.steps],
        "path": str(explanation.path) if explanation.path else None,
        "signed": word_as_json(explanation.word),
    }


def word_as_json(word: Word | None) -> dict[str, object] | None:
    """Return the signed index that tells a digest as JSON shows it; ``mirror`` is None of one that is remembered."""
    if word is None or word.expires is None:
        return None
    return {
        "mirror": word.mirror.display if word.mirror is not None else None,
        "signer": word.signer,
        "expires": timestamp(word.expires),
    }
