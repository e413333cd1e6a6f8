"""The tree of errors: documented as it is, carried between processes, and saying what to do next."""

import copy
import pickle
import re

import pytest

from weightstore import errors
from weightstore.errors import (
    AccessDenied,
    AllSourcesFailed,
    BlobDamaged,
    Cancelled,
    CannotReplace,
    DigestMismatch,
    Drift,
    IntegrityError,
    InvalidBundle,
    InvalidCheckpoint,
    InvalidConfig,
    InvalidDigest,
    InvalidInput,
    InvalidQuery,
    InvalidRecord,
    InvalidSource,
    MissingDependency,
    NoSpace,
    NotAStore,
    NotPresent,
    RefusedResponse,
    SizeMismatch,
    SourceNotFound,
    SourceUnavailable,
    StoreError,
    TransferError,
    UnknownName,
    UnsafeCheckpoint,
    UntrustedIndex,
    UntrustedSource,
    WeightStoreError,
)

URL = "https://host/model.pth"
DIGEST = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64
NOT_PRESENT = {
    "name": "resnet50",
    "digest": DIGEST,
    "searched": ["/sw/weights", "/home/me/.cache/weightstore"],
    "remedy": "weightstore prefetch resnet50",
}

EXAMPLES: list[WeightStoreError] = [
    WeightStoreError(message="something"),
    InvalidInput("an argument"),
    InvalidSource("a source"),
    InvalidDigest("a digest"),
    InvalidQuery("a query"),
    InvalidConfig("a setting"),
    UnknownName(name="resnet5O", suggestions=["resnet50", "resnet152"]),
    UnknownName(name="resnet5O", hint="is in two catalogs"),
    UnknownName(name="resnet5O"),
    NotPresent(**NOT_PRESENT, offline=True, notes=["a damaged copy was passed by"]),
    NotPresent(**NOT_PRESENT, offline=False),
    IntegrityError(message="bytes"),
    DigestMismatch(source=URL, expected=DIGEST, actual=OTHER),
    DigestMismatch(source=URL, expected=DIGEST, actual=OTHER, recorded=True),
    SizeMismatch(source=URL, expected=10, actual=9),
    BlobDamaged(place="/store/blobs/sha256/aa", expected=DIGEST, actual=OTHER),
    InvalidCheckpoint(place="/models/a.pth", reason="it is empty"),
    InvalidBundle(place="out.tar", reason="is not a tar file"),
    UntrustedIndex(place="/mirror/signed-index.json", reason="it expired"),
    Drift(name="resnet50", recorded=DIGEST, found=OTHER, remedy="Lock again with --update."),
    TransferError(source=URL, reason="broken"),
    SourceNotFound(source=URL, reason="404 Not Found"),
    AccessDenied(source=URL, reason="403 Forbidden"),
    SourceUnavailable(source=URL, reason="503", retry_after_s=2.5),
    SourceUnavailable(source=URL, reason="timed out"),
    RefusedResponse(source=URL, reason="redirects to http"),
    AllSourcesFailed(name="resnet50", failures=[SourceNotFound(source=URL, reason="404")]),
    AllSourcesFailed(
        name="resnet50",
        failures=[
            SourceUnavailable(source=URL, reason="503", retry_after_s=1.0),
            DigestMismatch(source="https://mirror/", expected=DIGEST, actual=OTHER),
        ],
    ),
    NoSpace(place="/store", needed=10, free=9),
    NoSpace(place="/store", needed=None, free=None, reason="quota exceeded"),
    NoSpace(place="/store", needed=10, free=None),
    NoSpace(place="/store", needed=None, free=3),
    StoreError(place="/store", reason="cannot be written"),
    NotAStore(place="/store", reason="store.json is missing"),
    InvalidRecord(place="/store/refs/x.json", reason="not JSON"),
    CannotReplace(place="/store/blobs/sha256/aa", reason="belongs to alice"),
    UntrustedSource(source=URL),
    MissingDependency(package="torch", purpose="loading weights"),
    UnsafeCheckpoint(place="/w/a.pth", calls=["os.system"]),
    Cancelled(),
]
BY_MESSAGE = pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)


def all_classes() -> list[type[WeightStoreError]]:
    """Every class of the tree, in the order of its definition."""
    return [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, WeightStoreError)]


def documented_tree() -> dict[str, tuple[str | None, int | None]]:
    """Name to parent and exit code, as the module's docstring draws them."""
    assert errors.__doc__ is not None
    found: dict[str, tuple[str | None, int | None]] = {}
    branch: list[str] = []
    for line in errors.__doc__.splitlines():
        drawn = re.fullmatch(r"    ([│├└─ ]*)([A-Z]\w+)\s+(?:(\d+)\s+)?\S.*", line)
        if drawn is None:
            continue
        depth = len(drawn[1]) // 4
        del branch[depth:]
        parent = branch[-1] if branch else None
        branch.append(drawn[2])
        assert drawn[2] not in found
        found[drawn[2]] = (parent, int(drawn[3]) if drawn[3] else None)
    return found


def test_docstring_draws_the_tree_as_it_is() -> None:
    drawn = {name: parent for name, (parent, _) in documented_tree().items()}

    actual = {one.__name__: one.__base__.__name__ if one is not WeightStoreError else None for one in all_classes()}

    assert drawn == actual


def test_docstring_names_the_exit_code_of_every_class() -> None:
    tree = documented_tree()

    def code_of(name: str) -> int | None:
        parent, code = tree[name]
        return code if code is not None or parent is None else code_of(parent)

    assert {name: code_of(name) for name in tree} == {one.__name__: one.exit_code for one in all_classes()}


def test_each_exit_code_belongs_to_one_branch_of_the_tree() -> None:
    codes = [one.exit_code for one in all_classes() if one.__base__ in (WeightStoreError, Exception)]

    assert len(set(codes)) == len(codes)
    assert all(0 < code < 256 for code in codes)


def test_every_class_has_an_example_here() -> None:
    assert {type(error) for error in EXAMPLES} == set(all_classes())


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@BY_MESSAGE
def test_error_survives_pickling(error: WeightStoreError, protocol: int) -> None:
    again = pickle.loads(pickle.dumps(error, protocol=protocol))

    assert type(again) is type(error)
    assert str(again) == str(error)
    attributes = {name: value for name, value in vars(error).items() if name not in {"failures", "fields"}}
    assert {name: getattr(again, name) for name in attributes} == attributes


@BY_MESSAGE
def test_error_survives_copying(error: WeightStoreError) -> None:
    assert str(copy.copy(error)) == str(error)


def test_failures_inside_of_a_failure_survive_pickling_with_their_fields() -> None:
    error = AllSourcesFailed(name="x", failures=[SourceUnavailable(source=URL, reason="503", retry_after_s=7.0)])

    (failure,) = pickle.loads(pickle.dumps(error)).failures

    assert isinstance(failure, SourceUnavailable)
    assert (failure.source, failure.reason, failure.retry_after_s) == (URL, "503", 7.0)


@BY_MESSAGE
def test_message_names_every_fact_that_the_error_carries(error: WeightStoreError) -> None:
    message = str(error)

    facts = [value for name, value in error.fields.items() if name in {"name", "source", "place", "reason", "remedy"}]
    assert all(str(fact) in message for fact in facts)
    assert message.strip() == message != ""


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (UnknownName(name="x"), "weightstore search"),
        (UnknownName(name="x", suggestions=["y", "z"]), "Did you mean y, z?"),
        (UnknownName(name="x", suggestions=["y"], hint="say which"), "'x': say which"),
        (NotPresent(**NOT_PRESENT, offline=True), "Where there is internet, run:\n  weightstore prefetch resnet50"),
        (NotPresent(**NOT_PRESENT, offline=True), "offline mode forbids fetching it"),
        (NotPresent(**NOT_PRESENT, offline=False), "was not to be fetched"),
        (NotPresent(**NOT_PRESENT, offline=True), "\n  /sw/weights\n  /home/me/.cache/weightstore\n"),
        (NotPresent(**NOT_PRESENT, offline=True, notes=["passed by"]), "\n  note: passed by\n"),
        (
            DigestMismatch(source=URL, expected=DIGEST, actual=OTHER),
            f"expected {DIGEST}, got {OTHER}. Nothing was kept",
        ),
        (
            DigestMismatch(source=URL, expected=DIGEST, actual=OTHER, recorded=True),
            f"weightstore rm --forget {URL}",
        ),
        (SizeMismatch(source=URL, expected=10, actual=9), "expected 10 bytes, got 9. Nothing was kept"),
        (BlobDamaged(place="/b", expected=DIGEST, actual=OTHER), f"content is {OTHER}. Repair it: weightstore"),
        (InvalidCheckpoint(place="/b", reason="it is empty"), "can be read: it is empty. Check where it comes from"),
        (
            InvalidBundle(place="o.tar", reason="is cut"),
            "o.tar: is cut. Nothing wrong was stored; get the bundle again",
        ),
        (
            UntrustedIndex(place="/i", reason="it expired"),
            "/i is not believed: it expired. Ask whoever keeps the mirror",
        ),
        (Drift(name="x", recorded="a", found="b", remedy="Lock again."), "x: recorded a, found b. Lock again."),
        (NoSpace(place="/s", needed=10, free=9), "no space left (10 bytes needed, 9 free). Make room with"),
        (NoSpace(place="/s", needed=10, free=None), "(10 bytes needed)"),
        (NoSpace(place="/s", needed=None, free=9), "(9 free)"),
        (NoSpace(place="/s", needed=None, free=None), "no space left. Make room with `weightstore gc --dry-run`"),
        (MissingDependency(package="torch", purpose="loading weights"), 'pip install "weightstore[torch]"'),
        (UnsafeCheckpoint(place="/w/a.pth", calls=["os.system"]), "would call os.system"),
        (UnsafeCheckpoint(place="/w/a.pth", calls=["os.system"]), 'trust="pickle"'),
        (UntrustedSource(source=URL), "append #sha256=<64 hex>, or pass --sha256"),
        (Cancelled(), "the next run resumes"),
    ],
)
def test_message_says_what_to_do_next(error: WeightStoreError, advice: str) -> None:
    assert advice in str(error)


def test_failure_of_all_sources_lists_each_and_says_whether_trying_again_helps() -> None:
    gone = SourceNotFound(source="https://a/x", reason="404")
    busy = SourceUnavailable(source="https://b/x", reason="503")

    assert str(AllSourcesFailed(name="n", failures=[gone])) == "n: every source failed:\n  https://a/x: 404"
    assert str(AllSourcesFailed(name="n", failures=[gone, busy])).splitlines()[2:] == [
        "  https://b/x: 503",
        "Some of this may pass: run it again, and it resumes where it stopped.",
    ]


def test_error_without_a_message_says_its_name() -> None:
    assert str(IntegrityError()) == "IntegrityError"


def test_sequences_in_errors_are_frozen() -> None:
    suggestions = ["a"]
    error = UnknownName(name="x", suggestions=suggestions)

    suggestions.append("b")

    assert error.suggestions == ("a",)
