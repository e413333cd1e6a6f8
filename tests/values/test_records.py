"""Records on disk: read as they were written, and refused when anything about them is wrong."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from weightstore.digest import Digest, Pin
from weightstore.errors import InvalidRecord
from weightstore.records import (
    MAX_SIZE,
    RECORD_LIMIT,
    SHARINGS,
    VIAS,
    Journal,
    Owner,
    Ref,
    StoreInfo,
    Validator,
    Wanted,
    timestamp,
)
from weightstore.source import Source

Record = StoreInfo | Ref | Journal
HEX = "0123456789abcdef"
PLACE = "/store/some.json"

digests = st.text(HEX, min_size=64, max_size=64).map(Digest)
pins = st.one_of(st.just(Pin()), st.text(HEX, min_size=8, max_size=64).map(Pin))
sources = st.sampled_from(
    [
        "https://host/model.pth",
        "http://[::1]:8080/a/../b?v=1&w=%20",
        "https://user:pw@host/modèle-模型.pth?token=x",
        "file:///data/a%20b.pth",
        "hf://org/model@v1/sub/model.safetensors",
    ]
).map(Source)
sizes = st.integers(0, MAX_SIZE)
moments = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)).map(lambda moment: moment.replace(microsecond=0))
zones = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
printable = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)

infos = st.sampled_from(SHARINGS).map(StoreInfo)
commits = st.just("") | st.text(HEX, min_size=40, max_size=40)
refs = st.builds(
    Ref,
    sources,
    digests,
    sizes,
    st.builds(lambda moment, zone: moment.replace(tzinfo=zone), moments, zones),
    st.sampled_from(VIAS),
    commit=commits,
    etag=commits | st.text(HEX, min_size=64, max_size=64),
).map(lambda ref: replace(ref, key=ref.digest.hex) if ref.via == "signed" else ref)
owners = st.builds(
    Owner,
    host=st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=255),
    pid=st.integers(1, 2**40),
    boot=st.sampled_from(["", "2c0b4f2e-8b1c-4a0e-9a77-7c1f1f8f0a11", "böot"]),
    pid_namespace=st.sampled_from(["", "pid:[4026531836]"]),
    started=st.integers(0, 2**40),
)


@st.composite
def journals(draw: st.DrawFn) -> Journal:
    offset = draw(sizes)
    total = draw(st.none() | st.integers(offset, MAX_SIZE))
    validator = draw(st.builds(Validator, printable, printable))
    return Journal(draw(sources), draw(pins), total, validator, offset, draw(digests), draw(owners))


records: st.SearchStrategy[Record] = infos | refs | journals()

INFO = StoreInfo("group")
REF = Ref(Source("https://host/x"), Digest("a" * 64), 5, datetime(2024, 1, 31, 12, 0, 0, tzinfo=UTC), "mirror")
JOURNAL = Journal(
    Source("https://host/x"),
    Pin("deadbeef"),
    10,
    Validator('"abc"', "Wed, 31 Jan 2024 12:00:00 GMT"),
    5,
    Digest("b" * 64),
    Owner("node1", 42, "boot", "pid:[1]", 99),
)
EXAMPLES: list[Record] = [INFO, REF, JOURNAL]
BY_KIND = pytest.mark.parametrize("record", EXAMPLES, ids=lambda record: type(record).__name__)


def read(kind: type[Record], data: bytes) -> Record:
    return kind.parse(data, place=PLACE)


def fields_of(record: Record) -> dict[str, Any]:
    values = json.loads(record.encode())
    assert isinstance(values, dict)
    return values


def changed(record: Record, **changes: object) -> bytes:
    return json.dumps(fields_of(record) | changes).encode()


def refusal(kind: type[Record], data: bytes) -> str:
    with pytest.raises(InvalidRecord) as caught:
        read(kind, data)
    assert caught.value.place == PLACE
    return str(caught.value)


# -- round trips ------------------------------------------------------------------------------------------------------


@given(records)
def test_record_is_read_as_it_was_written(record: Record) -> None:
    assert read(type(record), record.encode()) == record


@given(records)
def test_record_is_one_json_object_of_moderate_size_that_ends_its_line(record: Record) -> None:
    data = record.encode()

    assert data.endswith(b"}\n")
    assert len(data) < RECORD_LIMIT
    assert isinstance(json.loads(data), dict)


def test_records_of_version_1_look_like_this() -> None:
    assert INFO.encode() == b'{"layout": 1, "sharing": "group"}\n'
    assert fields_of(REF) == {
        "version": 1,
        "source": "https://host/x",
        "digest": "sha256:" + "a" * 64,
        "size": 5,
        "seen_at": "2024-01-31T12:00:00Z",
        "via": "mirror",
    }
    assert fields_of(JOURNAL) == {
        "version": 1,
        "source": "https://host/x",
        "pin": "sha256:deadbeef",
        "total": 10,
        "offset": 5,
        "digest": "sha256:" + "b" * 64,
        "etag": '"abc"',
        "last_modified": "Wed, 31 Jan 2024 12:00:00 GMT",
        "host": "node1",
        "pid": 42,
        "boot": "boot",
        "pid_namespace": "pid:[1]",
        "started": 99,
    }


@given(st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)), zones)
def test_timestamp_is_utc_in_whole_seconds(moment: datetime, zone: timezone) -> None:
    moment = moment.replace(tzinfo=zone)

    text = timestamp(moment)

    assert text.endswith("Z")
    assert timedelta(0) <= moment - datetime.fromisoformat(text) < timedelta(seconds=1)


# -- whatever lies there ----------------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from([StoreInfo, Ref, Journal]), st.binary() | json_values.map(lambda one: json.dumps(one).encode()))
@example(StoreInfo, b"")
@example(Ref, b"\xff\xfe{\x00}\x00")
@example(Ref, b"\xef\xbb\xbf{}")
@example(Journal, b"null")
@example(Journal, b"[" * RECORD_LIMIT)
@example(Journal, b'{"a":' * 10_000)
@example(Ref, b"1" * 5000)
def test_arbitrary_bytes_are_no_record(kind: type[Record], data: bytes) -> None:
    refusal(kind, data)


def rewritten(kind: type[Record], data: bytes) -> None:
    """Whatever parses can be written, and reads the same again; all else is InvalidRecord and nothing else."""
    try:
        record = read(kind, data)
    except InvalidRecord:
        return
    again = read(kind, record.encode())
    assert again.encode() == record.encode()


@given(records, st.data())
def test_record_with_one_field_replaced_is_refused_or_sound(record: Record, data: st.DataObject) -> None:
    values = fields_of(record)
    name = data.draw(st.sampled_from(sorted(values)))
    strange = st.sampled_from(
        ["\ud800", "\n", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "https://h/\udfff", 1e400, -1, 2**70]
    )
    values[name] = data.draw(json_values | strange)

    rewritten(type(record), json.dumps(values).encode())


@given(records, st.data())
def test_record_with_some_bytes_changed_is_refused_or_sound(record: Record, data: st.DataObject) -> None:
    damaged = bytearray(record.encode())
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))

    rewritten(type(record), bytes(damaged))


@given(records, st.data())
def test_record_cut_short_is_refused(record: Record, data: st.DataObject) -> None:
    whole = record.encode().rstrip()

    refusal(type(record), whole[: data.draw(st.integers(0, len(whole) - 1))])


# -- strictness, fault by fault ---------------------------------------------------------------------------------------


@BY_KIND
def test_missing_field_is_named(record: Record) -> None:
    for name in fields_of(record):
        values = fields_of(record)
        del values[name]

        assert f"'{name}' is missing" in refusal(type(record), json.dumps(values).encode())


@BY_KIND
def test_mistyped_field_is_named(record: Record) -> None:
    for name, value in fields_of(record).items():
        wrong: list[object] = [[value], {"a": value}, 1.5, True]
        wrong += ["1"] if isinstance(value, int) else [7]
        wrong += [None] if name != "total" else []
        for one in wrong:
            assert f"'{name}' is not {type(value).__name__}" in refusal(type(record), changed(record, **{name: one}))


@BY_KIND
def test_unknown_field_is_named(record: Record) -> None:
    assert "unknown field 'extra'" in refusal(type(record), changed(record, extra=1))
    assert "unknown field ''" in refusal(type(record), changed(record, **{"": None}))


@BY_KIND
def test_field_given_twice_is_refused(record: Record) -> None:
    for name, value in fields_of(record).items():
        data = record.encode().rstrip()[:-1] + f', "{name}": {json.dumps(value)}}}'.encode()

        assert "a field is given twice" in refusal(type(record), data)


@BY_KIND
def test_record_larger_than_the_limit_is_refused(record: Record) -> None:
    data = record.encode()

    assert read(type(record), data.ljust(RECORD_LIMIT)) == record
    assert f"larger than {RECORD_LIMIT} bytes" in refusal(type(record), data.ljust(RECORD_LIMIT + 1))


@BY_KIND
def test_record_that_is_no_utf_8_is_refused(record: Record) -> None:
    assert "not JSON" in refusal(type(record), record.encode().decode().encode("utf-16"))
    assert "not JSON" in refusal(type(record), b'{"\xff": 1}')


@BY_KIND
def test_refusal_says_what_kind_of_record_is_damaged(record: Record) -> None:
    kind = {StoreInfo: "store.json", Ref: "ref", Journal: "journal"}[type(record)]

    assert refusal(type(record), b"{}").startswith(f"{PLACE}: damaged {kind}: ")


@pytest.mark.parametrize("data", [b"[]", b"null", b"1", b'"x"', b"true"])
def test_record_that_is_no_object_is_refused(data: bytes) -> None:
    assert "not a JSON object" in refusal(Ref, data)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_number_that_is_none_is_refused(number: str) -> None:
    data = REF.encode().replace(b'"size": 5', f'"size": {number}'.encode())

    assert f"{number} is not a number" in refusal(Ref, data)


@pytest.mark.parametrize("number", ["-1", str(MAX_SIZE + 1), "1" + "0" * 400])
@pytest.mark.parametrize(("record", "name"), [(REF, "size"), (JOURNAL, "offset"), (JOURNAL, "total")])
def test_number_that_is_no_size_is_refused(record: Record, name: str, number: str) -> None:
    assert f"'{name}' is not a number of bytes" in refusal(type(record), changed(record, **{name: int(number)}))


@pytest.mark.parametrize("number", ["5.0", "5e0", "1e999"])
def test_size_written_as_a_fraction_is_refused(number: str) -> None:
    assert "'size' is not int" in refusal(Ref, REF.encode().replace(b'"size": 5', f'"size": {number}'.encode()))


@pytest.mark.parametrize("version", [0, 2, -1, 10**30])
@pytest.mark.parametrize("record", [REF, JOURNAL])
def test_other_version_is_refused_and_says_which_is_read(record: Record, version: int) -> None:
    message = refusal(type(record), changed(record, version=version, later_field=1))

    assert message.endswith(f"version {version}; this weightstore reads version 1")


@pytest.mark.parametrize(
    ("record", "name", "value", "reason"),
    [
        (INFO, "layout", 2, "layout 2, and this weightstore knows layout 1"),
        (INFO, "sharing", "public", "sharing is not one of private, group, world"),
        (REF, "source", "https://", "'source': https source without a host"),
        (REF, "source", "./x", "'source': "),
        (REF, "source", "https://host/x#sha256=deadbeef", "'source': a source has no fragment"),
        (REF, "source", "../../etc/passwd", "'source': "),
        (REF, "digest", "a" * 64, "'digest': "),
        (REF, "digest", "sha256:" + "A" * 64, "'digest': "),
        (REF, "digest", "sha256:deadbeef", "'digest': "),
        (REF, "via", "magic", "'via' is not one of origin, mirror"),
        (REF, "via", "origin\n", "'via' contains control characters"),
        (REF, "commit", "main", "'commit' is not a commit"),
        (REF, "commit", "a" * 39, "'commit' is not a commit"),
        (REF, "commit", "A" * 40, "'commit' is not a commit"),
        (REF, "commit", 5, "'commit' is not str"),
        (REF, "etag", "../../x", "'etag' is not what the Hub calls content"),
        (REF, "etag", "a" * 41, "'etag' is not what the Hub calls content"),
        (REF, "etag", '"' + "a" * 40 + '"', "'etag' is not what the Hub calls content"),
        (REF, "etag", None, "'etag' is not str"),
        (REF, "seen_at", "yesterday", "'seen_at': Invalid isoformat string"),
        (REF, "seen_at", "2024-01-31T12:00:00", "'seen_at' has no time zone"),
        (REF, "seen_at", "2024-13-31T12:00:00Z", "'seen_at': "),
        (REF, "seen_at", "0001-01-01T00:00:00+23:59", "'seen_at': date value out of range"),
        (REF, "seen_at", "9999-12-31T23:59:59-23:59", "'seen_at': date value out of range"),
        (JOURNAL, "pin", "deadbeef", "'pin': "),
        (JOURNAL, "pin", "", "'pin': "),
        (JOURNAL, "total", 4, "'offset' lies beyond 'total'"),
        (JOURNAL, "offset", 11, "'offset' lies beyond 'total'"),
        (JOURNAL, "pid", 0, "the owner is not a process"),
        (JOURNAL, "pid", -1, "the owner is not a process"),
        (JOURNAL, "started", -1, "the owner is not a process"),
        (JOURNAL, "host", "two words", "the owner is not a process"),
        (JOURNAL, "host", "é", "the owner is not a process"),
        (JOURNAL, "host", "h" * 256, "the owner is not a process"),
        (JOURNAL, "etag", '"a"\r\nX-Injected: 1', "'etag' contains control characters"),
        (JOURNAL, "etag", '"é"', "the validator"),
        (JOURNAL, "last_modified", "\x7f", "'last_modified' contains control characters"),
        (JOURNAL, "last_modified", "é", "the validator"),
        (JOURNAL, "boot", "\ud800", "'boot' contains control characters"),
        (JOURNAL, "pid_namespace", "\0", "'pid_namespace' contains control characters"),
    ],
)
def test_field_with_an_impossible_value_is_refused(record: Record, name: str, value: object, reason: str) -> None:
    assert reason in refusal(type(record), changed(record, **{name: value}))


def test_a_ref_of_a_file_on_the_hub_has_its_commit_and_etag() -> None:
    commit, etag = "c" * 40, "e" * 64
    ref = replace(REF, source=Source("hf://org/model/x.bin"), commit=commit, etag=etag)

    assert fields_of(ref) == fields_of(REF) | {"source": "hf://org/model@main/x.bin", "commit": commit, "etag": etag}
    assert ref.pinned_source == Source(f"hf://org/model@{commit}/x.bin")
    assert replace(ref, commit="").pinned_source is None
    assert REF.pinned_source is None


def test_store_of_a_later_layout_is_refused_before_its_new_fields_are_looked_at() -> None:
    assert "use a newer weightstore or another directory" in refusal(StoreInfo, b'{"layout": 2, "new": true}')


def test_journal_of_a_file_of_unknown_length_has_no_total() -> None:
    journal = Journal.parse(changed(JOURNAL, total=None), place=PLACE)

    assert journal.total is None
    assert fields_of(journal)["total"] is None


def test_whole_part_is_a_sound_journal() -> None:
    assert Journal.parse(changed(JOURNAL, offset=10), place=PLACE).offset == 10


def test_time_of_a_ref_is_read_in_any_zone() -> None:
    ref = Ref.parse(changed(REF, seen_at="2024-01-31T14:00:00+02:00"), place=PLACE)

    assert ref.seen_at == REF.seen_at
    assert ref.encode() == REF.encode()


def test_records_write_no_credentials() -> None:
    secret = Source("https://user:s3cret@host/x?token=s3cret")

    ref = Ref(secret, REF.digest, 1, REF.seen_at)
    journal = Journal(secret, Pin(), None, Validator(), 0, REF.digest, JOURNAL.owner)

    assert b"s3cret" not in ref.encode() + journal.encode()


# -- small values -----------------------------------------------------------------------------------------------------


def test_validator_prefers_the_strong_etag() -> None:
    assert Validator('"a"', "date").if_range == '"a"'
    assert Validator("", "date").if_range == "date"
    assert Validator().if_range == ""
    assert [bool(one) for one in (Validator('"a"'), Validator("", "date"), Validator())] == [True, True, False]


@pytest.mark.parametrize(
    ("one", "other", "contradict"),
    [
        (Validator('"a"', "d"), Validator('"a"', "d"), False),
        (Validator('"a"', "d"), Validator('"b"', "d"), True),
        (Validator('"a"', "d"), Validator('"a"', "e"), False),  # the ETag decides where both have one
        (Validator('"a"'), Validator("", "d"), False),
        (Validator("", "d"), Validator("", "e"), True),
        (Validator("", "d"), Validator("", "d"), False),
        (Validator('"a"', "d"), Validator("", "e"), True),
        (Validator('"a"', "d"), Validator(), False),
        (Validator(), Validator(), False),
    ],
)
def test_validators_contradict_where_both_name_another_version(
    one: Validator, other: Validator, *, contradict: bool
) -> None:
    assert one.contradicts(other) is contradict
    assert other.contradicts(one) is contradict


def test_owner_is_shown_as_a_process_on_its_host() -> None:
    assert str(Owner("node1", 42)) == "process 42 on node1"
    assert str(Owner("", 42)) == "process 42 on an unnamed host"


def test_only_a_counted_size_is_exact() -> None:
    source, mirror = Source("https://host/x"), Source("https://mirror/x")

    assert Wanted("x", source, Pin(), size=5, size_is_exact=True).exact_size == 5
    assert Wanted("x", source, Pin(), size=5).exact_size is None
    assert Wanted("x", source, Pin(), alternatives=(mirror,)).sources == (source, mirror)


@pytest.mark.parametrize(("via", "key"), [("signed", ""), ("signed", "AB" * 32), ("origin", "ab" * 32)])
def test_the_key_of_whoever_signed_it_stands_in_what_was_signed_and_nowhere_else(via: str, key: str) -> None:
    assert "'key' is not that of whoever signed it" in refusal(Ref, changed(REF, via=via, key=key))
