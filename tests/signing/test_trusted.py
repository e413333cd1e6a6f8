"""Signed indexes: what a mirror that lies can do (old, expired, wrong key, other bytes), which is nothing."""

from __future__ import annotations

import hashlib
import json
import shutil
import stat
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.servers import behaviours as does
from tests.servers.hostile import HostileServer
from tests.signing.test_sshsig import KEY, KEY_TEXT, private_file
from weightstore.client import Client
from weightstore.cluster.index import build_index, make_entry, model_index, write_index
from weightstore.cluster.mirror.directory import Directory
from weightstore.cluster.mirror.signature import carry
from weightstore.cluster.renewal import index_there, renewed_index
from weightstore.cluster.sign import sign_mirror, signing_with
from weightstore.config import Config
from weightstore.digest import Digest, Pin
from weightstore.errors import (
    BlobDamaged,
    DigestMismatch,
    InvalidConfig,
    InvalidInput,
    InvalidRecord,
    NotPresent,
    RefusedResponse,
    StoreError,
    TransferError,
    UntrustedIndex,
)
from weightstore.records import Ref, Wanted
from weightstore.signing.document import SIGNATURE, SIGNED_INDEX, SignedEntry, SignedIndex, verified
from weightstore.signing.signers import parse_signers
from weightstore.signing.sshsig import armoured, signed_bytes
from weightstore.signing.trusted import signed_index
from weightstore.source import Source
from weightstore.store.layout import open_layout
from weightstore.store.receipts import Receipts
from weightstore.store.refs import read_ref, write_ref
from weightstore.transfer.file import FileTransport
from weightstore.transfer.transports import Transports

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
SIGNERS = parse_signers(f"ada@example.org ssh-ed25519 {KEY_TEXT}\n".encode(), place="signers")
DATA = b"weights " * 5000
DIGEST = Digest(hashlib.sha256(DATA).hexdigest())
OTHER = Ed25519PrivateKey.from_private_bytes(b"o" * 32)


def index_of(*, version=5, expires=NOW + timedelta(days=1), digest=DIGEST, source="https://example.org/w.pth"):
    return SignedIndex(version, expires, (SignedEntry(Source(source), digest, len(DATA), "lab/W.A"),))


def signed(index, *, key=KEY, namespace="weightstore-index"):
    document = index.encode()
    proof = key.sign(signed_bytes(document, namespace))
    return document, armoured(key.public_key().public_bytes_raw(), namespace, proof)


def put(directory, documents):
    directory.mkdir(exist_ok=True)
    (directory / SIGNED_INDEX).write_bytes(documents[0])
    (directory / SIGNATURE).write_bytes(documents[1])


def read(directory, state, *, now=NOW):
    return signed_index(Source.of_path(directory), signers=SIGNERS, state=state, transport=FileTransport(), now=now)


# -- the document ---------------------------------------------------------------------------------------------------


def test_the_document_reads_what_it_writes():
    index = index_of()
    assert SignedIndex.parse(index.encode(), place="here") == index


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"format": 2}, "format 2"),
        ({"version": 0}, "positive"),
        ({"version": True}, "not int"),
        ({"version": 1 << 60}, "positive"),
        ({"expires": "soon"}, "expires"),
        ({"expires": "2026-06-01T12:00:00"}, "time zone"),
        ({"more": 1}, "unknown field"),
        ({"entries": [1]}, "objects"),
    ],
)
def test_a_document_that_is_not_as_it_should_be_is_refused(change, why):
    values = json.loads(index_of().encode()) | change
    with pytest.raises(InvalidRecord, match=why):
        SignedIndex.parse(json.dumps(values).encode(), place="here")


def test_a_source_with_two_digests_is_refused():
    values = json.loads(index_of().encode())
    values["entries"] *= 2
    with pytest.raises(InvalidRecord, match="twice"):
        SignedIndex.parse(json.dumps(values).encode(), place="here")


@pytest.mark.parametrize(
    ("documents", "why"),
    [
        (signed(index_of(), key=OTHER), "nobody in allowed_signers has the key SHA256:"),
        (signed(index_of(), namespace="file"), "signed for 'file'"),
        ((index_of(version=6).encode(), signed(index_of())[1]), "not of this text"),
        ((signed(index_of())[0][:-2], signed(index_of())[1]), "not of this text"),
        ((b"", signed(index_of())[1]), "not of this text"),
        ((signed(index_of())[0], b"hello"), "not an SSH signature"),
        (signed(index_of(expires=NOW)), "it expired at 2026-06-01T12:00:00Z"),
        (signed(index_of(version=4)), "its version is 4, and 5 was seen before"),
    ],
)
def test_what_is_not_to_be_believed_says_why(documents, why):
    with pytest.raises(UntrustedIndex, match=why):
        verified(*documents, signers=SIGNERS, now=NOW, highest=5, place="/mirror")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ('namespaces="git"', "may not sign for"),
        ('valid-before="20260101Z"', "not valid now"),
        ('valid-after="20270101Z"', "not valid now"),
    ],
)
def test_a_key_signs_only_for_what_and_while_it_may(options, why):
    mine = parse_signers(f"ada {options} ssh-ed25519 {KEY_TEXT}\n".encode(), place="signers")
    with pytest.raises(UntrustedIndex, match=why):
        verified(*signed(index_of()), signers=mine, now=NOW, highest=0, place="/mirror")


def test_a_signed_document_that_does_not_parse_is_not_believed_either():
    document = b'{"format": 1}'
    proof = armoured(SIGNERS[0].key, "weightstore-index", KEY.sign(signed_bytes(document, "weightstore-index")))
    with pytest.raises(UntrustedIndex, match="'version' is missing"):
        verified(document, proof, signers=SIGNERS, now=NOW, highest=0, place="/mirror")


# -- a mirror's, and what was seen before ---------------------------------------------------------------------------


def test_an_older_index_is_refused_once_a_newer_one_was_seen(tmp_path):
    mirror, state = tmp_path / "mirror", tmp_path / "state"
    put(mirror, signed(index_of(version=7)))
    assert read(mirror, state).index.version == 7
    put(mirror, signed(index_of(version=6)))
    with pytest.raises(UntrustedIndex, match="somebody serves an old one"):
        read(mirror, state)
    put(mirror, signed(index_of(version=7)))
    assert read(mirror, state).signer.name == "ada@example.org"


def test_what_was_refused_is_not_remembered(tmp_path):
    mirror, state = tmp_path / "mirror", tmp_path / "state"
    put(mirror, signed(index_of(version=99), key=OTHER))
    with pytest.raises(UntrustedIndex):
        read(mirror, state)
    put(mirror, signed(index_of(version=1)))
    assert read(mirror, state).index.version == 1


def test_a_mirror_without_one_says_nothing_and_one_that_lost_it_is_told_of(tmp_path):
    mirror, state = tmp_path / "mirror", tmp_path / "state"
    mirror.mkdir()
    assert read(mirror, state) is None
    put(mirror, signed(index_of()))
    read(mirror, state)
    (mirror / SIGNED_INDEX).unlink()
    with pytest.raises(UntrustedIndex, match="took it away"):
        read(mirror, state)


def test_what_is_remembered_is_the_users_own_and_damage_to_it_is_told(tmp_path):
    mirror, state = tmp_path / "mirror", tmp_path / "state"
    put(mirror, signed(index_of()))
    read(mirror, state)
    (remembered,) = (state / "mirrors").iterdir()
    assert stat.S_IMODE(remembered.stat().st_mode) == 0o600
    remembered.write_text("{}")
    with pytest.raises(InvalidRecord, match=str(remembered)):
        read(mirror, state)


def test_an_endless_index_and_one_that_drips_are_given_up(tmp_path, config):
    with HostileServer() as server:
        document, signature = signed(index_of())
        server.serve(f"/m/{SIGNATURE}", signature)
        server.serve(f"/m/{SIGNED_INDEX}", document * 200, [does.drip(2000)])
        transport = Transports(config).transport_for(Source(server.url("/m")))
        arguments = {"signers": SIGNERS, "state": config.state, "transport": transport, "now": NOW}
        with pytest.raises(RefusedResponse, match="takes longer"):
            signed_index(Source(server.url("/m")), **arguments, longest_s=0.2)
        server.serve(f"/n/{SIGNATURE}", b"x" * 100_000)
        with pytest.raises(RefusedResponse, match="more than 16384 bytes"):
            signed_index(Source(server.url("/n")), **arguments)


def test_the_moment_between_the_two_files_is_waited_out(tmp_path, config):
    old, new = signed(index_of(version=1)), signed(index_of(version=2))
    mirror = tmp_path / "mirror"
    put(mirror, (new[0], old[1]))

    class Replacing(FileTransport):
        opened = 0

        def open(self, source, **rest):
            self.opened += 1
            if self.opened == 3:  # both were read, and do not belong together
                put(mirror, new)
            return super().open(source, **rest)

    believed = signed_index(
        Source.of_path(mirror), signers=SIGNERS, state=tmp_path / "state", transport=Replacing(), now=NOW
    )
    assert believed.index.version == 2


# -- signing a mirror -----------------------------------------------------------------------------------------------


@pytest.fixture
def kept(tmp_path):
    """A mirror of one file, with its index; and the source that it is of, which is not there any more."""
    (tmp_path / "w.pth").write_bytes(DATA)
    client = Client(Config(home=tmp_path / "mirror", state=tmp_path / "keepers-state"))
    client.prefetch([f"{tmp_path}/w.pth"])
    layout = open_layout(tmp_path / "mirror")
    for name in ("w", f"w-{DIGEST.hex[:8]}"):
        write_ref(layout, Ref(Source(f"https://gone.invalid/{name}.pth"), DIGEST, len(DATA), NOW))
    write_index(layout, build_index(layout, []), receipts=client.receipts)
    return tmp_path / "mirror"


def signed_by_the_keeper(kept, tmp_path, *, now=None, days=30, key=KEY):
    now = now or datetime.now(UTC)
    return sign_mirror(
        kept,
        make_signature=signing_with(private_file(tmp_path, key)),
        now=now,
        expires=now + timedelta(days=days),
        receipts=Receipts(tmp_path / "keepers-state"),
    )


def test_signing_again_makes_a_higher_version_and_both_files(kept, tmp_path):
    first = signed_by_the_keeper(kept, tmp_path)
    second = signed_by_the_keeper(kept, tmp_path)
    assert second.index.version > first.index.version
    assert {entry.source.display for entry in second.index.entries} == {
        "https://gone.invalid/w.pth",
        f"https://gone.invalid/w-{DIGEST.hex[:8]}.pth",
    }
    assert read(kept, tmp_path / "state", now=datetime.now(UTC)).index == second.index


def test_a_mirror_whose_blob_is_damaged_is_not_signed(kept, tmp_path):
    blob = kept / "blobs/sha256" / DIGEST.hex
    blob.chmod(0o644)
    blob.write_bytes(DATA[::-1])
    with pytest.raises(BlobDamaged, match=f"weightstore --home {kept} verify --repair"):
        signed_by_the_keeper(kept, tmp_path)
    blob.unlink()
    with pytest.raises(StoreError, match=f"not there.*weightstore --home {kept} mirror index"):
        signed_by_the_keeper(kept, tmp_path)
    assert not (kept / SIGNED_INDEX).exists()


def test_a_store_without_an_index_is_told_what_to_do(kept, tmp_path):
    (kept / "index.json").unlink()
    with pytest.raises(InvalidInput, match="mirror index"):
        signed_by_the_keeper(kept, tmp_path)


def test_what_the_signers_own_store_does_not_believe_is_not_signed_for(kept, tmp_path):
    layout = open_layout(kept)
    key = OTHER.public_key().public_bytes_raw().hex()
    by_another, by_a_mirror = Source("https://gone.invalid/a.pth"), Source("https://gone.invalid/m.pth")
    write_ref(layout, Ref(by_another, DIGEST, len(DATA), NOW, "signed", key=key))
    write_ref(layout, Ref(by_a_mirror, DIGEST, len(DATA), NOW, "mirror"))
    write_ref(layout, Ref(Source(f"https://gone.invalid/m-{DIGEST.hex[:8]}.pth"), DIGEST, len(DATA), NOW, "mirror"))
    (tmp_path / "signers").write_text(f"ada@example.org ssh-ed25519 {KEY_TEXT}\n")
    client = Client(Config(home=kept, state=tmp_path / "keepers-state", allowed_signers=tmp_path / "signers"))
    now = datetime.now(UTC)
    make_signature = signing_with(private_file(tmp_path, KEY))

    def signed():
        return sign_mirror(
            kept,
            make_signature=make_signature,
            now=now,
            expires=now + timedelta(days=1),
            receipts=client.receipts,
            counts=client.obtainer.counts,
        )

    (entry,) = index_there(layout).entries
    made, documents = make_entry(entry.digest, entry.size, sources=[*entry.sources, by_another, by_a_mirror])
    write_index(layout, model_index([made], documents=documents), receipts=client.receipts)
    first = signed()  # of an index that somebody else wrote
    left_out = dict(first.left_out)
    assert "your allowed_signers does not allow" in left_out[by_another]
    assert "no word of the source" in left_out[by_a_mirror]
    assert not {by_another, by_a_mirror} & set(first.index.by_source)
    write_index(layout, build_index(layout, [], counts=client.obtainer.counts), receipts=client.receipts)
    assert set(first.index.by_source) < set(signed().index.by_source)  # the pin in its name vouches for the other one
    renewed = renewed_index(layout, [], note=pytest.fail, counts=client.obtainer.counts)
    assert not {by_another, by_a_mirror} & set(renewed.by_source)


# -- using it -------------------------------------------------------------------------------------------------------


@pytest.fixture
def notes():
    return []


@pytest.fixture
def user(kept, tmp_path, notes):
    """Make a user of some mirrors who believes Ada."""
    (tmp_path / "signers").write_text(f"ada@example.org ssh-ed25519 {KEY_TEXT}\n")

    def make(*mirrors, **changes):
        config = Config(
            home=tmp_path / "users",
            state=tmp_path / "users-state",
            mirrors=tuple(Source.of_path(one) for one in mirrors or (kept,)),
            allowed_signers=tmp_path / "signers",
            retries=0,
            connect_timeout_s=2,
        )
        return Client(config.but(**changes), note=notes.append)

    return make


SOURCE = Source("https://gone.invalid/w.pth")
PREFIXED = Source(f"https://gone.invalid/w-{DIGEST.hex[:8]}.pth")


@pytest.mark.parametrize("wanted", [Wanted("w", SOURCE, Pin()), Wanted("p", PREFIXED, Pin(DIGEST.hex[:8]))])
def test_an_unpinned_source_comes_from_a_mirror_whose_index_is_signed(wanted, kept, tmp_path, user, notes):
    signed_by_the_keeper(kept, tmp_path)
    client = user(offline=True)  # a directory is no network
    assert client.path(wanted).read_bytes() == DATA
    assert client.path(wanted).read_bytes() == DATA
    assert notes == []


def expire(state):
    """Have what a user remembers of signed indexes expire."""
    (remembered,) = (state / "signed").iterdir()
    claim = json.loads(remembered.read_text())
    remembered.write_text(json.dumps(claim | {"expires": "2026-01-01T00:00:00Z"}))


def test_what_was_fetched_by_a_signature_is_found_without_the_mirror_when_it_has_expired_too(kept, tmp_path, user):
    signed_by_the_keeper(kept, tmp_path)
    wanted = Wanted("w", SOURCE, Pin())
    path = user().path(wanted)
    without = user(mirrors=(), offline=True)
    expire(tmp_path / "users-state")
    assert without.path(wanted, fetch=False) == path
    assert without.why(wanted).known_by == "ref"
    assert without.why(wanted).is_signed
    with pytest.raises(NotPresent):
        without.path(Wanted("w", SOURCE, Pin("0" * 64)), fetch=False)


def test_another_user_of_the_store_finds_what_one_has_fetched_by_a_signature(kept, tmp_path, user):
    signed_by_the_keeper(kept, tmp_path)
    wanted = Wanted("w", SOURCE, Pin())
    path = user().path(wanted)
    others = {"mirrors": (), "offline": True, "state": tmp_path / "another-state"}
    assert user(**others).path(wanted) == path
    assert user(**others, allowed_signers=None).path(wanted) == path
    assert user(**others, trust="pinned").path(wanted) == path


def test_a_record_by_a_key_that_a_user_does_not_allow_is_told_and_does_not_count(kept, tmp_path, user):
    signed_by_the_keeper(kept, tmp_path)
    wanted = Wanted("w", SOURCE, Pin())
    user().path(wanted)
    (tmp_path / "my-signers").write_text("# nobody\n")
    mine = user(mirrors=(), offline=True, state=tmp_path / "my-state", allowed_signers=tmp_path / "my-signers")
    with pytest.raises(NotPresent) as caught:
        mine.path(wanted)
    assert f"{DIGEST} is here, known from an index that the key SHA256:" in str(caught.value)
    assert "is not in the store" not in str(caught.value)
    (step, *_) = mine.why(wanted).steps
    assert "which your allowed_signers does not allow" in step.answer


def test_what_was_signed_before_of_what_is_here_is_recorded_when_it_is_asked_for(kept, tmp_path, user):
    signed_by_the_keeper(kept, tmp_path)
    path = user().path(Wanted("w", SOURCE, Pin.of(DIGEST)))  # by digest: nobody has said anything of the source yet
    wanted = Wanted("w", SOURCE, Pin())
    with pytest.raises(NotPresent, match="a mirror gave it where somebody knew the digest"):
        user(mirrors=(), offline=True).path(wanted)
    user().prefetch([wanted])
    expire(tmp_path / "users-state")
    assert user(mirrors=(), offline=True).path(wanted) == path


def test_what_has_expired_is_told_with_whoever_signed_it_and_when(kept, tmp_path, user):
    signed_by_the_keeper(kept, tmp_path)
    wanted = Wanted("w", SOURCE, Pin())
    user().path(wanted)
    for ref in (tmp_path / "users/refs").iterdir():
        ref.unlink()  # as of a store that could not be written
    expire(tmp_path / "users-state")
    without = user(mirrors=(), offline=True)
    told = "known from the index that ada@example.org signed, which expired on 2026-01-01T00:00:00Z"
    with pytest.raises(NotPresent, match=told):
        without.path(wanted)
    assert any(told in step.answer for step in without.why(wanted).steps)


def test_what_the_origin_serves_is_a_better_word_than_what_was_signed(kept, tmp_path, user, layout):
    signed = Ref(SOURCE, DIGEST, 3, NOW, "signed", key="ab" * 32)
    for ref, kept_via in ((replace(signed, via="mirror", key=""), "mirror"), (signed, "signed"), (signed, "signed")):
        write_ref(layout, ref)
        assert read_ref(layout, SOURCE).via == kept_via
    write_ref(layout, replace(signed, via="mirror", key="", digest=Digest("0" * 64)))
    assert read_ref(layout, SOURCE) == signed
    write_ref(layout, replace(signed, via="origin", key=""))
    write_ref(layout, replace(signed, digest=Digest("0" * 64)))
    assert (read_ref(layout, SOURCE).via, read_ref(layout, SOURCE).digest) == ("origin", DIGEST)


@pytest.mark.parametrize("via", ["signed", "adopted"])
def test_what_counts_takes_the_place_of_what_a_key_signed_that_does_not(layout, via):
    revoked = Ref(SOURCE, DIGEST, 3, NOW, "signed", key="ab" * 32)
    write_ref(layout, revoked)
    later = replace(revoked, via=via, key="cd" * 32 if via == "signed" else "")
    write_ref(layout, later)
    assert read_ref(layout, SOURCE) == revoked
    write_ref(layout, later, counts=lambda ref: ref.key != revoked.key)
    assert read_ref(layout, SOURCE) == later


def test_a_key_that_follows_another_keeps_what_was_fetched_where_it_can_be_found(kept, tmp_path, user):
    wanted = Wanted("w", SOURCE, Pin())
    signed_by_the_keeper(kept, tmp_path)
    path = user().path(wanted)
    (tmp_path / "signers").write_text(parsed_line(OTHER))
    signed_by_the_keeper(kept, tmp_path, key=OTHER)
    assert user().path(wanted) == path
    expire(tmp_path / "users-state")
    assert user(mirrors=(), offline=True).path(wanted, fetch=False) == path
    ref = read_ref(open_layout(tmp_path / "users"), SOURCE)
    assert (ref.via, ref.key) == ("signed", OTHER.public_key().public_bytes_raw().hex())


def parsed_line(key):
    text = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    return f"bob@example.org {text}\n"


def sign_that(kept, tmp_path, *entries, version, key=KEY):
    """Sign other entries than the mirror's index has, as its next word."""
    expires = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    document = SignedIndex(version, expires, entries).encode()
    make_signature = signing_with(private_file(tmp_path, key))
    put(kept, (document, make_signature(document)))


def test_a_newer_word_of_the_same_key_counts_and_not_what_is_remembered(kept, tmp_path, user):
    bad = Digest("e" * 64)
    wanted = Wanted("w", SOURCE, Pin())
    sign_that(kept, tmp_path, SignedEntry(SOURCE, bad, len(DATA), ""), version=1)
    assert user().obtainer.believed(wanted, asking=True, remembering=True).digest == bad
    sign_that(kept, tmp_path, SignedEntry(SOURCE, DIGEST, len(DATA), ""), version=2)
    assert user().path(wanted).read_bytes() == DATA
    assert user(mirrors=(), offline=True).obtainer.believed(wanted).digest == DIGEST


def test_what_the_same_key_says_no_more_is_remembered_no_more(kept, tmp_path, user):
    wanted = Wanted("w", SOURCE, Pin())
    sign_that(kept, tmp_path, SignedEntry(SOURCE, DIGEST, len(DATA), ""), version=1)
    assert user().obtainer.believed(wanted, asking=True, remembering=True).digest == DIGEST
    gone = tmp_path / "gone"
    kept.rename(gone)  # a mirror that cannot be read says nothing against it
    assert user().obtainer.believed(wanted, asking=True, remembering=True).digest == DIGEST
    gone.rename(kept)
    sign_that(kept, tmp_path, SignedEntry(PREFIXED, DIGEST, len(DATA), ""), version=2)
    assert user().obtainer.believed(wanted, asking=True).digest is None
    assert user().obtainer.believed(wanted).digest == DIGEST  # nothing was to be remembered
    assert user().obtainer.believed(wanted, asking=True, remembering=True).digest is None
    assert user().obtainer.believed(wanted).digest is None


@pytest.fixture
def two_mirrors(kept, tmp_path):
    """A mirror that has the newer index of a key, by which the source has other content now; and one that lags."""
    lagging = tmp_path / "lagging"
    shutil.copytree(kept, lagging)
    new = Digest("e" * 64)
    sign_that(lagging, tmp_path, SignedEntry(SOURCE, DIGEST, len(DATA), ""), version=5)
    sign_that(kept, tmp_path, SignedEntry(SOURCE, new, len(DATA), ""), version=10)
    return lagging, kept, new


def test_of_two_indexes_of_one_key_the_newer_one_counts(two_mirrors, user):
    lagging, kept, new = two_mirrors
    wanted = Wanted("w", SOURCE, Pin())
    for order in ((lagging, kept), (kept, lagging)):
        assert user(*order).obtainer.believed(wanted, asking=True, remembering=True).digest == new
    assert user(mirrors=(), offline=True).obtainer.believed(wanted).digest == new


@pytest.mark.parametrize("says", ["something else", "nothing"])
def test_an_older_index_of_a_key_takes_back_nothing_that_a_newer_one_said(two_mirrors, tmp_path, user, says):
    lagging, kept, new = two_mirrors
    if says == "nothing":
        sign_that(lagging, tmp_path, SignedEntry(PREFIXED, DIGEST, len(DATA), ""), version=5)
    wanted = Wanted("w", SOURCE, Pin())
    assert user(kept).obtainer.believed(wanted, asking=True, remembering=True).digest == new
    kept.rename(tmp_path / "down")
    found = user(kept, lagging).obtainer.believed(wanted, asking=True, remembering=True)
    assert (found.digest, found.word.mirror) == (new, None)
    assert user(mirrors=(), offline=True).obtainer.believed(wanted).digest == new
    sign_that(lagging, tmp_path, SignedEntry(PREFIXED, DIGEST, len(DATA), ""), version=11)
    assert user(kept, lagging).obtainer.believed(wanted, asking=True, remembering=True).digest is None


def test_what_was_remembered_before_versions_were_is_older_than_any_index(kept, tmp_path, user):
    wanted = Wanted("w", SOURCE, Pin())
    sign_that(kept, tmp_path, SignedEntry(SOURCE, DIGEST, len(DATA), ""), version=1)
    user().obtainer.believed(wanted, asking=True, remembering=True)
    (remembered,) = (tmp_path / "users-state/signed").iterdir()
    claim = json.loads(remembered.read_text())
    assert claim.pop("index_version") == 1
    remembered.write_text(json.dumps(claim))
    assert user(mirrors=(), offline=True).obtainer.believed(wanted).digest == DIGEST
    sign_that(kept, tmp_path, SignedEntry(PREFIXED, DIGEST, len(DATA), ""), version=2)
    assert user().obtainer.believed(wanted, asking=True, remembering=True).digest is None
    remembered.write_text(json.dumps(claim | {"index_version": -1}))
    assert user(mirrors=(), offline=True).obtainer.believed(wanted).digest is None


def test_what_is_remembered_of_a_signer_who_is_trusted_no_more_is_not_believed(kept, tmp_path, user, notes):
    signed_by_the_keeper(kept, tmp_path)
    wanted = Wanted("w", SOURCE, Pin())
    user().path(wanted)
    (tmp_path / "signers").write_text("# nobody\n")
    with pytest.raises(NotPresent):
        user(mirrors=(), offline=True).path(wanted)
    (remembered,) = (tmp_path / "users-state/signed").iterdir()
    remembered.write_text("{}")
    with pytest.raises(NotPresent):
        user(mirrors=(), offline=True).path(wanted)
    assert any("record of what was signed" in note for note in notes)


def test_trust_pinned_takes_a_signature_for_a_pin(kept, tmp_path, user):
    signed_by_the_keeper(kept, tmp_path)
    assert user(trust="pinned", offline=True).path(Wanted("w", SOURCE, Pin())).read_bytes() == DATA


def test_without_allowed_signers_nobody_is_believed(kept, tmp_path, user):
    signed_by_the_keeper(kept, tmp_path)
    with pytest.raises(NotPresent):
        user(allowed_signers=None, offline=True).path(Wanted("w", SOURCE, Pin()))


def test_a_pin_that_disagrees_with_what_is_signed_is_not_served_it(kept, tmp_path, user):
    signed_by_the_keeper(kept, tmp_path)
    with pytest.raises(NotPresent):
        user(offline=True).path(Wanted("w", SOURCE, Pin("0" * 8)))
    with pytest.raises(NotPresent):
        user(offline=True).path(Wanted("w", SOURCE, Pin(), size=3, size_is_exact=True))


@pytest.mark.parametrize("lie", ["key", "expired", "old", "changed", "cut"])
def test_a_mirror_that_lies_is_told_of_once_and_believed_in_nothing(lie, kept, tmp_path, user, notes):
    now = datetime.now(UTC)
    if lie == "key":
        signed_by_the_keeper(kept, tmp_path, key=OTHER)
    elif lie == "expired":
        signed_by_the_keeper(kept, tmp_path, now=now - timedelta(days=40))
    else:
        signed_by_the_keeper(kept, tmp_path)
    if lie == "old":
        old = {name: (kept / name).read_bytes() for name in (SIGNED_INDEX, SIGNATURE)}
        signed_by_the_keeper(kept, tmp_path)
        read(kept, tmp_path / "users-state", now=now)  # the user has seen the newer one
        for name, data in old.items():
            (kept / name).chmod(0o644)
            (kept / name).write_bytes(data)
    elif lie in {"changed", "cut"}:
        document = (kept / SIGNED_INDEX).read_bytes()
        (kept / SIGNED_INDEX).chmod(0o644)
        changed = document.replace(DIGEST.hex.encode(), b"0" * 64) if lie == "changed" else document[:-30]
        (kept / SIGNED_INDEX).write_bytes(changed)
    client = user(offline=True)
    for source in (SOURCE, PREFIXED):
        with pytest.raises(NotPresent):
            client.path(Wanted("w", source, Pin()))
    (note,) = notes
    assert "is passed over" in note
    assert not (tmp_path / "users/blobs").exists()


def test_the_next_mirror_is_believed_when_the_first_lies(kept, tmp_path, user, notes):
    shutil.copytree(kept, tmp_path / "liar")
    signed_by_the_keeper(kept, tmp_path)
    signed_by_the_keeper(tmp_path / "liar", tmp_path, key=OTHER)
    assert user(tmp_path / "liar", kept, offline=True).path(Wanted("w", SOURCE, Pin())).read_bytes() == DATA
    assert len(notes) == 1


def test_a_signed_digest_with_other_bytes_under_it_publishes_nothing(kept, tmp_path, user):
    signed_by_the_keeper(kept, tmp_path)
    blob = kept / "blobs/sha256" / DIGEST.hex
    blob.chmod(0o644)
    blob.write_bytes(DATA[::-1])
    with pytest.raises(TransferError):
        user(order=("layers", "mirrors")).path(Wanted("w", SOURCE, Pin()))
    assert not list((tmp_path / "users/blobs/sha256").iterdir())


def test_an_origin_that_serves_something_else_than_was_signed_is_refused(kept, tmp_path, user):
    with HostileServer() as origin:
        url = origin.serve("/w.pth", b"something else")
        layout = open_layout(kept)
        write_ref(layout, Ref(Source(url), DIGEST, len(DATA), NOW))
        write_index(layout, build_index(layout, []), receipts=Receipts(tmp_path / "keepers-state"))
        signed_by_the_keeper(kept, tmp_path)
        (kept / "blobs/sha256" / DIGEST.hex).unlink()
        with pytest.raises(DigestMismatch):
            user().path(url)


def test_what_a_mirror_gives_first_and_then_no_more_is_not_kept_for_what_is_believed(kept, tmp_path, user):
    sign_that(kept, tmp_path, SignedEntry(SOURCE, DIGEST, len(DATA), ""), version=2, key=OTHER)
    by_a_stranger = {name: (kept / name).read_bytes() for name in (SIGNED_INDEX, SIGNATURE)}
    sign_that(kept, tmp_path, SignedEntry(SOURCE, DIGEST, len(DATA), ""), version=1)
    with HostileServer() as server:
        for name, other in by_a_stranger.items():
            server.serve(
                f"/{name}", (kept / name).read_bytes(), does.status(does.Reply(status=200, body=other), times=1)
            )
        client = user(mirrors=())
        home = Directory(tmp_path / "users", client.receipts)
        index = build_index(open_layout(kept), [])

        def carried():
            origin = Source(server.url("/"))
            return carry(origin, home, index, client=client, now=datetime.now(UTC), has_to_be_believed=True)

        assert "nobody in allowed_signers has the key" in carried().decision.reason
        assert not (tmp_path / "users" / SIGNED_INDEX).exists()
        assert carried().decision.status == "carried"
        assert (tmp_path / "users" / SIGNED_INDEX).read_bytes() == (kept / SIGNED_INDEX).read_bytes()


def test_over_http_the_index_is_read_once_for_many(kept, tmp_path, user):
    signed_by_the_keeper(kept, tmp_path)
    with HostileServer() as server:
        server.serve_directory(kept)
        client = user(mirrors=(Source(server.url("")),))
        for source in (SOURCE, PREFIXED):
            assert client.path(Wanted("w", source, Pin())).read_bytes() == DATA
        asked = [request.path for request in server.requests]
    assert asked.count(f"/{SIGNED_INDEX}") == 1
    assert asked.count(f"/{SIGNATURE}") == 1


def test_a_file_of_signers_that_cannot_be_read_is_an_error(kept, tmp_path, user):
    signed_by_the_keeper(kept, tmp_path)
    (tmp_path / "signers").write_text("nonsense\n")
    with pytest.raises(InvalidConfig, match="line 1"):
        user(offline=True).path(Wanted("w", SOURCE, Pin()))
