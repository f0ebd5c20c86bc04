"""Ranges of large files: a file that was looked at is not read whole again, and no other passes."""

import os
import time

import pytest
from gated import FACE, HARMLESS, House, film, housed
from modular_safety_lora.gates import door, known
from modular_safety_lora.gates.answers import HEADER

pytestmark = pytest.mark.skipif(os.name == "nt", reason="WINDOWS: every file is read whole")
LARGE = known.SMALLEST + 100_000


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    with housed(tmp_path_factory.mktemp("house")) as running:
        yield running


@pytest.fixture
def reads(monkeypatch):
    """How often a file was read whole."""
    found = []

    async def counted(*given):
        found.append(given)
        return await original(*given)

    original = door._content
    monkeypatch.setattr(door, "_content", counted)
    return found


def padded(*frames, size: int = LARGE) -> bytes:
    """A video, and an empty box behind it."""
    content = film(frames)
    box = size - len(content)
    return content + box.to_bytes(4, "big") + b"free" + bytes(box - 8)


def part(house: House, name: str, start: int = 100):
    return house.get("/view", {"Range": f"bytes={start}-{start + 99}"}, filename=name)


def test_a_large_file_is_read_whole_once(house, reads, monkeypatch):
    monkeypatch.setattr(known, "SETTLED", 10**7)
    content = padded(HARMLESS, HARMLESS)
    name = house.put(content)
    time.sleep(0.05)
    for start in (0, 100, LARGE - 100, 100):
        answer = part(house, name, start)
        assert (answer.status_code, answer.content) == (206, content[start : start + 100])
        assert answer.headers["Content-Range"] == f"bytes {start}-{start + 99}/{LARGE}"
    assert len(reads) == 1
    tag = {"If-None-Match": answer.headers["ETag"]}
    assert house.get("/view", tag, filename=name).status_code == 304 and len(reads) == 1
    assert house.get("/view", filename=name).content == content and len(reads) == 2
    assert part(house, name, LARGE + 5).status_code == 416


@pytest.mark.parametrize("how", ["in place", "in place, its time set back", "another in its place"])
def test_a_file_that_changed_is_looked_at_again(house, monkeypatch, how):
    monkeypatch.setattr(known, "SETTLED", 10**7)
    name = house.put(padded(HARMLESS, HARMLESS))
    file = house.folder / "output" / name
    time.sleep(0.05)
    assert part(house, name).status_code == part(house, name).status_code == 206
    before = file.stat()
    if how == "another in its place":
        (other := file.with_suffix(".new")).write_bytes(padded(HARMLESS, FACE))
        os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
        other.replace(file)
    else:
        with file.open("r+b") as opened:
            opened.write(padded(HARMLESS, FACE))
    if how == "in place, its time set back":
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert part(house, name).headers[HEADER].startswith("withheld")


def test_a_file_that_changed_just_now_and_a_small_one_are_read_whole(house, reads, monkeypatch):
    new, small = house.put(padded(HARMLESS)), house.put(padded(HARMLESS, size=100_000))
    part(house, new), part(house, new)
    assert len(reads) == 2
    monkeypatch.setattr(known, "SETTLED", 10**7)
    time.sleep(0.05)
    part(house, small), part(house, small)
    assert len(reads) == 4


def test_a_file_that_changes_while_a_part_is_read_is_no_part(house, tmp_path):
    file = tmp_path / "a"
    file.write_bytes(bytes(LARGE))
    held = known.Part(file, known.Stamp.of(file.stat()), "")
    assert held[10:20] == bytes(10) and len(held) == LARGE
    file.write_bytes(bytes(LARGE - 1))
    with pytest.raises(known.Changed):
        held[10:20]
