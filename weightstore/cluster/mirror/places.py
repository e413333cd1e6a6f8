"""Which kind of mirror an address means: the one place that knows all of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from weightstore.cluster.mirror.directory import Directory
from weightstore.cluster.mirror.in_bucket import InBucket
from weightstore.cluster.mirror.registry import InRegistry
from weightstore.cluster.mirror.uploads import Uploads
from weightstore.cluster.mirror.web import Web
from weightstore.errors import InvalidInput
from weightstore.source import Source, is_path, lacks_scheme, mended_scheme
from weightstore.transfer.bucket import BUCKETS
from weightstore.transfer.registry import Repository
from weightstore.transfer.retry import RetryPolicy

if TYPE_CHECKING:
    from weightstore.client import Client
    from weightstore.cluster.mirror.place import Place


def open_place(
    address: str, *, client: Client, writable: bool = False, mount_from: str = "", check: bool = False
) -> Place:
    """Return the mirror at an address: a path, or a URL. Opens no connection yet.

    Args:
        address: where the mirror is.
        client: whose settings and connections it is asked with.
        writable: whether it is to be written.
        mount_from: another repository of the same registry, from which it may take blobs instead of from us.
        check: whether it is asked for each thing that its index names, instead of being believed.

    Raises:
        InvalidInput: it is neither, or of a kind that cannot be a mirror, or cannot be written and is to be.
        StoreError: it is a directory that cannot be written, or holds other things, and is to be written.
        MissingDependency: it needs a package that is not installed.
    """
    if mount_from and not address.startswith("oci://"):
        raise InvalidInput("--mount-from is for mirrors in a registry, like oci://host/repository")
    if "://" not in address:
        if not address:
            raise InvalidInput("a mirror is a directory or a URL, and this is empty")
        if lacks_scheme(address) and not Path(address.partition("/")[0]).is_dir():
            if (meant := mended_scheme(address)) is not None:
                raise InvalidInput(f"after its scheme a URL has ://, as in {meant}. A directory's path begins with ./")
            shown = address.rpartition("@")[2]
            raise InvalidInput(
                f"{shown}: is that a directory, or on the network? Write ./{shown}, or with a scheme: oci://{shown} "
                f"for a registry, https://{shown} for a web server"
            )
        return _directory(Path(address if is_path(address) else f"./{address}"), client, writable=writable, check=check)
    source = Source.parse(address)
    if source.scheme == "file":
        return _directory(source.path, client, writable=writable, check=check)
    if client.config.offline:
        raise InvalidInput(f"{source}: offline mode forbids to ask it. A mirror in a directory needs no network")
    transports = client.obtainer.transports()
    if source.scheme in {"http", "https"}:
        web = Web(source, transports.transport_for(source), slow_s=client.config.read_timeout_s)
        if writable:
            raise web.read_only()
        return web
    if source.scheme == "oci":
        repository, digits = Repository.of(source)
        if digits:
            raise InvalidInput(f"{source}: is a blob. A mirror is a repository, like oci://{repository.host}/weights")
        retry = RetryPolicy(attempts=client.config.retries)
        layout = client.obtainer.layers()[-1].layout
        uploads = Uploads(layout) if layout is not None else None
        return InRegistry(
            source, transports.registry(source), mount_from=mount_from, retry=retry, uploads=uploads, check=check
        )
    if source.scheme in BUCKETS:
        return InBucket(source, transports.buckets().bucket(source), check=check)
    raise InvalidInput(f"{source}: a mirror is a directory, a web server, a bucket or a registry")


def _directory(root: Path, client: Client, *, writable: bool, check: bool) -> Directory:
    directory = Directory(root, client.receipts, locks=client.config.locks, check=check)
    if writable:
        directory.check_writable()
    return directory
