"""Module files: what is read, what is written, and what each malformed file is told."""

import pickle
import struct
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from modular_safety_lora.modules import files, paths
from modular_safety_lora.modules.files import ModuleFileError
from safetensors.torch import save_file

PAIR = {"x.lora_A.weight": torch.ones(2, 4), "x.lora_B.weight": torch.ones(3, 2)}


@pytest.fixture
def sealed(tmp_path):
    path = tmp_path / "safety.safetensors"
    files.save_module(path, PAIR, {"msl.base": "SD15", "msl.concept": "nudity"}, "safety")
    return path


def test_a_module_comes_back_as_it_was_written(sealed):
    module = files.load_safety(sealed, "safety.safetensors")
    assert module.role == "safety" and module.sealed_strength == 1.0 and module.base == "SD15"
    assert all(torch.equal(module.tensors[key], PAIR[key]) for key in PAIR)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_reading_is_memory_mapped(sealed):
    module = files.load_safety(sealed, "safety.safetensors")
    assert str(sealed) in Path("/proc/self/maps").read_text()
    assert module.tensors


def test_editing_any_byte_stops_a_sealed_file_from_loading(sealed):
    whole = sealed.read_bytes()
    for place in range(len(whole)):
        for flip in (1, 32, 128):
            edited = bytearray(whole)
            edited[place] ^= flip
            sealed.write_bytes(edited)
            with pytest.raises(ModuleFileError):
                files.load_safety(sealed, "safety.safetensors")


def test_white_space_in_the_header_does_not_pass(sealed):
    raw = sealed.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = raw[8 : 8 + length].rstrip(b" ").replace(b'","', b'", "', 1)
    sealed.write_bytes(struct.pack("<Q", len(header)) + header + raw[8 + length :])
    with pytest.raises(ModuleFileError, match="header was rewritten"):
        files.load_safety(sealed, "safety.safetensors")


def test_the_pin_decides_which_file_loads(sealed):
    digest = files.load_safety(sealed, "s").sha256
    assert files.load_safety(sealed, "s", f" {digest.upper()} ").sha256 == digest
    with pytest.raises(
        ModuleFileError, match=rf"expects. .*Its seal must be {'0' * 12}, and is {digest[:12]}\.\)$"
    ):
        files.load_safety(sealed, "s", "0" * 64)


def test_roles_go_to_their_own_sockets(sealed, tmp_path):
    with pytest.raises(
        ModuleFileError, match=r"this is a safety LoRA. Load it with Load Safety LoRA \(locked\)"
    ):
        files.load_task(sealed, "safety.safetensors")
    task = tmp_path / "task.safetensors"
    files.save_module(task, PAIR, {}, "task")
    with pytest.raises(
        ModuleFileError,
        match="this is a task LoRA, .* Load it with Load Task LoRA",
    ):
        files.load_safety(task, "task.safetensors")
    foreign = tmp_path / "foreign.safetensors"
    save_file(PAIR, foreign)
    assert files.load_task(foreign, "foreign.safetensors").role == "task"
    with pytest.raises(ModuleFileError, match="this LoRA is not sealed, .* Seal Safety LoRA"):
        files.load_safety(foreign, "foreign.safetensors")
    strange = tmp_path / "strange.safetensors"
    save_file(PAIR, strange, metadata={"msl.role": "saftey"})
    with pytest.raises(ModuleFileError, match="its role is 'saftey'; known roles are safety, task"):
        files.load_task(strange, "strange.safetensors")


def test_a_role_without_a_seal_is_not_enough(tmp_path):
    path = tmp_path / "unsealed.safetensors"
    save_file(PAIR, path, metadata={"msl.role": "safety", "msl.version": "1"})
    with pytest.raises(ModuleFileError, match="it has no seal"):
        files.load_safety(path, "unsealed.safetensors")


def test_a_task_module_that_states_another_digest_is_refused(tmp_path):
    path = tmp_path / "task.safetensors"
    save_file(PAIR, path, metadata={"msl.role": "task", "msl.tensors_sha256": "0" * 64})
    with pytest.raises(ModuleFileError, match=rf"the file says {'0' * 12}\.\)$"):
        files.load_task(path, "task.safetensors")


def _malformed(folder):
    path = folder / "good.safetensors"
    save_file(PAIR, path)
    good = path.read_bytes()
    pickled = folder / "archive"
    with zipfile.ZipFile(pickled, "w") as archive:
        archive.writestr("data.pkl", pickle.dumps({}))
    no_json = b"hello"
    return {
        "truncated tensors": (good[:-5], "truncated or has bytes it should not have"),
        "truncated header": (good[:20], "truncated"),
        "empty": (b"", "truncated"),
        "bytes at the end": (good + b"more", "truncated or has bytes it should not have"),
        "header too large": (
            struct.pack("<Q", 1 << 40) + good[8:],
            "claims a header of 1099511627776 bytes",
        ),
        "torch archive": (pickled.read_bytes(), "this is a pickle"),
        "pickle": (pickle.dumps({"a": 1}, protocol=4), "this is a pickle"),
        "text": (
            b"<!DOCTYPE html><html><body>404 not found</body></html>",
            "this is a web page, under the file's name. Download the file itself",
        ),
        "pointer": (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
            "this is a Git LFS pointer, under the file's name",
        ),
        "no JSON": (struct.pack("<Q", len(no_json)) + no_json, "not a readable safetensors file"),
        "no tensors": (struct.pack("<Q", 2) + b"{}", "holds no tensors"),
    }


def test_every_malformed_file_gets_its_own_error(tmp_path):
    for what, (content, message) in _malformed(tmp_path).items():
        path = tmp_path / "bad.safetensors"
        path.write_bytes(content)
        for load in (files.load_safety, files.load_task):
            with pytest.raises(ModuleFileError, match=message) as caught:
                load(path, "bad.safetensors")
            assert str(caught.value).startswith("bad.safetensors: "), what


def test_a_pickle_is_never_run(tmp_path):
    class Payload:
        def __reduce__(self):
            return (pytest.fail, ("the pickle was run",))

    path = tmp_path / "evil.safetensors"
    path.write_bytes(pickle.dumps(Payload()))
    with pytest.raises(ModuleFileError, match="this is a pickle"):
        files.load_task(path, "evil.safetensors")


@pytest.mark.parametrize(
    "name",
    [
        "../x.safetensors",
        "a/../../x.safetensors",
        "/etc/x.safetensors",
        "C:\\x.safetensors",
        "..\\x.safetensors",
    ],
)
def test_a_path_out_of_the_loras_folder_is_refused(name, tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"")
    (tmp_path / "loras").mkdir()
    with pytest.raises(ModuleFileError, match="leads outside the loras folders"):
        paths.find(name, [str(tmp_path / "loras")])


def test_files_are_found_in_any_loras_folder_and_a_missing_one_is_said(tmp_path):
    (tmp_path / "two" / "sub").mkdir(parents=True)
    target = tmp_path / "two" / "sub" / "x.safetensors"
    target.write_bytes(b"")
    folders = [str(tmp_path / "one"), str(tmp_path / "two")]
    assert paths.find("sub/x.safetensors", folders) == target
    with pytest.raises(
        ModuleFileError, match=r"y.safetensors: there is no such file. Put it into a loras folder"
    ):
        paths.find("y.safetensors", folders)
    with pytest.raises(ModuleFileError, match="LoRAs must be .safetensors files"):
        paths.find("x.pt", folders)


def test_writing_never_overwrites_silently_and_a_failure_leaves_the_old_file(sealed):
    before = sealed.read_bytes()
    with pytest.raises(FileExistsError, match="choose another name"):
        files.save_module(sealed, PAIR, {}, "safety")
    broken = {"a": torch.ones(2)}
    with pytest.raises(TypeError):
        files.save_module(sealed, broken, {"msl.concept": 3}, "task", overwrite=True)
    with pytest.raises(ValueError, match="finite number above 0"):
        files.save_module(sealed, PAIR, {"msl.strength": "0"}, "safety", overwrite=True)
    assert sealed.read_bytes() == before
    assert [path.name for path in sealed.parent.iterdir()] == [sealed.name]


def test_the_content_hash_follows_the_file(sealed):
    first = paths.content_sha256(sealed)
    assert first == paths.content_sha256(sealed)
    sealed.write_bytes(sealed.read_bytes() + b"x")
    assert paths.content_sha256(sealed) != first
