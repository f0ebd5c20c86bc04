"""The store of long audits: it never deletes, and reports what was selected.

It refuses rows of another audit by name.
"""

import json
import sqlite3
import subprocess
import sys

import pytest
from modular_safety_lora.audit.folders.store import BATCH, Store, StoreError

IDENTITY = {
    "preset": {"name": "faces"},
    "detector": {"name": "mine", "floor": 0.25, "sha256": "a" * 64, "classes": ["A", "B", "D"]},
}


def rows(*keys: str) -> list[tuple[str, str, dict]]:
    return [(key, "1", {"key": key}) for key in keys]


def test_what_is_not_selected_stays_and_is_left_out(tmp_path):
    with Store(tmp_path / "a.sqlite", IDENTITY) as store:
        store.select([("b", "1"), ("a", "1"), ("c", "1")])
        assert list(store.missing()) == [("b", "1"), ("a", "1"), ("c", "1")], (
            "in the order they were given"
        )
        store.add(rows("b", "a", "c"))
        assert (store.count(), store.left_out(), list(store.missing())) == (3, 0, [])
    with Store(tmp_path / "a.sqlite", IDENTITY) as store:
        store.select([("c", "1"), ("b", "2"), ("d", "1")])
        assert (store.count(), store.left_out(), list(store.missing())) == (
            1,
            1,
            [("b", "2"), ("d", "1")],
        )
        assert [row["key"] for row in store.all()] == ["c"], (
            "the row of an older file is no result of the newer one"
        )
        store.select([(key, "1") for key in "cab"])
        assert [row["key"] for row in store.all()] == ["a", "b", "c"] and not list(store.missing())


def test_many_keys_are_looked_through_in_parts_while_rows_are_added(tmp_path):
    wanted = [(f"{number:05d}", "1") for number in range(3 * BATCH + 7)]
    with Store(tmp_path / "a.sqlite", IDENTITY) as store:
        store.add(rows(*(key for key, _ in wanted[::2])))
        store.select(wanted)
        for key, _ in store.missing():
            store.add(rows(key))
        assert store.count() == len(wanted) and [row["key"] for row in store.all()] == [
            key for key, _ in wanted
        ]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"detector": {**IDENTITY["detector"], "floor": 0.95}},
            r"another detector floor \(0.25; now 0.95\)",
        ),
        (
            {"detector": {**IDENTITY["detector"], "sha256": "b" * 64}},
            r"another detector sha256 \(a{12}; now b{12}\)",
        ),
        ({"second": {"name": "other", "floor": 1}}, r"another second \(none; now other\)"),
        (
            {"second": {"preset": {"name": "other", "source": "x" * 500}, "detector": {}}},
            r"another second \(none; now other\)",
        ),
        (
            {"preset": {"name": "strict", "thresholds": {"A": 0.1}, "source": "of a paper"}},
            r"another preset \(faces; now strict\)",
        ),
        (
            {"detector": IDENTITY["detector"] | {"classes": ["C", "A", "B"], "floor": 0.5}},
            r"another detector classes \(D; now C, and 1 more\)",
        ),
        (
            {"detector": IDENTITY["detector"] | {"classes": ["B", "A", "D"]}},
            r"another detector classes \(in this order; now in another\)",
        ),
        (
            {"detector": {"name": "x" * 200}},
            r"another detector \(mine; now x{60}\.\.\.\)",
        ),
    ],
)
def test_another_audit_is_refused_by_what_differs_and_nothing_is_lost(tmp_path, changed, message):
    with Store(tmp_path / "a.sqlite", IDENTITY) as store:
        store.add(rows("a", "b"))
    with pytest.raises(
        StoreError, match=rf"a.sqlite holds 2 rows of an audit made with {message}. .*another name"
    ):
        Store(tmp_path / "a.sqlite", IDENTITY | changed)
    with Store(tmp_path / "a.sqlite", dict(reversed(IDENTITY.items()))) as store:
        assert store.left_out() == 2


def test_what_people_call_a_digest_is_in_the_error_and_no_part_of_what_must_be_the_same(tmp_path):
    Store(tmp_path / "a.sqlite", {"prompt file": "a" * 64}, {"prompt file": "i2p.csv"}).__exit__()
    Store(
        tmp_path / "a.sqlite", {"prompt file": "a" * 64}, {"prompt file": "renamed.csv"}
    ).__exit__()
    with pytest.raises(
        StoreError, match=r"another prompt file \(i2p.csv, a{12}; now hot.csv, b{12}\)"
    ):
        Store(tmp_path / "a.sqlite", {"prompt file": "b" * 64}, {"prompt file": "hot.csv"})


def test_a_store_of_before_is_refused_and_stays_as_it_is(tmp_path):
    """The file as it was written before identities held digests.

    Its rows could be of any prompt file and any detector.
    """
    old = sqlite3.connect(tmp_path / "old.sqlite")
    old.execute("create table audit (identity text)")
    old.execute(
        "create table pictures"
        " (key text primary key, stamp text, flagged integer, unreadable text, data text)"
    )
    old.execute("insert into audit values (?)", (json.dumps(IDENTITY, sort_keys=True),))
    old.execute("insert into pictures values ('a', '1', 1, null, '{}')")
    old.commit()
    with pytest.raises(
        StoreError, match=r"old.sqlite was made by an earlier version .*1 row .*another name"
    ):
        Store(tmp_path / "old.sqlite", IDENTITY)
    assert old.execute("select count(*) from pictures").fetchone() == (1,)


def test_rows_that_may_be_of_something_else_are_not_gone_on_with(tmp_path):
    untold = ["f keeps 'mean' from call to call"]
    with Store(tmp_path / "a.sqlite", IDENTITY, untold=untold) as store:
        store.add(rows("a"))
    message = r"holds 1 row, and it can't be known whether .* f keeps 'mean' .*another name"
    with pytest.raises(StoreError, match=message):
        Store(tmp_path / "a.sqlite", IDENTITY, untold=untold)


def test_what_could_not_be_read_is_asked_for_again_when_wanted(tmp_path):
    with Store(tmp_path / "a.sqlite", IDENTITY) as store:
        store.select([("a", "1"), ("b", "1"), ("c", "1")])
        store.add([*rows("a"), ("b", "1", {"key": "b", "unreadable": "why"})])
        assert list(store.missing()) == [("c", "1")]
        assert list(store.missing(again=True)) == [("b", "1"), ("c", "1")]


def test_a_selection_of_many_files_takes_no_memory(tmp_path):
    code = (
        "import resource, sys\n"
        "from modular_safety_lora.audit.folders.store import Store\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
        "store = Store(sys.argv[1], {})\n"
        "store.select((f'{number:0100d}', '1') for number in range(1_000))\n"
        "before = peak()\n"
        "store.select((f'{number:0100d}', '1') for number in range(200_000))\n"
        "assert sum(1 for _ in store.missing()) == 200_000 and store.count() == 0\n"
        "print(peak() - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.sqlite")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 12, "MB; the keys alone are 20"
