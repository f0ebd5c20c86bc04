"""What is written: its mode, its name, one owner at a time, and nothing left of one that died."""

import os
import stat
import threading
from pathlib import Path

import pytest
import torch
from modular_safety_lora.audit.folders.store import Store
from modular_safety_lora.modules.files import load_safety
from modular_safety_lora.modules.sealing import Sealing, seal_file
from modular_safety_lora.modules.signing import new_key, sign_file
from modular_safety_lora.modules.tensors import write_atomically
from modular_safety_lora.storage.names import fitting, read_back, written
from modular_safety_lora.storage.owned import InUse, owned
from modular_safety_lora.storage.whole import whole, write_picture, write_text
from PIL import Image
from safetensors.torch import save_file

LORA = {"a.lora_up.weight": torch.ones(4, 2), "a.lora_down.weight": torch.ones(2, 4)}


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def umask():
    """Sets the process's umask for one test."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no modes")
@pytest.mark.parametrize("masked", [0o022, 0o027, 0o002])
def test_every_file_has_the_mode_that_umask_asks_for_and_a_key_is_its_owners_alone(
    tmp_path, umask, masked
):
    umask(masked)
    save_file(LORA, tmp_path / "lora.safetensors")
    sealed, key = tmp_path / "sealed.safetensors", tmp_path / "key.pem"
    seal_file(tmp_path / "lora.safetensors", sealed, Sealing("nudity"))
    write_atomically(tmp_path / "state.resume", LORA, {})
    write_text(tmp_path / "report.json", "{}")
    write_picture(tmp_path / "chart.png", Image.new("RGB", (8, 8)))
    with Store(tmp_path / "rows.sqlite", {}) as store:
        store.add([("a", "", {})])
        modes = {path.name: mode_of(path) for path in tmp_path.iterdir() if path.stem != "lora"}
    assert len(modes) >= 5 and set(modes.values()) == {0o666 & ~masked}, modes
    new_key(key)
    sign_file(sealed, key)
    assert mode_of(sealed) == 0o666 & ~masked and mode_of(key) == 0o600


@pytest.mark.skipif(os.name == "nt", reason="Windows has no modes")
def test_a_file_that_is_replaced_keeps_its_mode_as_in_an_editor(tmp_path, umask):
    file = tmp_path / "report.json"
    write_text(file, "first")
    file.chmod(0o640)
    umask(0o077)
    write_text(file, "second")
    assert mode_of(file) == 0o640 and file.read_text() == "second"


@pytest.mark.parametrize("length", [217, 237, 243])
def test_a_name_of_any_length_that_the_disk_takes_can_be_written(tmp_path, length):
    save_file(LORA, tmp_path / "lora.safetensors")
    output = tmp_path / f"{'n' * length}.safetensors"
    with owned(output):
        seal_file(tmp_path / "lora.safetensors", output, Sealing("nudity"))
    assert load_safety(output, "x") and len(list(tmp_path.iterdir())) == 2


def test_a_name_that_is_too_long_says_so_and_not_that_room_is_wanted(tmp_path):
    save_file(LORA, tmp_path / "lora.safetensors")
    output = tmp_path / f"{'é' * 122}.safetensors"
    with pytest.raises(OSError, match="name is 256 bytes long") as caught:
        seal_file(tmp_path / "lora.safetensors", output, Sealing("nudity"))
    assert "room" not in str(caught.value) and "shorter" in str(caught.value)
    with pytest.raises(OSError, match="name is 256 bytes long"), owned(output):
        pass


NAMES = [
    b"plain.png",
    b"caf\xe9.png",
    b"\xff\xfe",
    "日本 é\n.png".encode(),
    rb"caf\xe9.png",
    rb"a\\b",
]


@pytest.mark.skipif(os.name == "nt", reason="names are Unicode there")
def test_any_name_is_written_as_utf_8_and_read_back(tmp_path):
    texts = [written(Path("/data", os.fsdecode(name))) for name in NAMES]
    assert [os.fsencode(Path(read_back(text)).name) for text in texts] == NAMES
    assert len(set(texts)) == len(NAMES) and all(text.encode("utf-8") for text in texts)
    assert texts[:2] == ["/data/plain.png", "/data/caf\\xe9.png"]


def test_a_long_name_is_cut_to_what_a_disk_takes_and_stays_one_of_its_own():
    cut = [fitting("é" * 125 + end) for end in ("a.png", "b.png", "b.png-1.png")]
    assert len(set(cut)) == 3 and all(len(os.fsencode(each)) <= 255 for each in cut)
    assert all(each.endswith(".png") for each in cut) and fitting("short.png") == "short.png"


def other_owner(path: Path) -> str:
    """What another run is told that wants the same name."""
    told = []

    def run() -> None:
        try:
            with owned(path):
                told.append("")
        except InUse as error:
            told.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return told[0]


def test_a_name_has_one_owner_who_may_own_it_twice(tmp_path):
    output = tmp_path / "loras" / "task.safetensors"
    with owned(output):
        with owned(output.with_suffix(".json")):
            assert "another run is writing to this name" in other_owner(output)
        assert other_owner(output) and not other_owner(output.with_name("other.safetensors"))
    assert not other_owner(output) and list(output.parent.iterdir()) == []


def test_a_folder_that_takes_no_file_is_named(tmp_path):
    (tmp_path / "file").touch()
    reason = r"x.png: no file can be written in its folder .* another folder"
    with pytest.raises(OSError, match=reason), owned(tmp_path / "file" / "x.png"):
        pass


def test_what_a_killed_owner_left_goes_with_the_next_and_nothing_else_does(tmp_path):
    """Planted as a kill leaves them: the folder that a file is made in, and what writes in it."""
    output = tmp_path / "task.safetensors"
    for name in ("task.resume", "task.safetensors", "task.b.safetensors", "tasks.resume"):
        (tmp_path / f".{name}.{'0' * 32}.part").mkdir()
        (tmp_path / f".{name}.{'0' * 32}.part" / ".tmpAbc").write_bytes(bytes(99))
    (tmp_path / ".task.lock").touch()
    kept = [tmp_path / ".task.resume.part", tmp_path / "task.resume", tmp_path / ".task.png"]
    for each in kept:
        each.touch()
    with owned(output):
        there = {path.name for path in tmp_path.iterdir()}
    assert there == {
        *(path.name for path in kept),
        f".task.b.safetensors.{'0' * 32}.part",
        f".tasks.resume.{'0' * 32}.part",
        ".task.lock",
    }


def test_a_kill_leaves_nothing_that_the_next_owner_does_not_find(tmp_path):
    """safetensors writes through a file of its own beside the one it is given."""
    output = tmp_path / "task.safetensors"
    with whole(output) as part:
        (part.parent / ".tmpAbc").write_bytes(b"half")
        part.write_bytes(b"half")
        (left,) = tmp_path.iterdir()
        assert part.parent == left and left.name.startswith(".task.safetensors.")
        with owned(output):
            assert not left.exists()
        left.mkdir()
        part.write_bytes(b"whole")
    assert [path.name for path in tmp_path.iterdir()] == [output.name]
