"""What can be wrong with the file of a long audit: told with the file's name and the way out."""

import contextlib
import sqlite3

import pytest
from modular_safety_lora.audit.folders.store import Store, StoreError

IDENTITY = {"preset": {"name": "faces"}}


def rows(*keys: str) -> list[tuple[str, str, dict]]:
    return [(key, "1", {"key": key}) for key in keys]


def test_another_run_that_writes_is_told(tmp_path, monkeypatch):
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda path: connect(path, timeout=0.05))
    path = tmp_path / "a.sqlite"
    with Store(path, IDENTITY) as store:
        store.select([("a", "1")])
        with contextlib.closing(connect(path)) as other:
            other.execute("begin immediate")
            with pytest.raises(StoreError, match=r"a.sqlite: another run is writing to it. Wait"):
                store.add(rows("a"))
            other.rollback()
            store.add(rows("a"))
    with contextlib.closing(connect(path)) as other:
        other.execute("pragma journal_mode = delete")
        other.execute("begin exclusive")
        with pytest.raises(StoreError, match=r"a.sqlite: another run is writing to it"):
            Store(path, IDENTITY)


def test_a_full_disk_is_told_and_what_is_kept_is_gone_on_with(tmp_path):
    with Store(tmp_path / "a.sqlite", IDENTITY) as store:
        store.add(rows("a"))
        store.connection.execute("pragma max_page_count = 1")  # no more than there is
        with pytest.raises(StoreError, match=r"a.sqlite: the disk is full. Make room, .*continues"):
            store.add([("b", "1", {"key": "b" * 10_000_000})])
    with Store(tmp_path / "a.sqlite", IDENTITY) as store:
        assert store.left_out() == 1


def test_what_may_not_be_written_is_told(tmp_path):
    path = tmp_path / "a.sqlite"
    with Store(path, IDENTITY) as store:
        store.connection.execute("pragma query_only = on")
        with pytest.raises(StoreError, match=r"a.sqlite: this user may not write to it. Allow it"):
            store.add(rows("a"))
    (tmp_path / "b.sqlite").mkdir()
    with pytest.raises(StoreError, match=r"b.sqlite: this user can't open it. Allow it"):
        Store(tmp_path / "b.sqlite", IDENTITY)


def damage_header(path):
    path.write_bytes(b"x" * 100 + path.read_bytes()[100:])


def damage_page(path):
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)


def damage_row(path):
    with contextlib.closing(sqlite3.connect(path)) as file, file:
        file.execute("update pictures set data = '{\"key' where key = 'b'")


@pytest.mark.parametrize("damage", [damage_header, damage_page, damage_row])
def test_a_damaged_file_is_told_and_stays(tmp_path, damage):
    path = tmp_path / "a.sqlite"
    with Store(path, IDENTITY) as store:
        store.add(rows("a", "b"))
    damage(path)
    before = path.read_bytes()
    message = r"a.sqlite: it is damaged, or is not a file of an audit. Put"
    with pytest.raises(StoreError, match=message), Store(path, IDENTITY) as store:
        store.select([("a", "1"), ("b", "1")])
        list(store.all())
    assert path.read_bytes() == before
