"""How mirrors fare: told of once, asked last, not asked at all, and anew after a while; in other processes, too."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from weightstore.digest import Digest
from weightstore.errors import DigestMismatch, SourceNotFound, SourceUnavailable
from weightstore.source import Source
from weightstore.transfer.health import Health
from weightstore.transfer.policy import Candidate, blob_in

MIRROR, OTHER = Source("https://a.example"), Source("https://b.example")
CUT = SourceUnavailable(source="a", reason="cut")
SILENT = SourceUnavailable(source="a", reason="timed out", is_silent=True)
SILENT = SourceUnavailable(source="a", reason="timed out", is_silent=True)
WRONG = DigestMismatch(source="a", expected="x", actual="y")
GONE = SourceNotFound(source="a", reason="404")
BLOB = Digest("0" * 64)
CANDIDATES = [
    Candidate("mirror", blob_in(MIRROR, BLOB), MIRROR),
    Candidate("mirror", blob_in(OTHER, BLOB), OTHER),
    Candidate("origin", Source("https://c.example/x")),
]


def test_a_mirror_is_told_of_once_in_whatever_way_it_fails() -> None:
    health = Health()
    assert [health.failed(MIRROR, error) for error in (WRONG, CUT, GONE)] == [True, False, False]
    assert health.failed(OTHER, GONE)


def test_what_is_told_as_an_error_does_not_count_as_told() -> None:
    health = Health()
    assert not health.failed(MIRROR, CUT, tell=False)
    assert health.failed(MIRROR, CUT)


def test_one_that_does_not_answer_is_asked_last_and_after_three_times_not_at_all() -> None:
    health = Health()
    assert health.ordered(CANDIDATES) == CANDIDATES
    health.failed(MIRROR, CUT)
    assert health.ordered(CANDIDATES) == [*CANDIDATES[1:], CANDIDATES[0]]
    assert health.why_not(MIRROR) is None
    health.served(MIRROR)
    assert health.ordered(CANDIDATES) == CANDIDATES
    for _ in range(3):
        health.failed(MIRROR, CUT)
    assert health.why_not(MIRROR) is CUT


def test_a_wrong_file_or_two_do_not_make_a_liar_and_missing_ones_never_do() -> None:
    health = Health()
    for error in (WRONG, WRONG, *[GONE] * 50):
        health.failed(MIRROR, error)
    health.served(MIRROR)
    assert not health.is_doubted(MIRROR)
    health.failed(MIRROR, WRONG)
    assert health.is_doubted(MIRROR)
    health.served(MIRROR)
    assert health.is_doubted(MIRROR), "one right answer makes no honest mirror"
    assert health.why_not(MIRROR) is None


def test_after_a_while_all_is_forgotten() -> None:
    now = [0.0]
    health = Health(lambda: now[0])
    for _ in range(3):
        health.failed(MIRROR, CUT)
    now[0] = 299.0
    assert health.why_not(MIRROR) is CUT
    now[0] = 301.0
    assert health.why_not(MIRROR) is None
    assert health.failed(MIRROR, CUT)


class Wall:
    """A clock that processes share."""

    def __init__(self) -> None:
        self.time = datetime(2030, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.time


@pytest.fixture
def wall() -> Wall:
    return Wall()


def records(state: Path) -> list[Path]:
    return list((state / "silent").glob("*"))


def test_the_next_process_asks_one_that_did_not_answer_last_until_it_serves(tmp_path: Path, wall: Wall) -> None:
    Health(state=tmp_path, now=wall).failed(MIRROR, SILENT)
    wall.time += timedelta(seconds=20)
    later = Health(state=tmp_path, now=wall)
    assert later.ordered(CANDIDATES) == [*CANDIDATES[1:], CANDIDATES[0]]
    assert later.silent_for_s(MIRROR) == 20
    assert later.why_not(MIRROR) is None, "last, and not never"
    later.served(MIRROR)
    assert later.ordered(CANDIDATES) == CANDIDATES
    assert Health(state=tmp_path, now=wall).ordered(CANDIDATES) == CANDIDATES
    assert records(tmp_path) == []


def test_five_minutes_later_and_before_it_happened_it_is_as_if_it_had_not(tmp_path: Path, wall: Wall) -> None:
    Health(state=tmp_path, now=wall).failed(MIRROR, SILENT)
    for seconds in (301, -10):
        wall.time += timedelta(seconds=seconds)
        assert Health(state=tmp_path, now=wall).ordered(CANDIDATES) == CANDIDATES
        wall.time -= timedelta(seconds=seconds)
    assert Health(state=tmp_path, now=wall).is_doubted(MIRROR)


@pytest.mark.parametrize("error", [CUT, WRONG, GONE])
def test_what_answered_is_not_remembered_for_other_processes(tmp_path: Path, error: SourceUnavailable) -> None:
    health = Health(state=tmp_path)
    health.failed(MIRROR, error)
    health.served(MIRROR)
    assert not (tmp_path / "silent").exists()


def test_a_password_of_a_mirror_is_not_written_down(tmp_path: Path) -> None:
    Health(state=tmp_path).failed(Source("https://ada:geheim@a.example/x?token=geheim"), SILENT)
    (path,) = records(tmp_path)
    assert "geheim" not in path.name + path.read_text()
    assert "a.example" not in path.name + path.read_text()


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:-5],
        lambda text: text.replace('"version": 1', '"version": 2'),
        lambda text: text.replace("Z", ""),
        lambda text: text.replace("{", '{"more": 1, '),
        lambda text: text.replace('"mirror": "', '"mirror": "0'),
        lambda text: text.replace(MIRROR.key, OTHER.key),
        lambda text: text + " " * (2 << 20),
    ],
)
def test_a_record_that_is_damaged_is_none(tmp_path: Path, wall: Wall, change: Callable[[str], str]) -> None:
    Health(state=tmp_path, now=wall).failed(MIRROR, SILENT)
    (path,) = records(tmp_path)
    path.write_text(change(path.read_text()))
    health = Health(state=tmp_path, now=wall)
    assert not health.is_doubted(MIRROR)
    health.failed(MIRROR, SILENT)
    assert Health(state=tmp_path, now=wall).is_doubted(MIRROR), "and is written anew"


def test_where_the_state_cannot_be_written_this_process_knows(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    health = Health(state=tmp_path / "state")
    health.failed(MIRROR, SILENT)
    assert health.is_doubted(MIRROR)
    health.served(MIRROR)
    assert not health.is_doubted(MIRROR)
