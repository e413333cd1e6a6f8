from benchmarks.report import markdown, missed
from benchmarks.table import Bar, Row, Table

BOTH = "with the pass"


def _table(*bars: Bar) -> Table:
    rows = (
        Row("ours:a", "a: ours", (1.0, 3.0), beside=(10.0, 10.0), extra=("x",), more={BOTH: (9.0, 11.0)}),
        Row("theirs:a", "a: theirs", (10.0, 10.0), extra=("y",), more={BOTH: (20.0, 20.0)}),
    )
    return Table("load", "Loading", "s", rows, bars=bars, columns=("extra",), beside="theirs")


def test_bar_of_another_quantity_is_judged_by_that_quantity_of_both_rows():
    table = _table()

    outcome = table.outcome(Bar("ours:a", 0.5, "theirs:a", of=BOTH))

    assert outcome.verdict == "met"
    assert outcome.measured is not None
    assert (outcome.measured.low, outcome.measured.middle, outcome.measured.high) == (0.45, 0.5, 0.55)


def test_bar_without_a_row_to_compare_with_takes_the_quantity_itself():
    assert _table().outcome(Bar("ours:a", 9.9, of=BOTH)).verdict == "not met"
    assert _table().outcome(Bar("ours:a", 10.0, of=BOTH)).verdict == "met"


def test_quantity_that_was_not_measured_leaves_its_bar_unknown_and_missed():
    table = _table(Bar("ours:a", 1.0, of="nothing"))

    assert table.outcome(table.bars[0]).verdict == "unknown"
    assert missed([table]) == ["load: nothing ≤ 1: unknown"]


def test_rows_with_references_of_their_own_share_one_column_of_ratios():
    lines = markdown(_table(Bar("ours:a", 0.25, "theirs:a", faster=True), Bar("ours:a", 1, of=BOTH))).splitlines()

    header, _, ours, theirs = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if "|" in line]
    assert header == ["tool", "s, median", "min–max", "× theirs", "extra", "bar"]
    assert ours[3:5] == ["0.20", "x"]
    assert ours[5] == "≥ 4 × faster than theirs: 5.00, **met**; with the pass ≤ 1: 10, **not met**"
    assert theirs[3:] == ["", "y", ""]
