"""``weightstore rm``."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from weightstore.cli import units
from weightstore.cli.gc import note_names_lost
from weightstore.cli.options import WeightsName, command_with_example, shared_options
from weightstore.errors import InvalidInput, InvalidRecord, NotPresent, StoreError, WeightStoreError
from weightstore.source import is_source, parse_source

if TYPE_CHECKING:
    from collections.abc import Iterable

    from weightstore.cli.settings import Settings
    from weightstore.client import Client
    from weightstore.digest import Digest
    from weightstore.records import Wanted
    from weightstore.source import Source
    from weightstore.store.gc import File
    from weightstore.store.layout import Layout

_DIGEST = re.compile(r"(?:sha256:)?([0-9a-f]{8,64})")


class NotStored(WeightStoreError):
    """There is nothing to remove."""

    exit_code = NotPresent.exit_code

    def __init__(self, *, name: str, place: str) -> None:
        super().__init__(name=name, place=place)
        self.name = name
        self.place = place

    def __str__(self) -> str:
        return f"{self.name} is not in {self.place}. See what is stored: weightstore ls"


@dataclass(frozen=True, slots=True)
class _Target:
    """One thing to remove: its blob where there is one, and the sources that are recorded for it.

    Where ``others`` are recorded for the blob as well, that were not asked for, it stays.
    """

    name: str
    digest: Digest | None
    file: File | None
    sources: tuple[Source, ...]
    others: tuple[Source, ...] = ()


@command_with_example(
    example="""
weightstore rm resnet50
weightstore rm 0676ba61
weightstore rm --forget https://example.org/model.pth
""",
)
@click.argument("names", nargs=-1, required=True, type=WeightsName(), metavar="NAME|DIGEST|URL...")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--forget", is_flag=True, help="Forget as well which digest the sources had.")
@shared_options("home", "json", "quiet")
@click.pass_obj
def command(settings: Settings, *, names: tuple[str, ...], yes: bool, forget: bool) -> None:
    """Remove blobs from the writable store; read-only layers are left alone.

    What is remembered of a source, its digest, stays, so that a changed file is noticed when it is fetched again.
    --forget removes that too, also where no blob is left. A blob that came from several sources stays until the last of
    them is removed; by its digest it goes at once.
    """
    client = settings.client(offline=True)
    layout = client.obtainer.layers()[-1].layout
    if layout is None:
        raise NotStored(name=_shown(names[0]), place=f"{client.config.home}, where there is no store")
    targets = _targets(names, client, layout, forget=forget)
    if not yes and sys.stdin.isatty():
        for target in targets:
            settings.say(_announcement(target, forget=forget))
        _ask(settings)
    removed = []
    for target in targets:
        removed.append(_remove(target, client, layout, forget=forget))
        settings.say(_told(removed[-1]))
    blobs = [target.file.path for target in targets if target.file and not target.others]
    note_names_lost(settings, client.config.state, blobs)
    if settings.json:
        settings.print_json({"removed": removed})


def _ask(settings: Settings) -> None:
    try:
        if click.confirm("Remove?", err=True):
            return
    except click.Abort:  # Ctrl-C, or the end of the input
        click.echo(err=True)
    settings.say("nothing removed")
    click.get_current_context().exit(1)


def _shown(name: str) -> str:
    """Return a name as it may be shown: a URL may carry a password."""
    return parse_source(name)[0].display if is_source(name) else name


def _targets(names: Iterable[str], client: Client, layout: Layout, *, forget: bool) -> list[_Target]:
    """Return what is to be removed, each blob once, under the first of the names that lead to it."""
    asked: dict[tuple[Digest | None, str], tuple[str, tuple[Source, ...] | None]] = {}
    for name in names:
        digest, sources = _meaning(name, client, layout)
        key = (digest, "" if digest is not None else name)
        first, before = asked.get(key, (name, ()))
        asked[key] = first, None if sources is None or before is None else (*before, *sources)
    return [_target(name, key[0], sources, client, layout, forget=forget) for key, (name, sources) in asked.items()]


def _target(
    name: str,
    digest: Digest | None,
    asked: tuple[Source, ...] | None,
    client: Client,
    layout: Layout,
    *,
    forget: bool,
) -> _Target:
    """Return what removing a blob means by the sources that were ``asked`` for, or, where these are None, by itself."""
    from weightstore.store.gc import refs_by_digest

    file = _file(layout, digest) if digest is not None else None
    refs = refs_by_digest(layout).get(digest, []) if digest is not None else []
    # The same file at the commit that its branch meant is no other source.
    named = {*(asked or ()), *(ref.pinned_source for ref in refs if ref.source in (asked or ()))}
    mine = [ref.source for ref in refs if asked is None or ref.source in named]
    others = tuple(ref.source for ref in refs if ref.source not in mine)
    sources = tuple(dict.fromkeys([*mine, *((asked or ()) if forget else ())]))
    if file is None and not (forget and _is_recorded(layout, sources)):
        elsewhere = [layer for layer in client.obtainer.layers() if digest and _is_in(layer.layout, digest)]
        if elsewhere:
            raise StoreError(
                place=str(elsewhere[0].root), reason=f"has {_shown(name)}, and is a read-only layer: not removed"
            )
        raise NotStored(name=_shown(name), place=str(layout.root))
    return _Target(_shown(name), digest, file, sources, others if file is not None else ())


def _meaning(name: str, client: Client, layout: Layout) -> tuple[Digest | None, tuple[Source, ...] | None]:
    """Return the digest that a name, URL or the beginning of a digest leads to, and its sources; of a digest None."""
    from weightstore.store.blobs import digests_beginning

    if match := _DIGEST.fullmatch(name):
        found = digests_beginning(layout, match[1])
        if len(found) > 1:
            raise InvalidInput(f"{name} is the beginning of {len(found)} digests; give more of it")
        if found or len(match[1]) == 64:
            from weightstore.digest import Digest

            return (found[0] if found else Digest(match[1])), None
        raise NotStored(name=name, place=str(layout.root))
    explanation = client.why(name)
    wanted, known = explanation.wanted, explanation.digest
    if known is None or not _is_in(layout, known):
        known = _recorded(layout, wanted) or known
    return known, wanted.sources


def _recorded(layout: Layout, wanted: Wanted) -> Digest | None:
    """Return the digest of a blob that is recorded of some weights, also by a word that does not count here."""
    from weightstore.store.refs import read_ref

    for source in wanted.sources:
        with contextlib.suppress(InvalidRecord):
            ref = read_ref(layout, source)
            if ref is not None and wanted.pin.matches(ref.digest) and _is_in(layout, ref.digest):
                return ref.digest
    return None


def _file(layout: Layout, digest: Digest) -> File | None:
    """Return the blob as :func:`weightstore.store.gc.remove` wants it: the file that is judged now."""
    from weightstore.store.gc import File

    path = layout.blob(digest)
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(found.st_mode) and not stat.S_ISLNK(found.st_mode):
        raise StoreError(place=str(path), reason="is not a file")
    return File(
        "blob",
        path,
        found.st_size,
        used_at=found.st_atime,
        written_at=max(found.st_mtime, found.st_ctime),
        device=found.st_dev,
        inode=found.st_ino,
        digest=digest,
    )


def _is_in(layout: Layout | None, digest: Digest) -> bool:
    return layout is not None and layout.blob(digest).exists()


def _is_recorded(layout: Layout, sources: tuple[Source, ...]) -> bool:
    return any(os.path.lexists(layout.ref(source)) for source in sources)


def _announcement(target: _Target, *, forget: bool) -> str:
    what = f"{units.size(target.file.size)} {target.digest}" if target.file else "no blob"
    lines = [f"{target.name}: {what}"]
    if forget or target.others:
        lines += [f"  to be forgotten: {source}" for source in target.sources]
        lines += [f"  stays, also known as {source}" for source in target.others]
    elif len(target.sources) > 1:
        lines += [f"  also fetched as {source}" for source in target.sources]
    return "\n".join(lines)


def _told(removed: dict[str, Any]) -> str:
    lines = [f"forgotten {source}" for source in removed["forgotten"]]
    if removed["removed"]:
        lines.insert(0, f"removed {removed['name']}  {removed['digest']}  {units.size(removed['size_bytes'])}")
    elif others := removed["also_known_as"]:
        lines.append(f"kept {removed['digest']}: also known as {', '.join(others)}")
        lines.append(f"To remove it all the same: weightstore rm {removed['digest']}")
    return "\n".join(lines)


def _remove(target: _Target, client: Client, layout: Layout, *, forget: bool) -> dict[str, Any]:
    from weightstore.store.gc import Removal, remove
    from weightstore.store.refs import forget_ref

    if target.file is not None and not target.others:
        (outcome,) = remove(layout, [Removal(target.file, "asked for")])
        if outcome.problem:
            raise StoreError(place=str(target.file.path), reason=f"not removed: {outcome.problem}")
        if target.digest is not None:
            client.receipts.forget(target.digest)
    # Where the blob stays, a record is all that there is to remove.
    forgotten = [source for source in target.sources if (forget or target.others) and forget_ref(layout, source)]
    return {
        "name": target.name,
        "digest": str(target.digest) if target.digest else None,
        "removed": target.file is not None and not target.others,
        "size_bytes": target.file.size if target.file and not target.others else 0,
        "forgotten": [source.display for source in forgotten],
        "also_known_as": [source.display for source in target.others],
    }
