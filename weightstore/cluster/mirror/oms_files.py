"""OMS signatures that travel with the files that they are over, and whether those are the files that lie at a place.

Such a signature is over all of a mirror's files, the index included. It holds at a place that has exactly these, and
is carried nowhere else. Whose it is, its reader finds out: here only names and digests are compared.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from weightstore.cluster.mirror.web import inside, read_small
from weightstore.cluster.oms import OMS_LIMIT, OMS_SIGNATURE, signed_resources
from weightstore.errors import AccessDenied, SourceNotFound
from weightstore.store.image import INDEX_LIMIT, INDEX_NAME
from weightstore.store.layout import OCI_LAYOUT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from weightstore.client import Client
    from weightstore.cluster.mirror.place import Place
    from weightstore.source import Source


@runtime_checkable
class HoldsFiles(Protocol):
    """A place that has files, and can list them."""

    @property
    def source(self) -> Source: ...

    def blob_names(self) -> frozenset[str]:
        """Return the names of all files in ``blobs/sha256``."""
        ...

    def write_beside(self, files: Mapping[str, bytes]) -> None: ...


def is_over(bundle: bytes, *, blobs: frozenset[str], index: bytes) -> bool:
    """Tell whether a signature is over exactly the files of a place, by the names and digests in it."""
    expected = {f"blobs/sha256/{name}": f"sha256:{name}" for name in blobs}
    small = {INDEX_NAME: index, "oci-layout": OCI_LAYOUT}
    expected |= {name: f"sha256:{hashlib.sha256(data).hexdigest()}" for name, data in small.items()}
    return signed_resources(bundle) == expected


@dataclass(frozen=True, slots=True)
class OmsState:
    """What became of an OMS signature, and whether the one that lies at the place now is over its files.

    ``matches`` is None where none lies there.
    """

    status: Literal["none", "carried", "present", "refused"]
    matches: bool | None = None


def carry_oms(origin: Source, place: Place, *, client: Client) -> OmsState:
    """Bring the OMS signature of one place to another that has the very files that it is over.

    Raises:
        TransferError, StoreError: it cannot be read or written.
    """
    if not isinstance(place, HoldsFiles):
        return OmsState("none")
    brought, there = (_read(source, client) for source in (origin, place.source))
    if brought is None and there is None:
        return OmsState("none")
    index, blobs = _read(place.source, client, INDEX_NAME, INDEX_LIMIT) or b"", place.blob_names()
    if brought is not None and brought != there and is_over(brought, blobs=blobs, index=index):
        place.write_beside({OMS_SIGNATURE: brought})
        return OmsState("carried", matches=True)
    status: Literal["none", "present", "refused"] = "none" if brought is None else "refused"
    if brought is not None and brought == there:
        status = "present"
    return OmsState(status, matches=is_over(there, blobs=blobs, index=index) if there is not None else None)


def oms_state(place: Place, *, client: Client) -> bool | None:
    """Tell whether the OMS signature at a place is over its files; None where there is none, or no list of them."""
    if not isinstance(place, HoldsFiles) or (there := _read(place.source, client)) is None:
        return None
    index = _read(place.source, client, INDEX_NAME, INDEX_LIMIT) or b""
    return is_over(there, blobs=place.blob_names(), index=index)


def _read(source: Source, client: Client, name: str = OMS_SIGNATURE, limit: int = OMS_LIMIT) -> bytes | None:
    file = inside(source, name)
    try:
        return read_small(client.obtainer.transports().transport_for(file), file, limit)
    except (SourceNotFound, AccessDenied):  # a bucket that may not be listed says that of what is not there
        return None
