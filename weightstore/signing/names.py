"""Weights names as they are signed: whole and exact, with the namespace or, where that is clear, without."""

from __future__ import annotations

from typing import TYPE_CHECKING

from weightstore.errors import UnknownName

if TYPE_CHECKING:
    from collections.abc import Iterable

    from weightstore.signing.claims import Claim


def matches(name: str, signed: str) -> bool:
    """Tell whether somebody who asks for a name may mean a signed one: ``lab/Tiny_Weights.V1`` or ``Tiny_Weights.V1``.

    What is signed and has not the form of a weights name, as that of a bare file, is none.
    """
    namespace, _, rest = signed.partition("/")
    enum, _, member = rest.partition(".")
    if not (namespace.replace("-", "_").isidentifier() and enum.isidentifier() and member and member.isprintable()):
        return False
    return name in {signed, rest}


def called(name: str, claims: Iterable[Claim]) -> list[Claim]:
    """Return what a name means by some claims, those that count more first: one for each source.

    Whoever comes first decides: of the same key the newest index counts, and no other key adds to it.

    Raises:
        UnknownName: it has no namespace, and several have it.
    """
    found = [claim for claim in claims if matches(name, claim.entry.name)]
    names = sorted({claim.entry.name for claim in found})
    if len(names) > 1:
        raise UnknownName(name=name, hint=f"was signed in several namespaces. Say which: {', '.join(names)}")
    mine = [claim for claim in found if claim.key == found[0].key]
    newest = max((claim.version for claim in mine), default=0)
    return list({claim.entry.source: claim for claim in mine if claim.version == newest}.values())
