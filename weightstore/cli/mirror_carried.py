"""What push, pull and status of a mirror do with signed indexes, and tell of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from weightstore.cli import units

if TYPE_CHECKING:
    from weightstore.cli.settings import Settings
    from weightstore.client import Client
    from weightstore.cluster.index import ModelIndex
    from weightstore.cluster.mirror.oms_files import OmsState
    from weightstore.cluster.mirror.place import Place
    from weightstore.cluster.mirror.signature import Carried, Coverage, State
    from weightstore.signing.document import Statement


def carried_to(place: Place, index: ModelIndex | None, *, client: Client, dry_run: bool = False) -> Carried:
    """Bring the signed index of the writable store to a mirror, whose index is this by now."""
    from weightstore.cluster.index import ModelIndex  # start-up: not for --help
    from weightstore.cluster.mirror.signature import carry
    from weightstore.source import Source

    origin = Source.of_path(client.config.home)
    return carry(origin, place, index or ModelIndex(), client=client, now=datetime.now(UTC), dry_run=dry_run)


def carried_from(place: Place, *, client: Client) -> Carried:
    """Bring the signed index of a mirror to the writable store, so that it can be served as a signed mirror."""
    from weightstore.cluster.index import build_index  # start-up: not for --help
    from weightstore.cluster.mirror.directory import Directory
    from weightstore.cluster.mirror.signature import Carried, Decision, carry
    from weightstore.errors import StoreError

    layout = client.obtainer.layers()[-1].layout
    if layout is None:  # nothing came
        return nothing_carried()
    home = Directory(layout.root, client.receipts)
    index = build_index(layout, client.catalogs.all(), counts=client.obtainer.counts)
    try:
        return carry(place.source, home, index, client=client, now=datetime.now(UTC), has_to_be_believed=True)
    except StoreError as error:  # members of a group may add blobs to a store whose directory is not theirs to write
        return Carried(Decision("refused", error.reason))


def nothing_carried() -> Carried:
    """Return what became of a signed index where nothing was that it could be about."""
    from weightstore.cluster.mirror.signature import Carried, Decision  # start-up: not for --help

    return Carried(Decision("none"))


def state_at(place: Place, index: ModelIndex, *, client: Client) -> State:
    """Find out what is signed at a mirror."""
    from weightstore.cluster.mirror.signature import state_of  # start-up: not for --help

    return state_of(place, index, client=client, now=datetime.now(UTC))


def oms_carried_to(place: Place, *, client: Client) -> OmsState:
    """Bring the OMS signature of the writable store to a mirror that has the very same files."""
    from weightstore.cluster.mirror.oms_files import carry_oms  # start-up: not for --help
    from weightstore.source import Source

    return carry_oms(Source.of_path(client.config.home), place, client=client)


def oms_at(place: Place, *, client: Client) -> bool | None:
    """Tell whether the OMS signature at a mirror is over its files; None where there is none, or nobody can tell."""
    from weightstore.cluster.mirror.oms_files import oms_state  # start-up: not for --help

    return oms_state(place, client=client)


def tell_oms(settings: Settings, state: OmsState, display: str) -> None:
    """Tell whether an OMS signature was carried, and whether the one at a mirror is still over its files."""
    if state.status == "carried":
        settings.say("carried model.sig")
    elif state.status == "refused":
        settings.note(f"model.sig is not carried to {display}: it is over other files than lie there")
    if state.matches is False:
        settings.note(f"{display}: {OMS_GAP}")


OMS_GAP = "its model.sig is over other files than lie there now. Sign them: weightstore mirror sign --oms"


def tell_carried(
    settings: Settings, carried: Carried, display: str, *, is_mirror: bool = True, dry_run: bool = False
) -> None:
    """Tell whether a signed index was carried, and, of a mirror, whether it is of all that is there."""
    decision, lies = carried.decision, carried.lies
    if decision.status == "carried" and lies is not None:
        settings.say(f"{'would carry' if dry_run else 'carried'} the signed index: {_described(lies)}")
    elif decision.status == "refused":
        settings.note(f"the signed index is not carried to {display}: {decision.reason}")
    if carried.damage:
        settings.note(f"{display}: its signed index is not to be believed: {carried.damage}")
    if is_mirror and lies is not None and carried.coverage is not None and not carried.coverage.matches:
        settings.note(f"{display}: {_gaps(carried.coverage)}. {_REMEDY} {display}")


_REMEDY = "Sign what is there: weightstore mirror sign"


def state_lines(state: State, display: str) -> list[str]:
    """Return what is signed at a mirror, in words."""
    if state.statement is None:
        return [f"signed index: {f'not to be believed: {state.reason}' if state.reason else 'there is none'}"]
    who = f"{state.signer}, " if state.signer else ""
    lines = [f"signed index: {who}{_described(state.statement)}"]
    if state.reason:
        lines.append(f"note: it is not to be believed: {state.reason}")
    if state.coverage is not None:
        if not state.coverage.matches:
            lines.append(f"note: {_gaps(state.coverage)}. {_REMEDY} {display}")
        elif not state.coverage.absent:
            lines.append("it says of each source what the index says")
        else:
            absent = units.count(len(state.coverage.absent), "source")
            lines.append(f"it says of each source what the index says, and of {absent} whose blobs are not there")
    return lines


def _described(statement: Statement) -> str:
    index = statement.index
    until = index.expires.strftime("%Y-%m-%d %H:%M UTC")
    sources = units.count(len(index.entries), "source")
    return f"{sources}, version {index.version}, until {until}, by {statement.fingerprint}"


def _gaps(found: Coverage) -> str:
    unsigned, differing = len(found.unsigned), len(found.differing)
    told = []
    if unsigned:
        told.append(f"its signed index says nothing of {units.count(unsigned, 'source')}")
    if differing:
        told.append(f"its signed index says another digest of {units.count(differing, 'source')}")
    return ", and ".join(told)


def carried_as_json(carried: Carried) -> dict[str, object]:
    """Return what became of a signed index as JSON shows it."""
    return {
        "status": carried.decision.status,
        "reason": carried.decision.reason or carried.damage or None,
        **_lies_as_json(carried.lies, carried.coverage),
    }


def state_as_json(state: State) -> dict[str, object] | None:
    """Return what is signed at a mirror as JSON shows it; None where nothing is."""
    if not state.is_signed:
        return None
    return {
        "signer": state.signer or None,
        "reason": state.reason or None,
        **_lies_as_json(state.statement, state.coverage),
    }


def _lies_as_json(statement: Statement | None, found: Coverage | None) -> dict[str, object]:
    expires = statement.index.expires.isoformat().replace("+00:00", "Z") if statement is not None else None
    return {
        "key": statement.fingerprint if statement is not None else None,
        "version": statement.index.version if statement is not None else None,
        "expires": expires,
        "matches": found.matches if found is not None else None,
        "unsigned": [str(source) for source in found.unsigned] if found is not None else [],
        "differing": [str(source) for source in found.differing] if found is not None else [],
        "absent": len(found.absent) if found is not None else None,
    }
