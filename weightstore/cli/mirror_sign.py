"""``weightstore mirror sign``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from weightstore.cli import units
from weightstore.cli.options import LocalPath, Seconds, command_with_example, shared_options
from weightstore.errors import InvalidInput

if TYPE_CHECKING:
    from pathlib import Path

    from weightstore.cli.settings import Settings
    from weightstore.cluster.sign import Signed
    from weightstore.records import Ref

_TOLD = 5


@command_with_example(
    name="sign",
    example="""
weightstore --home /sw/weights mirror index
weightstore mirror sign /sw/weights --key ~/.ssh/id_ed25519 --expires 30d
ssh-keygen -Y verify -f signers -I ada@example.org -n weightstore-index \\
    -s /sw/weights/signed-index.json.sig < /sw/weights/signed-index.json
weightstore mirror sign oci://registry.example.org/site/weights --key ~/.ssh/id_ed25519
weightstore mirror sign /sw/weights --oms --key private.pem
""",
)
@click.argument("mirror", metavar="DIR|URL")
@click.option(
    "--key",
    type=LocalPath(),
    required=True,
    metavar="FILE",
    help="An SSH Ed25519 key: the private one, or the public one of a key that ssh-agent has. "
    "With --oms an elliptic-curve private key in PEM.",
)
@click.option(
    "--expires", type=Seconds(), default="30d", show_default=True, metavar="TIME", help="How long it is to be believed."
)
@click.option(
    "--oms", is_flag=True, help="Sign the files themselves, as model.sig in the OpenSSF Model Signing format."
)
@click.option(
    "--trust-mirror",
    is_flag=True,
    help="Of a bucket or registry: sign also what this machine does not know the digest of.",
)
@click.option(
    "--locked", type=LocalPath(), metavar="FILE", help="Take a lockfile's word for sources: sign it as yours."
)
@shared_options("home", "json", "quiet")
@click.pass_context
def command(
    ctx: click.Context,
    *,
    mirror: str,
    key: Path,
    expires: float,
    oms: bool,
    trust_mirror: bool,
    locked: Path | None,
) -> None:
    """Sign what a mirror's index says: which digest each source has.

    Who has your key among their allowed signers believes it, until it expires, and refuses older ones from then on.
    In a directory every blob that is signed for is verified first; what the store has and its index does not tell is
    not signed for, which is noted: write the index first. In a bucket or registry, only that is signed of which your
    own store knows the digest. Sign again before it expires, and whenever the index changes.
    With --oms, which never expires, sign again whenever anything was added or removed.
    """
    settings: Settings = ctx.obj
    if oms and locked is not None:
        raise click.UsageError("--locked is about sources, of which --oms says nothing.")
    words = _words(locked)
    is_remote = "://" in mirror and not mirror.startswith("file://")
    if expires < 1 and not oms:
        raise click.UsageError("--expires is how long it is to be believed, and that is at least a second.")
    if is_remote and not oms:
        _report(settings, _sign_remote(settings, mirror, key, expires, words, trust_mirror=trust_mirror))
        return
    if trust_mirror:
        raise click.UsageError("--trust-mirror is for buckets and registries: in a directory every blob is verified.")
    if mirror.startswith("file://") and not oms:
        from weightstore.source import Source  # start-up

        directory = Source.parse(mirror).path
    else:
        directory = LocalPath().convert(mirror, ctx.command.params[0], ctx)
    if oms:
        _sign_oms(settings, directory, key)
        return
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
            catalogs=client.catalogs.all(),
            counts=client.obtainer.counts,
            words=words,
            note=settings.note,
            on_bytes=advance,
        )
    _report(settings, signed)


def _words(locked: Path | None) -> list[Ref]:
    from weightstore.catalog.lockfile import Lockfile  # start-up: not for --help
    from weightstore.cluster.words import words_of

    return words_of(Lockfile.read(locked), now=datetime.now(UTC)) if locked is not None else []


def _sign_remote(
    settings: Settings, address: str, key: Path, expires: float, words: list[Ref], *, trust_mirror: bool
) -> Signed:
    from weightstore.cluster.mirror.places import open_place
    from weightstore.cluster.sign import sign_place, signing_with

    client = settings.client()
    if trust_mirror and client.config.trust == "pinned":
        raise InvalidInput('trust = "pinned" in the configuration forbids --trust-mirror')
    now = datetime.now(UTC)
    return sign_place(
        open_place(address, client=client, writable=True),
        client=client,
        make_signature=signing_with(key),
        now=now,
        expires=now + timedelta(seconds=expires),
        trusted=trust_mirror,
        words=words,
    )


def _report(settings: Settings, signed: Signed) -> None:
    index = signed.index
    for source, why in signed.left_out[:_TOLD]:
        settings.note(f"not signed for: {source} {why}")
    if len(signed.left_out) > _TOLD:
        settings.note(f"not signed for: {len(signed.left_out) - _TOLD} more")
    if settings.json:
        settings.print_json(
            {
                "path": signed.place,
                "version": index.version,
                "expires": index.expires.replace(microsecond=0).isoformat().replace("+00:00", "Z"),
                "key": signed.fingerprint,
                "entries": len(index.entries),
                "left_out": [{"source": str(source), "reason": why} for source, why in signed.left_out],
            }
        )
        return
    until = index.expires.strftime("%Y-%m-%d %H:%M UTC")
    settings.say(f"{signed.place}: {units.count(len(index.entries), 'source')}, until {until}, by {signed.fingerprint}")


def _sign_oms(settings: Settings, directory: Path, key: Path) -> None:
    given = click.get_current_context().get_parameter_source("expires")
    if given is click.core.ParameterSource.COMMANDLINE:
        raise click.UsageError("--oms has no --expires: such a signature does not expire.")
    from weightstore.cluster.oms import sign_oms

    signed = sign_oms(directory, key=key)
    if settings.json:
        settings.print_json({"path": str(signed.path), "files": signed.files})
        return
    settings.say(f"{signed.path}: {units.count(signed.files, 'file')}")
