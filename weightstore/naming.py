"""Names that no catalog here knows: looked up among those that somebody signed whom the user allows to.

A signed name leads to a source, as a catalog's does. Which digest that source has is decided as for every other, by
:meth:`weightstore.obtain.Obtainer.believed`; a name that a catalog knows is never looked for here.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from weightstore.catalog.entries import Entry
from weightstore.errors import UnknownName
from weightstore.records import Wanted, timestamp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from weightstore.digest import Pin
    from weightstore.obtain import Obtainer
    from weightstore.signing.claims import Claim
    from weightstore.signing.vouchers import Vouchers
    from weightstore.source import Source


def signed_entries(
    name: str, error: UnknownName, *, obtainer: Obtainer, pin_of: Callable[[Source], Pin]
) -> list[Entry]:
    """Return what a name means by what was signed; nothing where the user allows nobody to sign.

    What was read earlier counts before all else where the store knows its source by the same digest: then no mirror is
    asked. Else the mirrors are, but for those on the network when offline, and what is remembered counts as it does for
    sources. ``pin_of`` tells the pin of a source by itself or by a catalog, which the signer has no say in.

    Raises:
        UnknownName: nothing that counts says it, as ``error`` tells with what does not count; or it is not clear.
        InvalidConfig: the file of signers cannot be used.
    """
    vouchers = obtainer.vouchers()
    if vouchers is None:
        return []
    from weightstore.signing.names import called  # start-up: only where somebody signs

    def is_recorded(claim: Claim) -> bool:
        source = claim.entry.source
        return obtainer.known_digest(Wanted(source.display, source, pin_of(source))) == claim.entry.digest

    remembered = vouchers.recalled_names(name)
    known = [claim for claim in remembered if is_recorded(claim) and vouchers.signer_of(claim) is not None]
    found = called(name, known) or vouchers.named(name)
    contradicted = [claim for claim in found if not pin_of(claim.entry.source).matches(claim.entry.digest)]
    if contradicted or not found:
        entries = [claim.entry for claim in contradicted]
        reasons = [f"{one.name} was signed as {one.digest}, against the pin {pin_of(one.source)}" for one in entries]
        reasons += [*_told(remembered, vouchers), *vouchers.complaints()]
        raise UnknownName(name=error.name, suggestions=error.suggestions, hint=error.hint, unbelieved=reasons)
    return _entries(found, vouchers, pin_of)


def _entries(claims: list[Claim], vouchers: Vouchers, pin_of: Callable[[Source], Pin]) -> list[Entry]:
    """Return an entry for each blob of one name; of several files of one checkpoint each has its number."""
    by_digest: dict[str, list[Claim]] = {}
    for claim in sorted(claims, key=lambda claim: claim.entry.source.display):
        by_digest.setdefault(claim.entry.digest.hex, []).append(claim)
    found = []
    for number, (first, *others) in enumerate(by_digest.values(), 1):
        namespace, _, name = first.entry.name.partition("/")
        enum, _, member = name.partition(".")
        signer = vouchers.signer_of(first)
        whose = f"by {signer.name}, until {timestamp(first.expires)}" if signer is not None else ""
        found.append(
            Entry(
                namespace,
                enum,
                f"{member}[{number}/{len(by_digest)}]" if len(by_digest) > 1 else member,
                first.entry.source,
                pin_of(first.entry.source),
                size=first.entry.size,
                size_is_exact=True,
                alternatives=tuple(claim.entry.source for claim in others),
                doc=f"No catalog here knows it: the name was signed {whose}",
            )
        )
    return found


def _told(claims: Iterable[Claim], vouchers: Vouchers) -> list[str]:
    """Return why names that were read earlier do not count, or not any more."""
    from weightstore.signing.sshsig import fingerprint  # start-up: only where somebody signs

    told = []
    for claim in claims:
        signer = vouchers.signer_of(claim)
        if signer is None:
            who = f"the key {fingerprint(claim.key)}"
            told.append(f"{claim.entry.name} was signed by {who}, which your allowed_signers does not allow")
        elif claim.expires <= datetime.now(UTC):
            told.append(
                f"{claim.entry.name} was signed by {signer.name}, and that expired on {timestamp(claim.expires)}"
            )
    return list(dict.fromkeys(told))
