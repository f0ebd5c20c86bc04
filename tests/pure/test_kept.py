"""What was measured once is read back, and whatever is not as it was written is not there."""

import contextlib
import errno
import logging
import os
import threading

import pytest
import torch
from kept_faults import ABOUT, FAULTS, NAME, file_of, tensors, written
from modular_safety_lora.function import kept


@pytest.fixture(autouse=True)
def nothing_in_memory():
    kept.forget()
    yield
    kept.forget()


@pytest.fixture
def place(tmp_path):
    return tmp_path / "function"


def same(found, expected=None) -> bool:
    expected = tensors() if expected is None else expected
    return (
        found is not None
        and found[0].keys() == expected.keys()
        and all(torch.equal(found[0][key], value) for key, value in expected.items())
        and all(found[0][key].dtype == value.dtype for key, value in expected.items())
        and found[1] == ABOUT
    )


def test_it_is_read_back_from_memory_and_from_disk(place):
    assert kept.read(NAME, place) is None
    kept.write(NAME, tensors(), ABOUT, place)
    assert same(kept.read(NAME, place))
    kept.forget()
    assert same(kept.read(NAME, place))
    assert kept.read(kept.digest(base="b", safety="t"), place) is None
    assert sorted(each.suffix for each in place.iterdir()) == ["", ".safetensors"]
    assert (place / kept.KEY_FILE).stat().st_mode & 0o777 == 0o600
    view = {"y": torch.arange(12.0).reshape(3, 4).T}
    kept.write("view", view, ABOUT, place)
    kept.forget()
    assert same(kept.read("view", place), view)


def test_a_digest_is_of_all_that_it_depends_on():
    names = {
        kept.digest(),
        kept.digest(a="b"),
        kept.digest(b="a"),
        kept.digest(a=["b"]),
        kept.digest(a="b", c=None),
    }
    assert len(names) == 5
    assert kept.digest(a=1, b="ü") == kept.digest(b="ü", a=1)


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_what_is_not_as_it_was_written_is_not_there_and_is_written_anew(place, caplog, fault):
    written(place)
    fault(place)
    with caplog.at_level(logging.WARNING):
        assert kept.read(NAME, place) is None
    assert "is not as it was written" in caplog.text and "measured again" in caplog.text
    written(place)
    assert same(kept.read(NAME, place))


def test_any_byte_that_is_changed_is_seen(place):
    written(place)
    data = file_of(place).read_bytes()
    for at in range(0, len(data), 61):
        file_of(place).write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        kept.forget()
        found = kept.read(NAME, place)
        assert found is None or same(found), at  # a space more or less in the head
    file_of(place).write_bytes(data)
    assert same(kept.read(NAME, place))


def test_on_disk_what_was_used_longest_ago_goes_first(place, monkeypatch):
    names = [kept.digest(number=number) for number in range(6)]
    for number, name in enumerate(names[:4]):
        written(place, name)
        os.utime(file_of(place, name), (1000 + number, 1000 + number))
    assert same(kept.read(names[0], place))  # used now
    size = file_of(place, names[0]).stat().st_size
    monkeypatch.setattr(kept, "MOST", 3 * size + 1)
    written(place, names[4])
    left = [name for name in names if file_of(place, name).exists()]
    assert left == [names[0], names[3], names[4]]
    monkeypatch.setattr(kept, "MOST", 1)
    kept.write(names[5], tensors(), ABOUT, place)
    assert not [*place.glob("*.safetensors")]
    assert same(kept.read(names[5], place)), "this process has it"


def test_in_memory_there_are_a_few(place, monkeypatch):
    monkeypatch.setattr(kept, "IN_MEMORY", 3)
    for number in range(5):
        kept.write(f"{number}", tensors(), ABOUT, place)
    assert [name for _, name in kept._memory] == ["2", "3", "4"]
    assert same(kept.read("2", place))
    kept.write("5", tensors(), ABOUT, place)
    assert [name for _, name in kept._memory] == ["4", "2", "5"]


@contextlib.contextmanager
def disk_of(size: int):
    """Files of this process take so many bytes, as on a disk that is full."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [0, 100], ids=["for nothing", "for the key alone"])
def test_a_full_disk_stops_nothing(place, caplog, size):
    with caplog.at_level(logging.WARNING), disk_of(size):
        assert not kept.write(NAME, tensors(), ABOUT, place)
    assert "could not be saved" in caplog.text and "File too large" in caplog.text
    assert same(kept.read(NAME, place)) and not [*place.glob("*.safetensors")]
    assert kept.write(NAME, tensors(), ABOUT, place)  # there is room again


def test_a_folder_that_may_not_be_written_stops_nothing(place, caplog):
    """A file in the folder's place: it refuses an administrator too."""
    place.write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        kept.write(NAME, tensors(), ABOUT, place)
    assert "could not be saved" in caplog.text
    kept.forget()
    assert kept.read(NAME, place) is None


def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_file_that_may_be_read_and_not_touched_is_read(place, monkeypatch):
    written(place)
    monkeypatch.setattr(os, "utime", full)
    assert same(kept.read(NAME, place))


def test_threads_that_write_and_read_at_once_find_whole_files(place):
    faults, names = [], [kept.digest(number=number) for number in range(4)]
    started = threading.Barrier(4)

    def work(number: int) -> None:
        started.wait()
        try:
            for turn in range(12):
                name = names[(turn + number) % 4]
                kept.write(name, tensors(), ABOUT, place)
                if number % 2:
                    kept.forget()
                found = kept.read(name, place)
                if not same(found):
                    faults.append((number, turn, found))
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert faults == []
    kept.forget()
    assert all(same(kept.read(name, place)) for name in names)
