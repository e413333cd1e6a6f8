"""Re-hash every blob of a store, with all cores, and put aside what is damaged."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from weightstore.errors import BlobDamaged, CannotReplace
from weightstore.store.blobs import list_blobs, open_verified
from weightstore.store.quarantine import list_quarantined, put_aside

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from weightstore.digest import Digest
    from weightstore.store.layout import Layout
    from weightstore.store.receipts import Receipts

Verdict = Literal["good", "damaged", "unreadable", "missing"]


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found of one blob. ``detail`` says where a damaged one was put, or why it could not be.

    A ``missing`` one was put aside earlier, and nothing has taken its place; ``size`` is what lies in quarantine.
    """

    digest: Digest
    size: int
    verdict: Verdict
    detail: str = ""


def verify_store(
    layout: Layout,
    receipts: Receipts,
    *,
    only: Collection[Digest] | None = None,
    quarantine: bool = True,
    workers: int | None = None,
    on_bytes: Callable[[int], None] | None = None,
) -> list[Checked]:
    """Hash every blob, or ``only`` some, again, whatever receipts say; return the verdicts in order of digest.

    Damaged blobs are moved to quarantine if ``quarantine``. hashlib releases the GIL, so threads use all cores.
    """
    blobs = sorted(item for item in list_blobs(layout).items() if only is None or item[0] in only)

    def check(item: tuple[Digest, os.stat_result]) -> Checked:
        digest, found = item
        return _check(layout, receipts, digest, found, quarantine=quarantine, on_bytes=on_bytes)

    with ThreadPoolExecutor(workers or os.cpu_count() or 1, thread_name_prefix="verify") as pool:
        return list(pool.map(check, blobs))


def find_missing(layout: Layout, *, only: Collection[Digest] | None = None) -> list[Checked]:
    """Return the blobs, or ``only`` some, that lie in quarantine and were not fetched again, in order of digest."""
    present = list_blobs(layout)
    missing = []
    for digest, path in sorted(list_quarantined(layout).items()):
        if digest not in present and (only is None or digest in only):
            size = os.lstat(path).st_size if os.path.lexists(path) else 0
            missing.append(Checked(digest, size, "missing", f"put aside as {path}"))
    return missing


def _check(
    layout: Layout,
    receipts: Receipts,
    digest: Digest,
    found: os.stat_result,
    *,
    quarantine: bool,
    on_bytes: Callable[[int], None] | None,
) -> Checked:
    path = layout.blob(digest)
    try:
        opened = open_verified(path, digest, receipts, on_bytes=on_bytes, always_hash=True)
    except BlobDamaged as damage:
        receipts.forget(digest)
        if not quarantine:
            return Checked(digest, found.st_size, "damaged", f"its content is {damage.actual}")
        try:
            aside = put_aside(layout, path, damage)
        except CannotReplace as refusal:
            return Checked(digest, found.st_size, "damaged", str(refusal))
        return Checked(digest, found.st_size, "damaged", f"moved to {aside}" if aside else "already replaced")
    except OSError as error:
        return Checked(digest, found.st_size, "unreadable", error.strerror or str(error))
    if opened is not None:
        opened.close()
    return Checked(digest, found.st_size, "good")
