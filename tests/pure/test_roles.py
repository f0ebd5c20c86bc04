"""What lists of LoRAs offer: files by the role in their headers, which is read once."""

import os

import pytest
from modular_safety_lora.modules.errors import ModuleFileError
from modular_safety_lora.modules.files import save_module
from modular_safety_lora.modules.roles import role_of
from modular_safety_lora.modules.tensors import metadata
from safetensors.torch import save_file
from test_files import PAIR


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.safetensors"


@pytest.mark.parametrize("role", ["safety", "task"])
def test_a_module_says_its_role(path, role):
    save_module(path, PAIR, {}, role)
    assert role_of(path) == role


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04 pickled, and large by its first bytes",
        b"\xff" * 8 + b'{"msl.role"',
        b"\x10\0\0\0\0\0\0\0" + b'{"msl.role": 1  ',
    ],
)
def test_what_cant_be_read_has_none(path, content):
    path.write_bytes(content)
    assert role_of(path) is None
    with pytest.raises(ModuleFileError, match=r"x.safetensors: "):
        metadata(path, "x.safetensors")


def test_what_is_not_there_and_what_states_none_or_another_has_none(path):
    assert role_of(path) is None
    for said in (None, {"msl.role": "helper"}, {"msl.roles": "safety"}):
        save_file(PAIR, path, said)
        assert role_of(path) is None


def test_a_file_that_is_replaced_is_read_again(path):
    save_module(path, PAIR, {}, "task")
    assert role_of(path) == "task"
    save_module(path, PAIR, {"msl.concept": "nudity"}, "safety", overwrite=True)
    assert role_of(path) == "safety"


def test_a_list_that_is_made_again_reads_nothing(path):
    save_module(path, PAIR, {}, "safety")
    assert role_of(path) == "safety"
    stat = path.stat()
    path.write_bytes(b"\0" * stat.st_size)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert role_of(path) == "safety", "it is kept by size and time of change"
