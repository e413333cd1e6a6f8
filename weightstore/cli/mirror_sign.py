"""``weightstore mirror sign``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from weightstore.cli import units
from weightstore.cli.options import LocalPath, Seconds, command_with_example, shared_options

if TYPE_CHECKING:
    from pathlib import Path

    from weightstore.cli.settings import Settings


@command_with_example(
    name="sign",
    example="""
weightstore --home /sw/weights mirror index
weightstore mirror sign /sw/weights --key ~/.ssh/id_ed25519 --expires 30d
ssh-keygen -Y verify -f signers -I ada@example.org -n weightstore-index \\
    -s /sw/weights/signed-index.json.sig < /sw/weights/signed-index.json
""",
)
@click.argument("directory", type=LocalPath(), metavar="DIR")
@click.option(
    "--key",
    type=LocalPath(),
    required=True,
    metavar="FILE",
    help="An SSH Ed25519 key: the private one, or the public one of a key that ssh-agent has.",
)
@click.option(
    "--expires", type=Seconds(), default="30d", show_default=True, metavar="TIME", help="How long it is to be believed."
)
@shared_options("json", "quiet")
@click.pass_obj
def command(settings: Settings, *, directory: Path, key: Path, expires: float) -> None:
    """Sign what a mirror's index says: which digest each source has.

    Who has your key among their allowed signers believes it, until it expires, and refuses older ones from then on.
    Every blob that is signed for is verified first. Sign again before it expires, and whenever the index changes.
    """
    from weightstore.cli.progress import hashing_progress
    from weightstore.cluster.sign import sign_mirror, signing_with

    now = datetime.now(UTC)
    client = settings.client(offline=True)
    with hashing_progress(settings, 0, "verifying") as advance:
        signed = sign_mirror(
            directory,
            make_signature=signing_with(key),
            now=now,
            expires=now + timedelta(seconds=expires),
            receipts=client.receipts,
            on_bytes=advance,
        )
    index = signed.index
    if settings.json:
        settings.print_json(
            {
                "path": str(signed.path),
                "version": index.version,
                "expires": index.expires.replace(microsecond=0).isoformat().replace("+00:00", "Z"),
                "key": signed.fingerprint,
                "entries": len(index.entries),
            }
        )
        return
    until = index.expires.strftime("%Y-%m-%d %H:%M UTC")
    settings.say(f"{signed.path}: {units.count(len(index.entries), 'source')}, until {until}, by {signed.fingerprint}")
