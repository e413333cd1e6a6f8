"""``weightstore mirror verify``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from weightstore.cli import units
from weightstore.cli.options import LocalPath, command_with_example, shared_options
from weightstore.errors import InvalidConfig, UntrustedIndex

if TYPE_CHECKING:
    from pathlib import Path

    from weightstore.cli.settings import Settings


@command_with_example(
    name="verify",
    example="""
weightstore mirror verify https://weights.example.org
weightstore mirror verify /sw/weights --oms --key public.pem
""",
)
@click.argument("mirror", metavar="DIR|URL")
@click.option("--oms", is_flag=True, help="Verify all files of DIR against its model.sig.")
@click.option("--key", type=LocalPath(), metavar="FILE", help="With --oms: the public key in PEM.")
@click.option("--signature", type=LocalPath(), metavar="FILE", help="With --oms: a signature that lies elsewhere.")
@shared_options("offline", "json", "quiet")
@click.pass_context
def command(ctx: click.Context, *, mirror: str, oms: bool, key: Path | None, signature: Path | None) -> None:
    """Verify what a mirror's keeper signed: that somebody among your allowed_signers did, that it has not expired, and
    that you have seen nothing newer.

    Blobs are not read: what comes from a mirror is verified when it comes. With --oms every file is read, and has to be
    as it was signed, with none added and none removed. Exits with 5 when that is not so.
    """
    settings: Settings = ctx.obj
    if not oms:
        if key is not None or signature is not None:
            raise click.UsageError("--key and --signature are for --oms.")
        _verify_index(settings, mirror)
        return
    if key is None:
        raise click.UsageError("--oms needs --key FILE, the public key.")
    from weightstore.cluster.oms import verify_oms

    directory = LocalPath().convert(mirror, ctx.command.params[0], ctx)
    verified = verify_oms(directory, key=key, signature=signature)
    if settings.json:
        settings.print_json({"mirror": str(directory), "path": str(verified.path), "files": verified.files})
        return
    settings.say(f"{directory}: {units.count(verified.files, 'file')} as {verified.path} says")


def _verify_index(settings: Settings, address: str) -> None:
    from weightstore.cluster.mirror.places import open_place
    from weightstore.signing.document import SIGNATURE
    from weightstore.signing.signers import read_signers
    from weightstore.signing.trusted import inside, signed_index

    client = settings.client()
    if client.config.allowed_signers is None:
        raise InvalidConfig(
            "allowed_signers is not set, so nobody is believed. Set WEIGHTSTORE_ALLOWED_SIGNERS to a file"
        )
    mirror = open_place(address, client=client).source
    believed = signed_index(
        mirror,
        signers=read_signers(client.config.allowed_signers),
        state=client.config.state,
        transport=client.obtainer.transports().transport_for(mirror),
        now=datetime.now(UTC),
        slow_s=client.config.read_timeout_s,
    )
    if believed is None:
        raise UntrustedIndex(place=inside(mirror, SIGNATURE).display, reason="there is none: it is not signed")
    index, signer = believed.index, believed.signer
    if settings.json:
        settings.print_json(
            {
                "mirror": mirror.display,
                "version": index.version,
                "expires": index.expires.isoformat().replace("+00:00", "Z"),
                "signer": signer.name,
                "entries": len(index.entries),
            }
        )
        return
    until = index.expires.strftime("%Y-%m-%d %H:%M UTC")
    count = units.count(len(index.entries), "source")
    settings.say(f"{mirror}: {count} by {signer.name}, version {index.version}, until {until}")
