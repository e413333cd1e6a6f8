"""A look at everything that storing and fetching depends on, and what each finding means.

Each check is a generator of findings; :func:`diagnose` runs them in order. Only the checks of mirrors touch the
network, and offline they do not.
"""

from __future__ import annotations

import contextlib
import os
import ssl
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from weightstore.config import unknown_variables
from weightstore.errors import InvalidConfig, SourceNotFound, StoreError, WeightStoreError
from weightstore.source import Source
from weightstore.store.filesystem import Findings, mount_of, probe, room
from weightstore.store.image import is_of_another_tool
from weightstore.store.layout import open_layout

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from weightstore.config import Config
    from weightstore.store.layout import Layout

Level = Literal["ok", "note", "warn", "bad"]
_LITTLE_SPACE = 5 * 10**9
_FEW_INODES = 10_000
_SLOW_SYNC_S = 0.5
_SKEW_S = 2.0
_TIMEOUT_S = 3.0
_OF_ANOTHER_TOOL = "an OCI image layout that another tool wrote"
_LONG_AGO = 1_700_000_000.0  # November 2023: a clock before that makes every certificate invalid


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. ``meaning`` says what follows from it and what to do; empty where nothing does."""

    area: str
    level: Level
    what: str
    found: str
    meaning: str = ""


def diagnose(config: Config, *, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Yield findings as they are made."""
    yield from _variables(environ)
    yield from _store(config)
    yield from _state(config)
    yield from _layers(config)
    yield from _mirrors(config)
    yield from _signatures(config)
    yield from _network(config, environ)
    yield from _clock()


def _variables(environ: Mapping[str, str]) -> Iterator[Finding]:
    for variable, nearest in unknown_variables(environ).items():
        meaning = "It changes nothing." + (f" Is {nearest} meant?" if nearest else " All settings: weightstore config")
        yield Finding("settings", "warn", "variable", f"{variable}: no such setting", meaning)


# -- the store ------------------------------------------------------------------------------------------------------


def _store(config: Config) -> Iterator[Finding]:
    home = config.home
    try:
        layout = open_layout(home)
    except StoreError as error:
        yield Finding("store", "bad", "layout", str(error), "Choose another directory with WEIGHTSTORE_HOME.")
        return
    if layout is None and home.exists() and not home.is_dir():
        yield Finding("store", "bad", "layout", f"{home} is not a directory", "Choose another with WEIGHTSTORE_HOME.")
        return
    if is_of_another_tool(home):
        meaning = f"Nothing can be fetched into it. To make it a store: weightstore --home {home} mirror index"
        yield Finding("store", "warn", "layout", f"{home}: {_OF_ANOTHER_TOOL}, and no store", meaning)
    elif layout is None:
        yield Finding("store", "ok", "layout", f"{home}: none yet", "The first download creates it.")
    else:
        yield Finding("store", "ok", "layout", f"{home}: {layout.sharing} store")
        yield from _directories(layout)
    place = layout.tmp if layout is not None else _nearest(home)
    yield _mount(place)
    try:
        found = probe(place)
    except WeightStoreError as error:
        meaning = "Nothing can be fetched into this store. Use one of your own: WEIGHTSTORE_HOME=<directory>; what is"
        yield Finding("store", "bad", "writing", str(error), f"{meaning} here can still be read as a layer.")
        return
    yield from _abilities(found, layout)
    yield from _space(place)


def _nearest(path: Path) -> Path:
    """Return the nearest directory above that exists: what can be done there can be done in what is made there."""
    for place in (path, *path.parents):
        if place.is_dir():
            return place
    return Path("/")


def _directories(layout: Layout) -> Iterator[Finding]:
    wrong = []
    for directory, mode in layout.directories():
        try:
            got = directory.stat().st_mode & 0o7777
        except OSError as error:
            wrong.append(f"{directory.name}: {error.strerror}")
            continue
        if got != mode:
            wrong.append(f"{directory.name} {got:04o} instead of {mode:04o}")
    if wrong:
        yield Finding(
            "store",
            "warn",
            "permissions",
            "; ".join(wrong),
            f"A {layout.sharing} store wants these modes: others may not be able to use it, or may be able to do too "
            "much. Its owner sets them with chmod, and `weightstore init` makes missing directories.",
        )
    else:
        yield Finding("store", "ok", "permissions", f"as a {layout.sharing} store wants them")


def _mount(place: Path) -> Finding:
    mount = mount_of(place)
    if mount is None:
        return Finding("store", "note", "file system", "not known")
    where = {True: "network", False: "local", None: "FUSE"}[mount.is_network]
    meaning = ""
    if mount.kind in {"tmpfs", "ramfs"}:
        meaning = "It lives in memory: its contents count as memory used, and a reboot empties it."
    elif mount.is_network:
        meaning = "Shared between machines. To spare it at job start, stage weights to a local disk."
    return Finding(
        "store", "note" if meaning else "ok", "file system", f"{mount.kind} on {mount.point}, {where}", meaning
    )


def _abilities(found: Findings, layout: Layout | None) -> Iterator[Finding]:
    def judged(what: str, problem: str, meaning: str, level: Level = "note") -> Finding:
        return Finding("store", level if problem else "ok", what, problem or "works", meaning if problem else "")

    yield judged(
        "hard links",
        found.hard_links,
        "Blobs get their names by rename instead, which is as safe.",
    )
    yield _locking(found)
    yield judged("atomic rename", found.replaces, "A store needs it. Put the store on another file system.", "bad")
    yield judged("modes", found.modes, "Permissions are not kept here: do not share this store.", "warn")
    shared = layout is not None and layout.sharing != "private"
    yield judged(
        "setgid",
        found.setgid,
        "New blobs would not belong to the group. Ask for a directory where they do (mount option grpid, or an ACL)."
        if shared
        else "Only a store for a group would need it.",
        "warn" if shared else "note",
    )
    slow = found.fsync_s > _SLOW_SYNC_S
    yield Finding(
        "store",
        "warn" if slow else "ok",
        "fsync",
        f"{found.fsync_s * 1000:.1f} ms",
        "Each blob pays this once. Many small files will come slowly." if slow else "",
    )
    skewed = abs(found.skew_s) > _SKEW_S
    yield Finding(
        "store",
        "warn" if skewed else "ok",
        "file time",
        f"{abs(found.skew_s):.0f} s {'ahead of' if found.skew_s > 0 else 'behind'} this machine"
        if skewed
        else "agrees",
        "The file server's clock and this one differ. Downloads and gc go by file time and stay right; "
        '"last used" will look odd. Ask for NTP.'
        if skewed
        else "",
    )


def _locking(found: Findings) -> Finding:
    if found.locking == "excludes":
        return Finding("store", "ok", "flock", "excludes other processes")
    said = f"{found.locking}{': ' + found.locking_detail if found.locking_detail else ''}"
    meaning = (
        "Locks spare work here and guard nothing: the store stays right, but processes that start together may "
        "download the same file. Prefetch once before the job."
    )
    return Finding("store", "note", "flock", said, meaning)


def _space(place: Path) -> Iterator[Finding]:
    found = room(place)
    if found is None:
        yield Finding("store", "note", "free space", "the file system does not say")
        return
    little = found.free < _LITTLE_SPACE
    yield Finding(
        "store",
        "warn" if little else "ok",
        "free space",
        f"{found.free / 1e9:.1f} of {found.total / 1e9:.1f} GB",
        "Large checkpoints will not fit. See what could go: weightstore gc --dry-run --max-size 10GB" if little else "",
    )
    if found.inodes is not None:
        few = found.inodes < _FEW_INODES
        yield Finding(
            "store",
            "warn" if few else "ok",
            "free inodes",
            f"{found.inodes:,}",
            "Each blob takes about three files." if few else "",
        )


def _state(config: Config) -> Iterator[Finding]:
    if not os.access(_nearest(config.state), os.W_OK | os.X_OK):
        yield Finding(
            "state",
            "warn",
            "receipts",
            f"{config.state} cannot be written",
            "What was verified cannot be remembered, so every blob is hashed again each time it is used. "
            "Set WEIGHTSTORE_STATE to a directory of yours.",
        )
    else:
        yield Finding("state", "ok", "receipts", str(config.state))


# -- other stores ---------------------------------------------------------------------------------------------------


def _layers(config: Config) -> Iterator[Finding]:
    for root in config.layers:
        try:
            layout = open_layout(root)
        except StoreError as error:
            yield Finding("layers", "warn", "layer", str(error), "It is passed over.")
            continue
        if is_of_another_tool(root):
            meaning = "It is passed over. As a mirror it is asked: WEIGHTSTORE_MIRRORS"
            yield Finding("layers", "warn", "layer", f"{root}: {_OF_ANOTHER_TOOL}, and no store", meaning)
            continue
        if layout is None:
            yield Finding("layers", "warn", "layer", f"{root}: there is no store", "It is passed over.")
            continue
        try:
            blobs = sum(len(path.name) == 64 for path in layout.blobs.iterdir())
        except OSError as error:
            yield Finding(
                "layers", "warn", "layer", f"{root}: {error.strerror}", "Ask its owner for permission to read."
            )
            continue
        yield Finding("layers", "ok", "layer", f"{root}: {layout.sharing} store, {blobs} blobs")


def _mirrors(config: Config) -> Iterator[Finding]:
    for mirror in config.mirrors:
        if mirror.scheme == "file":
            yield _directory_mirror(mirror)
        elif config.offline:
            yield Finding("mirrors", "note", "mirror", f"{mirror}: not asked: offline")
        else:
            yield _web_mirror(mirror, config)


def _directory_mirror(mirror: Source) -> Finding:
    if is_of_another_tool(mirror.path):
        return Finding("mirrors", "ok", "mirror", f"{mirror}: {_OF_ANOTHER_TOOL}")
    try:
        layout = open_layout(mirror.path)
    except StoreError as error:
        return Finding("mirrors", "warn", "mirror", str(error), "It is passed over.")
    if layout is None:
        return Finding("mirrors", "warn", "mirror", f"{mirror}: there is no store", "It is passed over.")
    return Finding("mirrors", "ok", "mirror", f"{mirror}: {layout.sharing} store")


def _web_mirror(mirror: Source, config: Config) -> Finding:
    from weightstore.transfer.transports import Transports  # start-up: only where a mirror is asked

    base, question, query = mirror.url.partition("?")
    # What another tool wrote has only the second.
    first, second = (Source(f"{base.rstrip('/')}/{name}{question}{query}") for name in ("store.json", "oci-layout"))
    transports = Transports(config.but(connect_timeout_s=_TIMEOUT_S, read_timeout_s=_TIMEOUT_S, max_connections=1))
    began = time.monotonic()
    try:
        if mirror.scheme == "oci":
            transports.registry(mirror).authorization(mirror)
        else:
            transport = transports.transport_for(first)
            try:
                opened = transport.open(first)
            except SourceNotFound:
                opened = transport.open(second)
            with contextlib.closing(opened) as body:
                body.read(4096)
    except WeightStoreError as error:
        return Finding("mirrors", "warn", "mirror", str(error), "It will be passed over, at the cost of the time-out.")
    finally:
        transports.close()
    return Finding("mirrors", "ok", "mirror", f"{mirror}: answers in {(time.monotonic() - began) * 1000:.0f} ms")


def _signatures(config: Config) -> Iterator[Finding]:
    """Look at whose word about sources counts, and at what each mirror has of it."""
    if config.allowed_signers is None:
        return
    from weightstore.signing.signers import read_signers  # start-up: only where somebody signs
    from weightstore.signing.trusted import signed_index
    from weightstore.transfer.transports import Transports

    try:
        signers = read_signers(config.allowed_signers)
    except InvalidConfig as error:
        yield Finding(
            "mirrors", "bad", "signers", str(error), "No signed index can be believed, and fetching ends here."
        )
        return
    transports = Transports(config.but(connect_timeout_s=_TIMEOUT_S, read_timeout_s=_TIMEOUT_S, max_connections=1))
    with contextlib.closing(transports):
        for mirror in config.mirrors:
            if config.offline and mirror.scheme != "file":
                continue
            try:
                believed = signed_index(
                    mirror,
                    signers=signers,
                    state=config.state,
                    transport=transports.transport_for(mirror),
                    now=datetime.now(UTC),
                    slow_s=_TIMEOUT_S,
                )
            except WeightStoreError as error:
                yield Finding("mirrors", "warn", "signature", str(error), "It is asked by digest alone.")
                continue
            if believed is None:
                yield Finding("mirrors", "note", "signature", f"{mirror}: not signed", "It is asked by digest alone.")
            else:
                until = believed.index.expires.strftime("%Y-%m-%d %H:%M UTC")
                found = f"{mirror}: {len(believed.index.entries)} sources by {believed.signer.name}, until {until}"
                yield Finding("mirrors", "ok", "signature", found)


# -- the network ----------------------------------------------------------------------------------------------------


def _network(config: Config, environ: Mapping[str, str]) -> Iterator[Finding]:
    if config.offline:
        yield Finding(
            "network", "note", "offline", config.origins.get("offline", "set"), "No connection is ever opened."
        )
    yield from _proxies(environ)
    yield _certificates(config, environ)
    yield _hub(config)


def _proxies(environ: Mapping[str, str]) -> Iterator[Finding]:
    found = False
    for name in ("https_proxy", "http_proxy", "all_proxy"):
        value = environ.get(name) or environ.get(name.upper())
        if not value:
            continue
        found = True
        shown = _without_credentials(value)
        if shown is None:
            yield Finding("network", "warn", name, "is not a URL", "Write it like http://proxy.example:3128.")
        else:
            yield Finding("network", "ok", name, shown)
    exceptions = environ.get("no_proxy") or environ.get("NO_PROXY")
    if exceptions:
        yield Finding("network", "ok", "no_proxy", exceptions)
    if not found:
        yield Finding("network", "ok", "proxy", "none")


def _without_credentials(url: str) -> str | None:
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return None
    return f"{parts.scheme}://{parts.hostname}{port}" if parts.hostname else None


def _certificates(config: Config, environ: Mapping[str, str]) -> Finding:
    variables = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
    chosen = next(((name, environ[name]) for name in variables if environ.get(name)), None)
    if chosen is None and config.ca_bundle is not None:
        chosen = (config.origins.get("ca_bundle", "ca_bundle"), str(config.ca_bundle))
    if chosen is None:
        return Finding("network", "ok", "certificates", "the usual ones")
    name, path = chosen
    try:
        context = ssl.create_default_context(
            cafile=None if Path(path).is_dir() else path, capath=path if Path(path).is_dir() else None
        )
    except (OSError, ssl.SSLError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return Finding(
            "network", "warn", "certificates", f"{path} ({name}): {reason}", "No https source can be read until it can."
        )
    count = len(context.get_ca_certs())
    return Finding("network", "ok", "certificates", f"{path} ({name})" + (f": {count} certificates" if count else ""))


def _hub(config: Config) -> Finding:
    from weightstore.transfer.hub import read_token  # start-up: not for the command line's other commands

    endpoint, token = config.hub_endpoint.url, config.hub_token
    try:
        is_logged_in = token is not None and read_token(token) != ""
    except InvalidConfig as error:
        return Finding("network", "warn", "hub", f"{endpoint}, {error}", "No hf:// source can be fetched.")
    whose = f"logged in by {token.place}" if token is not None and is_logged_in else "not logged in"
    return Finding("network", "ok", "hub", f"{endpoint}, {whose}")


def _clock() -> Iterator[Finding]:
    wrong = time.time() < _LONG_AGO
    shown = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    meaning = "It is in the past: no certificate will be accepted. Set it, or ask for NTP." if wrong else ""
    yield Finding("machine", "warn" if wrong else "ok", "clock", shown, meaning)
    yield Finding("machine", "ok", "python", f"{sys.version.split()[0]}, {ssl.OPENSSL_VERSION}")
