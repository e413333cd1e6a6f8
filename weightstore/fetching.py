"""One missing blob: its sources asked in turn until one gives the right bytes, and what is said of the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from weightstore.digest import Pin
from weightstore.errors import (
    AllSourcesFailed,
    DigestMismatch,
    IntegrityError,
    MissingDependency,
    NoSpace,
    SourceNotFound,
    SourceUnavailable,
    TransferError,
    WeightStoreError,
)
from weightstore.store.image import is_of_another_tool

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence

    from weightstore.config import Config
    from weightstore.obtain import Located
    from weightstore.records import Wanted
    from weightstore.source import Source
    from weightstore.store.layout import Layout
    from weightstore.transfer.download import Downloaded, Limits
    from weightstore.transfer.health import Health
    from weightstore.transfer.policy import Candidate
    from weightstore.transfer.progress import Meter
    from weightstore.transfer.transports import Transports

# What a mirror may declare where nothing at all is known of a file's size. No checkpoint comes near it.
_LARGEST_UNKNOWN = 1 << 40
# A catalog's size may be rounded, or of a file that was replaced: of a mirror so much more is taken.
_SLACK_BYTES = 1 << 20
# Slower than that a mirror is no help, where there is somebody else to ask: a gigabyte would take a day.
_USEFUL_BYTES_PER_S = 16 << 10


def fetch(
    wanted: Wanted,
    located: Located,
    candidates: Sequence[Candidate],
    *,
    config: Config,
    transports: Transports,
    health: Health,
    layout: Layout,
    key: str,
    meter: Meter,
    tell: Callable[[str], None],
    stop: threading.Event,
    may_resume: bool,
) -> tuple[Downloaded, Candidate]:
    """Return a complete and right part, and who gave it.

    A mirror that fails costs one sentence to ``tell``; who fails again and again is asked last, or not at all.

    Raises:
        IntegrityError, TransferError: no source gave the right bytes.
        NoSpace: it does not fit.
        Cancelled: ``stop`` was set.
    """
    failures: list[WeightStoreError] = []
    by_mirrors: list[tuple[Source, WeightStoreError]] = []
    no_space: NoSpace | None = None
    missing: MissingDependency | None = None
    has_origin = any(candidate.kind == "origin" for candidate in candidates)
    ordered = health.ordered(candidates)
    for candidate in ordered:
        mirror = candidate.mirror
        if mirror is not None and (error := health.why_not(mirror)) is not None:
            by_mirrors.append((mirror, _not_asked(mirror, error)))
            continue
        try:
            done = _from(
                candidate,
                wanted,
                located,
                config=config,
                transports=transports,
                layout=layout,
                key=key,
                meter=meter,
                stop=stop,
                may_resume=may_resume,
                is_only=len(candidates) == 1,
                is_last=candidate == ordered[-1],
            )
        except NoSpace as error:
            # A mirror may have lied about the size. If it did not, the next source meets the same.
            if mirror is None or error.needed is None:
                raise
            no_space = error
            if health.failed(mirror, error, tell=candidate != ordered[-1]):
                tell(f"mirror passed over: {error}")
        except (IntegrityError, TransferError, MissingDependency) as error:
            if isinstance(error, MissingDependency):  # it is not needed where another source gives it
                if mirror is None:
                    raise
                missing = error
            if mirror is None:
                failures.append(error)
                if isinstance(error, DigestMismatch) and candidate != ordered[-1]:
                    meter.note(f"{candidate.source} has other content now: asking further sources")
            else:
                by_mirrors.append((mirror, error))
                # Where mirrors are all there is, the error at the end tells what the last one did.
                if health.failed(mirror, error, tell=has_origin or candidate != ordered[-1]):
                    tell(f"mirror passed over: {error}")
        else:
            if mirror is not None:
                health.served(mirror)
            return done, candidate
        may_resume = True  # what a source gave before it failed is for the next one
    if failures:
        raise failures[0] if len(failures) == 1 else AllSourcesFailed(name=wanted.name, failures=failures)
    if (
        no_space is None
        and missing is not None
        and all(isinstance(error, MissingDependency) for _, error in by_mirrors)
    ):
        raise missing
    raise no_space or _no_mirror(wanted, located, by_mirrors)


def _not_asked(mirror: Source, last: WeightStoreError) -> SourceUnavailable:
    """Return the error of a file that a mirror was not asked for, which is another one than that of the last file."""
    why = getattr(last, "reason", "") or str(last)
    return SourceUnavailable(
        source=mirror.display,
        reason=f"was not asked for it: it failed with several files in a row, at last with: {why}",
    )


def _no_mirror(
    wanted: Wanted, located: Located, by_mirrors: Sequence[tuple[Source, WeightStoreError]]
) -> TransferError:
    """Return the error that says what each mirror did, and what to do about it."""
    what = f" ({located.digest})" if located.digest is not None else ""
    failures = [error for _, error in by_mirrors]
    told = "; ".join(str(error) for error in dict.fromkeys(failures)).rstrip(".")
    remedies = []
    if liars := dict.fromkeys(mirror for mirror, error in by_mirrors if isinstance(error, IntegrityError)):
        mending = " and ".join(f"`{command}`" for command in dict.fromkeys(map(_mending, liars)))
        remedies.append(f"Whoever keeps the mirror mends it with {mending}")
    elif all(isinstance(error, SourceNotFound) for error in failures):
        remedies.append("Whoever keeps the mirror brings it there with `weightstore mirror push`")
    elif any(isinstance(error, SourceUnavailable) for error in failures):
        remedies.append("It may pass: run it again, and it resumes where it stopped")
    if wanted.is_recorded:  # else nobody but the mirror is known to have it
        argument = wanted.name if "://" not in wanted.name else wanted.source.display
        remedies.append(f"Where the origin can be reached: weightstore prefetch '{argument}'")
    reason = f"no mirror gave it{what}: {told}. {'. '.join(remedies)}"
    return TransferError(source=wanted.name, reason=reason)


def _mending(mirror: Source) -> str:
    """Return the command that mends a damaged mirror: where it lies, or by pushing again what is not right."""
    if mirror.scheme in {"http", "https"}:  # which directory it serves is not known here
        return "weightstore --home DIR verify --repair"
    if mirror.scheme == "file" and not is_of_another_tool(mirror.path):
        return f"weightstore --home {mirror.path} verify --repair"
    place = mirror.path if mirror.scheme == "file" else mirror.display
    return f"weightstore mirror push {place} --all --check"


def _from(
    candidate: Candidate,
    wanted: Wanted,
    located: Located,
    *,
    config: Config,
    transports: Transports,
    layout: Layout,
    key: str,
    meter: Meter,
    stop: threading.Event,
    may_resume: bool,
    is_only: bool,
    is_last: bool,
) -> Downloaded:
    from weightstore.transfer.download import download  # start-up: not for a hit
    from weightstore.transfer.retry import RetryPolicy

    try:
        return download(
            candidate.source,
            Pin.of(located.digest) if located.digest is not None else wanted.pin,
            layout=layout,
            key=key,
            transport=transports.transport_for(candidate.source),
            limits=_limits(candidate, wanted, located, config, is_last=is_last),
            connections=transports.connections,
            # A mirror that fails is passed over, not begged, where another source goes on with what it gave.
            retry=RetryPolicy(attempts=config.retries if candidate.kind == "origin" or is_only else 0),
            stop=stop,
            meter=meter,
            may_resume=may_resume,
        )
    except DigestMismatch as error:
        recorded = located.known_by == "ref" and candidate.kind == "origin" and not wanted.pin.is_pinned
        raise DigestMismatch(
            source=error.source, expected=error.expected, actual=error.actual, recorded=recorded
        ) from None


def _limits(candidate: Candidate, wanted: Wanted, located: Located, config: Config, *, is_last: bool) -> Limits:
    """Return what a source may send. A mirror is held to what is known of the size, and has to declare a length."""
    from weightstore.transfer.download import Limits  # start-up: not for a hit
    from weightstore.transfer.pace import SLOWEST_BYTES_PER_S

    exact, most = wanted.exact_size, config.max_size
    if candidate.kind == "mirror":
        if exact is None and located.ref is not None and located.ref.digest == located.digest:
            exact = located.ref.size  # was seen together with the digest
        likely = _LARGEST_UNKNOWN if wanted.size is None else 2 * wanted.size + _SLACK_BYTES
        most = likely if most is None else min(most, likely)
    return Limits(
        exact_size=exact,
        max_size=most,
        needs_length=candidate.kind == "mirror",
        connections_per_file=config.connections_per_file,
        stall_s=config.stall_s,
        slow_s=config.read_timeout_s,
        slowest_bytes_per_s=SLOWEST_BYTES_PER_S if candidate.kind == "origin" or is_last else _USEFUL_BYTES_PER_S,
    )
