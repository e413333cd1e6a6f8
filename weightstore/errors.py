"""Everything that weightstore raises on purpose.

::

    WeightStoreError                       1   the root: catch this to catch all of them
    ├── InvalidInput                       2   an argument, name, source or setting that cannot be used
    │   ├── InvalidSource                      not a URL or path that we can read
    │   ├── InvalidDigest                      not a digest or pin
    │   ├── InvalidQuery                       a search expression that does not parse
    │   └── InvalidConfig                      a setting that cannot be used
    ├── UnknownName                        3   no catalog knows this weights name
    ├── NotPresent                         4   not in any store, and we may not or did not fetch it
    ├── IntegrityError                     5   bytes are not the bytes they should be
    │   ├── DigestMismatch                     a source served other content
    │   ├── SizeMismatch                       a source served another length
    │   ├── BlobDamaged                        a file in a store is not what its name says
    │   ├── InvalidCheckpoint                  a file that is no checkpoint, or a damaged one
    │   ├── InvalidBundle                      a file that is no bundle, or a damaged, cut or forged one
    │   ├── UntrustedIndex                     a mirror whose signature is not to be believed
    │   └── Drift                              a lockfile, catalog or earlier record says otherwise
    ├── TransferError                      6   a source could not be read
    │   ├── SourceNotFound                     404, 410, no such file
    │   ├── AccessDenied                       401, 403, 407, no permission
    │   ├── SourceUnavailable                  worth trying again: time-outs, 5xx, cut connections
    │   ├── RefusedResponse                    an answer that we will not use: bad redirect, no length, …
    │   └── AllSourcesFailed                   every source was tried
    ├── NoSpace                            7   disk or quota is full, or would be
    ├── StoreError                         8   the store itself cannot be used
    │   ├── NotAStore                          store.json missing, damaged or too new
    │   ├── InvalidRecord                      a ref, journal or lockfile that does not parse
    │   └── CannotReplace                      a damaged blob that belongs to somebody else
    ├── UntrustedSource                    9   trust = "pinned" and this source has no pin
    ├── MissingDependency                 10   an optional package is needed and absent, or too old
    ├── UnsafeCheckpoint                  11   loading it would run code that the file brings
    └── Cancelled                        130   the caller asked to stop

The number is the exit code of the command line. Each class carries its facts as fields; ``str()`` says what
happened and then what to do next. No message contains credentials: sources are shown by
:attr:`weightstore.source.Source.display`, which leaves them out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence


def _rebuild(cls: type[WeightStoreError], fields: dict[str, Any]) -> WeightStoreError:
    return cls(**fields)


class WeightStoreError(Exception):
    """The root of all errors that weightstore raises."""

    exit_code: ClassVar[int] = 1

    def __init__(self, **fields: Any) -> None:
        super().__init__()
        self.fields = fields

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions with keyword-only fields do not survive pickling by themselves, and worker processes
        # hand them to their parents that way.
        return _rebuild, (type(self), self.fields)

    def __str__(self) -> str:
        return str(self.fields.get("message", type(self).__name__))


class InvalidInput(WeightStoreError):
    exit_code = 2

    def __init__(self, message: str) -> None:
        super().__init__(message=message)


class InvalidSource(InvalidInput):
    """A source that is not a URL or path that weightstore can read."""


class InvalidDigest(InvalidInput):
    """Text that is neither a digest nor a pin."""


class InvalidQuery(InvalidInput):
    """A search expression that does not parse."""


class InvalidConfig(InvalidInput):
    """A setting that cannot be used."""


class UnknownName(WeightStoreError):
    """No catalog knows this weights name, and nobody has signed it; ``unbelieved`` says what of that does not count."""

    exit_code = 3

    def __init__(
        self, *, name: str, suggestions: Sequence[str] = (), hint: str = "", unbelieved: Sequence[str] = ()
    ) -> None:
        super().__init__(name=name, suggestions=tuple(suggestions), hint=hint, unbelieved=tuple(unbelieved))
        self.name = name
        self.suggestions = tuple(suggestions)
        self.hint = hint
        self.unbelieved = tuple(unbelieved)

    def __str__(self) -> str:
        return "\n".join([self._what(), *(f"  signed names: {one}" for one in self.unbelieved)])

    def _what(self) -> str:
        if self.hint:
            return f"{self.name!r}: {self.hint}"
        if not self.suggestions:
            return f"no catalog knows {self.name!r}. List what there is: weightstore search"
        nearest = ", ".join(self.suggestions)
        return f"no catalog knows {self.name!r}. Did you mean {nearest}?"


class NotPresent(WeightStoreError):
    """The weights are in none of the stores that were searched, and they were not fetched."""

    exit_code = 4

    def __init__(
        self,
        *,
        name: str,
        digest: str,
        searched: Sequence[str],
        offline: bool,
        remedy: str,
        is_local: bool = False,
        notes: Sequence[str] = (),
        unbelieved: Sequence[str] = (),
    ) -> None:
        super().__init__(
            name=name,
            digest=digest,
            searched=tuple(searched),
            offline=offline,
            remedy=remedy,
            is_local=is_local,
            notes=tuple(notes),
            unbelieved=tuple(unbelieved),
        )
        self.name = name
        self.digest = digest
        self.searched = tuple(searched)
        self.offline = offline
        self.remedy = remedy
        self.is_local = is_local
        self.notes = tuple(notes)
        self.unbelieved = tuple(unbelieved)

    def __str__(self) -> str:
        forbidden = self.offline and not self.is_local
        why = "and offline mode forbids fetching it" if forbidden else "and was not to be fetched"
        if self.unbelieved:
            lines = [f"{self.name} ({self.digest}): the store has something for it that does not count, {why}:"]
            lines += [f"  {one}" for one in self.unbelieved]
        else:
            lines = [f"{self.name} ({self.digest}) is not in the store, {why}."]
        lines.append("Searched:")
        lines += [f"  {place}" for place in self.searched]
        lines += [f"  note: {note}" for note in self.notes]
        lines += ["To store it, run:" if self.is_local else "Where there is internet, run:", f"  {self.remedy}"]
        return "\n".join(lines)


class IntegrityError(WeightStoreError):
    """Bytes are not the bytes that they should be."""

    exit_code = 5


class DigestMismatch(IntegrityError):
    """A source served content with another digest than the pin."""

    def __init__(self, *, source: str, expected: str, actual: str, recorded: bool = False) -> None:
        super().__init__(source=source, expected=expected, actual=actual, recorded=recorded)
        self.source = source
        self.expected = expected
        self.actual = actual
        self.recorded = recorded

    def __str__(self) -> str:
        said = "recorded when first fetched" if self.recorded else "expected"
        advice = (
            "The source now serves other content. If that is right, forget the old record: "
            f"weightstore rm --forget {self.source}"
            if self.recorded
            else "Nothing was kept. Either the source serves the wrong file, or the expected digest is wrong."
        )
        return f"{self.source}: {said} {self.expected}, got {self.actual}. {advice}"


class SizeMismatch(IntegrityError):
    """A source declared or served another number of bytes than expected."""

    def __init__(self, *, source: str, expected: int, actual: int) -> None:
        super().__init__(source=source, expected=expected, actual=actual)
        self.source = source
        self.expected = expected
        self.actual = actual

    def __str__(self) -> str:
        return (
            f"{self.source}: expected {self.expected} bytes, got {self.actual}. Nothing was kept. "
            "Either the source serves the wrong file, or the expected size is wrong."
        )


class BlobDamaged(IntegrityError):
    """A file in a store does not have the content that its name says."""

    def __init__(self, *, place: str, expected: str, actual: str) -> None:
        super().__init__(place=place, expected=expected, actual=actual)
        self.place = place
        self.expected = expected
        self.actual = actual
        self.judged: os.stat_result | None = None  # of the file that was found damaged, in the process that did

    def __str__(self) -> str:
        root, is_in_store, _ = self.place.rpartition("/blobs/sha256/")
        home = f"--home {root} " if is_in_store else ""
        return f"{self.place} is damaged: its content is {self.actual}. Repair it: weightstore {home}verify --repair"


class InvalidCheckpoint(IntegrityError):
    """A file that does not hold what a checkpoint holds, or that no reader may read in two ways."""

    def __init__(self, *, place: str, reason: str) -> None:
        super().__init__(place=place, reason=reason)
        self.place = place
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.place} is not a checkpoint that can be read: {self.reason}. Check where it comes from."


class InvalidBundle(IntegrityError):
    """A file that is not a bundle, or one that is damaged, cut short or forged."""

    def __init__(self, *, place: str, reason: str) -> None:
        super().__init__(place=place, reason=reason)
        self.place = place
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}. Nothing wrong was stored; get the bundle again where it was made."


class UntrustedIndex(IntegrityError):
    """What is signed of a mirror is not believed: forged, expired, an old one, by nobody who may, or false."""

    def __init__(self, *, place: str, reason: str) -> None:
        super().__init__(place=place, reason=reason)
        self.place = place
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.place} is not believed: {self.reason}. Ask whoever keeps the mirror."


class Drift(IntegrityError):
    """Two records of one thing disagree: a lockfile, the catalog, or an earlier ref."""

    def __init__(self, *, name: str, recorded: str, found: str, remedy: str) -> None:
        super().__init__(name=name, recorded=recorded, found=found, remedy=remedy)
        self.name = name
        self.recorded = recorded
        self.found = found
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.name}: recorded {self.recorded}, found {self.found}. {self.remedy}"


class TransferError(WeightStoreError):
    """A source could not be read."""

    exit_code = 6

    def __init__(self, *, source: str, reason: str) -> None:
        super().__init__(source=source, reason=reason)
        self.source = source
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.source}: {self.reason}"


class SourceNotFound(TransferError):
    """The source does not exist there."""


class AccessDenied(TransferError):
    """The source wants other credentials, or permissions that we lack."""


class SourceUnavailable(TransferError):
    """The source failed in a way that may pass: worth trying again.

    It ``is_silent`` where there was nobody to connect to, or nothing came in time: who asks again waits as long again.
    """

    def __init__(
        self, *, source: str, reason: str, retry_after_s: float | None = None, is_silent: bool = False
    ) -> None:
        super().__init__(source=source, reason=reason)
        self.fields = {
            "source": source,
            "reason": reason,
            "retry_after_s": retry_after_s,
            "is_silent": is_silent,
        }
        self.retry_after_s = retry_after_s
        self.is_silent = is_silent


class RefusedResponse(TransferError):
    """The source answered, with something that we will not use."""


class AllSourcesFailed(TransferError):
    """Every source of one blob was tried, and none gave it."""

    def __init__(self, *, name: str, failures: Sequence[WeightStoreError]) -> None:
        super().__init__(source=name, reason="every source failed")
        self.fields = {"name": name, "failures": tuple(failures)}
        self.name = name
        self.failures = tuple(failures)

    def __str__(self) -> str:
        lines = [f"{self.name}: every source failed:"]
        lines += [f"  {failure}" for failure in self.failures]
        if any(isinstance(failure, SourceUnavailable) for failure in self.failures):
            lines.append("Some of this may pass: run it again, and it resumes where it stopped.")
        return "\n".join(lines)


class NoSpace(WeightStoreError):
    """The disk or the quota is full, or would be. ``remedy`` is for places that are not the user's own store."""

    exit_code = 7

    def __init__(
        self, *, place: str, needed: int | None, free: int | None, reason: str = "no space left", remedy: str = ""
    ) -> None:
        super().__init__(place=place, needed=needed, free=free, reason=reason, remedy=remedy)
        self.place = place
        self.needed = needed
        self.free = free
        self.reason = reason
        self.remedy = remedy or (
            "Make room with `weightstore gc --dry-run`, or put the store elsewhere with WEIGHTSTORE_HOME."
        )

    def advising(self, remedy: str) -> NoSpace:
        """Return the same with another remedy."""
        return NoSpace(**{**self.fields, "remedy": remedy})

    def __str__(self) -> str:
        facts = []
        if self.needed is not None:
            facts.append(f"{self.needed} bytes needed")
        if self.free is not None:
            facts.append(f"{self.free} free")
        detail = f" ({', '.join(facts)})" if facts else ""
        return f"{self.place}: {self.reason}{detail}. {self.remedy}"


class StoreError(WeightStoreError):
    """The store itself cannot be used."""

    exit_code = 8

    def __init__(self, *, place: str, reason: str) -> None:
        super().__init__(place=place, reason=reason)
        self.place = place
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}"


class NotAStore(StoreError):
    """The directory is not a store, or one of a version that this weightstore does not know."""


class InvalidRecord(StoreError):
    """A record on disk (ref, journal, lockfile, store.json) that does not parse."""


class CannotReplace(StoreError):
    """A damaged blob that this user may not move away."""


class UntrustedSource(WeightStoreError):
    """The configuration refuses sources without a pin, and this one has none."""

    exit_code = 9

    def __init__(self, *, source: str) -> None:
        super().__init__(source=source)
        self.source = source

    def __str__(self) -> str:
        return (
            f'{self.source}: no digest is known for it, and trust = "pinned" refuses such sources. '
            "Give one: append #sha256=<64 hex>, or pass --sha256."
        )


class MissingDependency(WeightStoreError):
    """Something was asked for that needs an optional package."""

    exit_code = 10

    def __init__(self, *, package: str, purpose: str, extra: str = "torch") -> None:
        super().__init__(package=package, purpose=purpose, extra=extra)
        self.package = package
        self.purpose = purpose
        self.extra = extra

    def __str__(self) -> str:
        return f'{self.purpose} needs {self.package}. Install it: pip install "weightstore[{self.extra}]"'


class UnsafeCheckpoint(WeightStoreError):
    """A checkpoint that only unpickling can load, which runs whatever the file says."""

    exit_code = 11

    def __init__(self, *, place: str, calls: Sequence[str], reason: str = "") -> None:
        super().__init__(place=place, calls=tuple(calls), reason=reason)
        self.place = place
        self.calls = tuple(calls)
        self.reason = reason

    def __str__(self) -> str:
        what = f"would call {', '.join(self.calls[:5])}{', …' if len(self.calls) > 5 else ''}"
        return (
            f"{self.place} is not loaded: its pickle {what if self.calls else self.reason or 'is refused'}. "
            'If you trust whoever made it as you trust a program, pass trust="pickle".'
        )


class Cancelled(WeightStoreError):
    """The caller asked to stop. What had been downloaded is kept for the next run."""

    exit_code = 130

    def __str__(self) -> str:
        return "stopped. What was downloaded so far is kept: the next run resumes"
