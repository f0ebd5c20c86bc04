"""Digest and seal against the lines of the file format, computed here from the file's raw bytes."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from modular_safety_lora.modules import files, seal
from safetensors.torch import save_file

TENSORS = {
    "b.lora_down": torch.randn(2, 3, generator=torch.Generator().manual_seed(1)).half(),
    "a.lora_up": torch.randn(3, 2, generator=torch.Generator().manual_seed(2)).bfloat16(),
    "a.alpha": torch.tensor(4.0),
    "Z.eight": torch.arange(4).to(torch.float8_e4m3fn).reshape(2, 2),
    "empty": torch.empty(0, 5),
    "ümlaut": torch.arange(3),
}


def digest_from_bytes(path: Path) -> str:
    """The digest of the format's lines, with nothing of the pack and nothing of safetensors."""
    raw = path.read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:start])
    header.pop("__metadata__", None)
    digest = hashlib.sha256()
    for name in sorted(header):
        entry = header[name]
        begin, end = entry["data_offsets"]
        digest.update(name.encode() + b"\0" + entry["dtype"].encode() + b"\0")
        digest.update(
            ",".join(map(str, entry["shape"])).encode() + b"\0" + raw[start + begin : start + end]
        )
    return digest.hexdigest()


def test_the_tensors_digest_is_that_of_the_formats_lines(tmp_path):
    path = tmp_path / "task.safetensors"
    returned = files.save_module(path, TENSORS, {"msl.base": "SD15"}, "task")
    assert returned == digest_from_bytes(path)
    module = files.load_task(path, "task")
    assert module.sha256 == module.metadata["msl.tensors_sha256"] == returned


def test_the_digest_does_not_depend_on_where_the_writer_put_the_tensors(tmp_path):
    path = tmp_path / "foreign.safetensors"
    save_file(dict(reversed(TENSORS.items())), path)
    assert files.load_task(path, "foreign").sha256 == digest_from_bytes(path)


def test_the_seal_is_that_of_the_formats_lines(tmp_path):
    path = tmp_path / "safety.safetensors"
    returned = files.save_module(
        path, TENSORS, {"msl.concept": "nudity", "msl.strength": "0.5", "é": "ü"}, "safety"
    )
    metadata = dict(files.load_safety(path, "safety").metadata)
    assert metadata.pop("msl.seal") == returned
    lines = b"".join(
        key.encode() + b"\0" + metadata[key].encode() + b"\0" for key in sorted(metadata)
    )
    assert hashlib.sha256(lines).hexdigest() == returned


def test_the_seal_covers_every_entry_but_a_signature():
    whole = seal.sealed({"msl.strength": "1.0", "modelspec.title": "x"}, "00")
    assert seal.seal_fault(whole, "00") is None
    assert seal.seal_fault({**whole, "msl.signature": "anything"}, "00") is None
    for key in set(whole) - {"msl.seal"}:
        assert seal.seal_fault({**whole, key: whole[key] + "0"}, "00"), key
    assert seal.seal_fault({**whole, "new": "entry"}, "00")
    assert seal.seal_fault(whole, "01")


@pytest.mark.parametrize("strength", ["0", "-1.0", "nan", "inf", "", "strong"])
def test_a_strength_that_is_not_finite_and_positive_is_no_seal(strength):
    assert seal.seal_fault(seal.sealed({"msl.strength": strength}, "00"), "00")


def test_no_strength_means_one():
    assert seal.strength_of({}) == 1.0


def test_a_nul_byte_is_refused_since_two_files_could_share_a_seal(tmp_path):
    """`\0` stands between the parts that the digests cover.

    Moved into a value, it hides the next entry.
    """
    one = {"msl.base": "SD15", "msl.concept": "nudity"}
    other = {"msl.base": "SD15\0msl.concept\0nudity"}
    assert seal.seal_sha256(one) == seal.seal_sha256(other)
    tensors = {"a.lora_up": torch.ones(2, 2)}
    texts = [(tensors, other), (tensors, {"a\0b": "c"}), ({"a\0F16": torch.ones(2, 2)}, one)]
    for number, (named, metadata) in enumerate(texts):
        path = tmp_path / f"{number}.safetensors"
        for role in files.ROLES:
            with pytest.raises(
                files.ModuleFileError, match=rf"{number}.safetensors: '.*' contains a NUL byte"
            ):
                files.save_module(path, named, metadata, role)
        assert not path.exists()
        digest = seal.tensors_sha256(named, dict.fromkeys(named, "F32"))
        for whole in (seal.sealed(metadata, digest), metadata):
            save_file(named, path, metadata=whole)
            for load in (files.load_safety, files.load_task):
                with pytest.raises(files.ModuleFileError, match="file: '.*' contains a NUL byte"):
                    load(path, "file")
