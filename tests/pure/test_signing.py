"""Signatures of safety modules: who vouches for one, and what is refused."""

import base64
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from commanding import run
from modular_safety_lora.modules.files import ModuleFileError, load_safety, save_module
from modular_safety_lora.modules.sealing import inspect
from modular_safety_lora.modules.signing import (
    CONTEXT,
    KeyFileError,
    check_key,
    check_trusted,
    new_key,
    sign_file,
    signer,
)
from safetensors import safe_open

TENSORS = {"layer.lora_up.weight": torch.ones(2, 3), "layer.lora_down.weight": torch.ones(3, 2)}


@pytest.fixture
def sealed(tmp_path):
    path = tmp_path / "safety.safetensors"
    save_module(path, TENSORS, {"msl.concept": "nudity"}, "safety")
    return path


@pytest.fixture
def key(tmp_path):
    return tmp_path / "key.pem", new_key(tmp_path / "key.pem")


def signature_of(path) -> str:
    with safe_open(str(path), framework="pt") as file:
        return file.metadata()["msl.signature"]


def with_signature(path, text: str):
    """The same module with another text in the place of its signature: its seal stays right."""
    save_module(
        path, TENSORS, {"msl.concept": "nudity", "msl.signature": text}, "safety", overwrite=True
    )
    return load_safety(path, "safety")


def test_a_signed_module_keeps_its_seal_and_names_its_signer(sealed, key):
    before = load_safety(sealed, "safety")
    digest = before.sha256
    assert signer(before) is None and inspect(sealed)["signed_by"] is None
    assert sign_file(sealed, key[0]) == key[1]
    module = load_safety(sealed, "safety", digest)
    assert module.sha256 == digest and signer(module) == key[1] == inspect(sealed)["signed_by"]
    check_trusted([module], [key[1]])
    check_trusted([before], [])
    if os.name == "posix":
        assert stat.S_IMODE(key[0].stat().st_mode) == 0o600
    with pytest.raises(KeyFileError, match="a key that is there is kept"):
        new_key(key[0])


@pytest.mark.skipif(shutil.which("openssl") is None, reason="compares with the openssl command")
def test_openssl_finds_the_signature_right(sealed, key, tmp_path):
    sign_file(sealed, key[0])
    (tmp_path / "signature").write_bytes(base64.b64decode(signature_of(sealed).split(":")[2]))
    (tmp_path / "message").write_bytes(CONTEXT + load_safety(sealed, "safety").sha256.encode())
    command = [
        "openssl",
        "pkeyutl",
        "-verify",
        "-inkey",
        str(key[0]),
        "-rawin",
        "-in",
        str(tmp_path / "message"),
    ]
    done = subprocess.run(
        [*command, "-sigfile", str(tmp_path / "signature")], capture_output=True, text=True
    )
    assert done.returncode == 0 and "Verified Successfully" in done.stdout, done.stderr


def test_what_no_trusted_key_signed_is_refused(sealed, key, tmp_path):
    other = new_key(tmp_path / "other.pem")
    with pytest.raises(
        ModuleFileError,
        match="it is not signed, and this ComfyUI takes only safety LoRAs that one of its 1",
    ):
        check_trusted([load_safety(sealed, "safety")], [key[1]])
    sign_file(sealed, tmp_path / "other.pem")
    with pytest.raises(ModuleFileError, match="it is signed by"):
        check_trusted([load_safety(sealed, "safety")], [key[1]])
    check_trusted([load_safety(sealed, "safety")], [key[1], other])


def test_a_signature_of_another_module_or_a_changed_one_is_refused(sealed, key, tmp_path):
    sign_file(sealed, key[0])
    right = signature_of(sealed)
    scheme, public, signed = right.split(":")
    another = tmp_path / "another.safetensors"
    save_module(another, TENSORS, {"msl.concept": "violence", "msl.signature": right}, "safety")
    wrong = base64.b64encode(bytes(64)).decode()
    cases = [(load_safety(another, "another"), "its signature is not right")]
    cases += [
        (with_signature(tmp_path / f"{number}.safetensors", text), message)
        for number, (text, message) in enumerate(
            [
                (f"{scheme}:{public}:{wrong}", "its signature is not right"),
                (f"rsa:{public}:{signed}", "the scheme 'rsa' is not known"),
                (f"{scheme}:{public}", "its signature can't be read"),
                (f"{scheme}:???:{signed}", "is not base64"),
                ("", "its signature can't be read"),
            ]
        )
    ]
    for module, message in cases:
        with pytest.raises(ModuleFileError, match=message):
            check_trusted([module], [public])


def test_without_the_library_nothing_is_trusted(sealed, key, monkeypatch):
    sign_file(sealed, key[0])
    monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)
    with pytest.raises(ModuleFileError, match="can't be checked.*pip install cryptography"):
        check_trusted([load_safety(sealed, "safety")], [key[1]])


def test_keys_that_are_none_are_refused(sealed, tmp_path):
    for text, message in (
        ("x", "is not base64"),
        (base64.b64encode(b"short").decode(), "must be 32 bytes in base64"),
    ):
        with pytest.raises(KeyFileError, match=message):
            check_key(text)
    (tmp_path / "junk.pem").write_text("junk")
    with pytest.raises(KeyFileError, match="this is no private key in PEM"):
        sign_file(sealed, tmp_path / "junk.pem")


@pytest.mark.slow
def test_the_command_line_makes_keys_and_signs(sealed, tmp_path):
    made = run("new-key", tmp_path / "mine.pem")
    public = made.stdout.split()[-1]
    check_key(public)
    assert run("sign", tmp_path / "mine.pem", sealed).stdout.strip().endswith(f"signed by {public}")
    assert f"signed_by: {public}" in run("inspect", sealed).stdout
    assert run("new-key", tmp_path / "mine.pem").returncode == 1, "a key is never overwritten"


@pytest.mark.skipif(
    not Path("/proc/self/maps").exists(), reason="reads this process's mappings from /proc"
)
def test_no_tensor_of_a_file_is_mapped_when_it_is_replaced(sealed, key, monkeypatch):
    """Windows refuses to replace a file that is mapped."""
    replace, mapped = Path.replace, []

    def looked_at(path, target):
        mapped.append(str(target) in Path("/proc/self/maps").read_text())
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", looked_at)
    sign_file(sealed, key[0])
    assert mapped == [False]
    held = load_safety(sealed, "safety")  # what this test looks for is there to be seen
    assert str(sealed) in Path("/proc/self/maps").read_text() and held.tensors
