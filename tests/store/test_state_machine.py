"""The store as a state machine: whatever is done to it, what it hands out is what the digest says."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.store.conftest import damage, digest_of, gone, journal_of, leave_part
from weightstore.digest import Digest
from weightstore.store.gc import plan_removals, remove, take_inventory
from weightstore.store.layers import find_blob, open_layers
from weightstore.store.layout import create_layout
from weightstore.store.parts import Part, take_over
from weightstore.store.publish import publish
from weightstore.store.receipts import Receipts
from weightstore.store.verify import verify_store

CONTENTS = [bytes([65 + number]) * (20 * number + 1) for number in range(5)]
contents = st.sampled_from(CONTENTS)


def key_of(data: bytes) -> str:
    return f"sha256-{digest_of(data).hex}"


class StoreMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp())
        self.layout = create_layout(self.place / "store")
        self.users = [Receipts(self.place / "ada"), Receipts(self.place / "ben")]
        self.good: set[Digest] = set()
        self.damaged: set[Digest] = set()

    def teardown(self) -> None:
        shutil.rmtree(self.place)

    @rule(data=contents, user=st.integers(0, 1))
    def publish_it(self, data: bytes, user: int) -> None:
        part = Part.create(self.layout, key_of(data))
        os.write(part.fd, data)
        publish(part, digest_of(data), size=len(data), receipts=self.users[user])
        self.good.add(digest_of(data))
        self.damaged.discard(digest_of(data))

    @rule(data=contents, extra=st.binary(max_size=10))
    def damage_it(self, data: bytes, extra: bytes) -> None:
        digest = digest_of(data)
        if digest in self.good:
            damage(self.layout.blob(digest), data[1:] + extra + b"!!")
            self.good.discard(digest)
            self.damaged.add(digest)

    @rule(data=contents)
    def lose_it(self, data: bytes) -> None:
        self.layout.blob(digest_of(data)).unlink(missing_ok=True)
        self.good.discard(digest_of(data))
        self.damaged.discard(digest_of(data))

    @rule(data=contents, user=st.integers(0, 1))
    def read_it(self, data: bytes, user: int) -> None:
        digest = digest_of(data)
        layers = open_layers(self.layout.root, [], note=_fail)
        hit = find_blob(digest, layers, self.users[user], note=lambda _: None)
        assert (hit is not None) == (digest in self.good)
        if hit is not None:
            with hit.blob as blob:
                assert os.pread(blob.fd, len(data) + 10, 0) == data
        self.damaged.discard(digest)  # found out, and put aside

    @rule(data=contents, part=st.floats(0, 1))
    def die_while_downloading(self, data: bytes, part: float) -> None:
        offset = int(part * len(data))
        leave_part(self.layout, data, journal=journal_of(data, offset=offset, owner=gone()), key=key_of(data))

    @rule(data=contents, user=st.integers(0, 1))
    def resume(self, data: bytes, user: int) -> None:
        for part, journal, _ in take_over(self.layout, key_of(data), stall_s=60):
            os.pwrite(part.fd, data[journal.offset :], journal.offset)
            actual = hashlib.sha256(os.pread(part.fd, len(data) + 1, 0)).hexdigest()
            assert actual == digest_of(data).hex
            publish(part, digest_of(data), size=len(data), receipts=self.users[user])
            self.good.add(digest_of(data))
            self.damaged.discard(digest_of(data))

    @rule()
    def verify(self) -> None:
        checked = verify_store(self.layout, self.users[0], workers=1)
        assert {one.digest for one in checked if one.verdict == "good"} == self.good
        assert {one.digest for one in checked if one.verdict == "damaged"} == self.damaged
        self.damaged.clear()

    @rule(keep=st.sets(contents), limit=st.none() | st.integers(0, 200))
    def collect(self, keep: set[bytes], limit: int | None) -> None:
        kept = frozenset(digest_of(data) for data in keep)
        plan = plan_removals(take_inventory(self.layout, self.users[0]), keep=kept, grace_s=0, max_size=limit)
        outcomes = remove(self.layout, plan)
        assert not [outcome for outcome in outcomes if outcome.problem]
        removed = {outcome.removal.file.digest for outcome in outcomes}
        assert not removed & kept
        self.good -= removed  # type: ignore[arg-type]
        self.damaged -= removed  # type: ignore[arg-type]

    @invariant()
    def what_stands_under_a_name_is_right_unless_we_damaged_it(self) -> None:
        for path in self.layout.blobs.iterdir():
            digest = Digest(path.name)
            right = digest_of(path.read_bytes()) == digest
            assert right == (digest in self.good)
            assert digest in self.good | self.damaged


def _fail(message: str) -> None:
    raise AssertionError(message)


TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
