"""The books of a ranged download: every byte is handed out once, and the frontier never runs ahead."""

from __future__ import annotations

import itertools
import threading

from hypothesis import given
from hypothesis import strategies as st

from weightstore.transfer.extents import MAX_CHUNK, MIN_CHUNK, Chunk, Extents

MOVES = st.lists(
    st.tuples(st.sampled_from(["claim", "follow", "advance", "return"]), st.integers(0, 2**16)), max_size=80
)


def test_chunks_come_in_order_and_within_their_bounds() -> None:
    books = Extents(10, 500 << 20)
    position = 10
    while (chunk := books.claim(workers=4)) is not None:
        assert chunk.position == position
        assert chunk.left <= MAX_CHUNK
        position = chunk.end
    assert position == 500 << 20


def test_chunks_shrink_towards_the_end_but_not_below_the_smallest() -> None:
    books = Extents(0, 100 << 20)
    sizes = []
    while (chunk := books.claim(workers=4)) is not None:
        sizes.append(chunk.left)
    assert sizes == sorted(sizes, reverse=True)
    assert min(sizes[:-1]) >= MIN_CHUNK


def test_one_byte_beyond_a_chunk_is_a_chunk() -> None:
    books = Extents(0, MIN_CHUNK + 1)
    assert [books.claim(workers=8), books.claim(workers=8)] == [
        Chunk(0, MIN_CHUNK),
        Chunk(MIN_CHUNK, MIN_CHUNK + 1),
    ]


def test_what_is_returned_is_handed_out_again_from_the_front() -> None:
    books = Extents(0, 3 * MIN_CHUNK)
    first, second = books.claim(workers=8), books.claim(workers=8)
    assert first is not None
    assert second is not None
    books.give_back(second)
    books.give_back(first)
    assert books.claim(workers=8) == first
    assert books.claim(workers=8) == second


def test_a_receiving_worker_goes_on_into_the_next_chunk_while_it_is_free() -> None:
    books = Extents(0, 3 * MIN_CHUNK)
    first = books.claim(workers=8)
    assert first is not None
    following = books.claim_at(first.end, workers=8)
    assert following == Chunk(MIN_CHUNK, 2 * MIN_CHUNK)


def test_a_receiving_worker_does_not_get_a_chunk_that_is_taken() -> None:
    books = Extents(0, 3 * MIN_CHUNK)
    first = books.claim(workers=8)
    books.claim(workers=8)
    assert first is not None
    assert books.claim_at(first.end, workers=8) is None


def test_a_receiving_worker_goes_on_into_a_returned_chunk() -> None:
    """Its stream delivers those bytes anyway, and whoever returned them may have been refused."""
    books = Extents(0, 3 * MIN_CHUNK)
    first, second = books.claim(workers=8), books.claim(workers=8)
    assert first is not None
    assert second is not None
    books.give_back(second)
    assert books.claim_at(first.end, workers=8) == second
    assert books.claim_at(first.end, workers=8) is None


def test_nothing_is_handed_out_after_the_stop() -> None:
    books = Extents(0, 3 * MIN_CHUNK)
    books.stop()
    assert books.is_stopped()
    assert books.claim(workers=1) is None
    assert books.claim_at(0, workers=1) is None


def test_a_waiter_sees_the_frontier_move() -> None:
    books = Extents(0, MIN_CHUNK)
    chunk = books.claim(workers=1)
    assert chunk is not None
    seen: list[int] = []
    waiter = threading.Thread(target=lambda: seen.append(books.wait_beyond(0)))
    waiter.start()
    books.advance(chunk, 5)
    waiter.join(timeout=5)
    assert seen == [5]


def test_a_waiter_is_woken_by_the_stop() -> None:
    books = Extents(7, MIN_CHUNK)
    books.claim(workers=1)
    seen: list[int] = []
    waiter = threading.Thread(target=lambda: seen.append(books.wait_beyond(7)))
    waiter.start()
    books.stop()
    waiter.join(timeout=5)
    assert seen == [7]


@given(start=st.integers(0, 50), size=st.integers(0, 2000), workers=st.integers(1, 9), moves=MOVES)
def test_any_interleaving_covers_each_byte_once(
    start: int, size: int, workers: int, moves: list[tuple[str, int]]
) -> None:
    scale = MIN_CHUNK // 16
    total = (start + size) * scale + size % 7
    books = Extents(start * scale, total)
    written: list[tuple[int, int]] = []
    active: list[Chunk] = []
    frontier = books.frontier

    def check() -> None:
        nonlocal frontier
        now = books.frontier
        assert now >= frontier, "the frontier never moves back"
        frontier = now
        spans = sorted([(one.position, one.end) for one in active] + written)
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans)), "an overlap"
        assert _covered(start * scale, now, written), "the frontier runs ahead of what is written"

    def advance(chunk: Chunk, count: int) -> None:
        written.append((chunk.position, chunk.position + count))
        books.advance(chunk, count)
        if not chunk.left:
            active.remove(chunk)

    for move, number in moves:
        chosen = active[number % len(active)] if active else None
        if move == "claim" and len(active) < workers:
            claimed = books.claim(workers=workers)
            if claimed is not None:
                active.append(claimed)
        elif move == "follow":
            position = written[-1][1] if written else start * scale
            claimed = books.claim_at(position, workers=workers)
            if claimed is not None:
                assert claimed.position == position
                active.append(claimed)
        elif move == "advance" and chosen is not None:
            advance(chosen, max(1, chosen.left * (number % 101) // 100))
        elif move == "return" and chosen is not None:
            active.remove(chosen)
            books.give_back(chosen)
        check()
    for chunk in list(active):
        advance(chunk, chunk.left)
    while (chunk := books.claim(workers=workers)) is not None:
        active.append(chunk)
        advance(chunk, chunk.left)
        check()
    assert books.frontier == max(total, start * scale)
    assert sum(end - begin for begin, end in written) == total - start * scale == books.received


def _covered(start: int, frontier: int, written: list[tuple[int, int]]) -> bool:
    reached = start
    for begin, end in sorted(written):
        if begin > reached:
            break
        reached = max(reached, end)
    return reached >= frontier
