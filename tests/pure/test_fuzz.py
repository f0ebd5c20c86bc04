"""The file reader on 10,000 broken, mutated and made-up files.

It gives a clear error or an intact module, never anything else.
"""

import json
import random
import struct

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from modular_safety_lora.modules.files import (
    LoraFile,
    ModuleFileError,
    load_safety,
    load_task,
    save_module,
)
from modular_safety_lora.modules.seal import UNSEALED_KEYS, seal_fault, tensors_sha256
from modular_safety_lora.modules.seal import sealed as sealed_metadata
from modular_safety_lora.modules.sealing import inspect

MUTATIONS, MADE_UP = 4000, 1000
QUIET = {"deadline": None, "suppress_health_check": list(HealthCheck), "derandomize": True}


@pytest.fixture(scope="module")
def sealed(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("sealed") / "safety.safetensors"
    tensors = {
        f"layer.{n}.lora_{half}.weight": torch.randn(3, 4).half() for n in range(3) for half in "AB"
    }
    save_module(
        path,
        tensors,
        {"msl.concept": "nudity", "msl.strength": "0.75", "msl.base": "SD15"},
        "safety",
    )
    return path.read_bytes()


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "file.safetensors"


def attempt(path, content: bytes) -> LoraFile | None:
    """Load as a safety module; None when it is refused.

    What is refused, every reader refuses or reads without a crash.
    """
    path.write_bytes(content)
    try:
        return load_safety(path, "file")
    except ModuleFileError as error:
        assert str(error).startswith("file: ")
    found = inspect(path)
    assert found["state"] != "sealed safety LoRA, intact"
    try:
        load_task(path, "file")
    except ModuleFileError as error:
        assert str(error).startswith("file: ")
    return None


def mutated(content: bytes, chance: random.Random) -> bytes:
    """One of many ways to damage a file, or to change its header by hand."""
    size = struct.unpack("<Q", content[:8])[0]
    data, at = bytearray(content), chance.randrange(len(content))
    way = chance.randrange(9)
    if way == 0:
        data[at] ^= 1 << chance.randrange(8)
    elif way == 1:
        return bytes(data[:at])
    elif way == 2:
        data[at:at] = bytes(chance.randrange(256) for _ in range(chance.randint(1, 40)))
    elif way == 3:
        del data[at : at + chance.randint(1, 40)]
    elif way == 4:
        data[:8] = struct.pack(
            "<Q", chance.choice((0, 1, size - 1, size + 1, 2**31, 2**63, 2**64 - 1))
        )
    elif way == 5:
        data += bytes(chance.randint(1, 64))
    elif way == 6:
        data[at : at + 8] = chance.choice((b"\0" * 8, b"\xff" * 8, b"00000000", b'":"":"":'))
    else:
        return rewritten(content, size, chance)
    return bytes(data)


def rewritten(content: bytes, size: int, chance: random.Random) -> bytes:
    """The header parsed, changed and written again: names, shapes, offsets, dtypes, metadata."""
    header = json.loads(content[8 : 8 + size])
    name = chance.choice([key for key in header if key != "__metadata__"])
    way = chance.randrange(8)
    if way == 0:
        header["__metadata__"][chance.choice(sorted(header["__metadata__"]))] = chance.choice(
            ("", "task", "safety", "2", "NaN")
        )
    elif way == 1:
        header["__metadata__"].pop(chance.choice(sorted(header["__metadata__"])))
    elif way == 2:
        header[name]["shape"] = chance.choice(
            ([4, 3], [12], [2, 6], [-1, 12], [2**40, 2**40], [], ["3", "4"])
        )
    elif way == 3:
        header[name]["dtype"] = chance.choice(("F32", "BF16", "I16", "F8_E4M3", "F99", 7))
    elif way == 4:
        header[name]["data_offsets"] = chance.choice(([0, 24], [24, 0], [0, 10**12], [-24, 0], "x"))
    elif way == 5:
        header[chance.choice(("x", "", "layer.0.lora_A.weight ", "\u202e"))] = header.pop(name)
    elif way == 6:
        header["__metadata__"][chance.choice(("new", "msl.signature", "msl.seal"))] = chance.choice(
            ("0" * 64, "x")
        )
    else:
        header["__metadata__"] = chance.choice(
            ({}, None, [], "x", {"msl.role": "safety"}, {"msl.role": 1})
        )
    text = json.dumps(
        header, separators=chance.choice(((",", ":"), (", ", ": "), (" ,", ":")))
    ).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + content[8 + size :]


def test_a_mutated_file_never_loads_unless_it_says_the_same(path, sealed):
    """What still loads has the very tensors and metadata of the file that was sealed.

    Only a signature may differ.
    """
    original, chance, kept = attempt(path, sealed), random.Random(11), 0
    # the file under them is written over
    tensors = {name: value.clone() for name, value in original.tensors.items()}
    for _ in range(MUTATIONS):
        module = attempt(path, mutated(sealed, chance))
        if module is not None:
            kept += 1
            assert module.sha256 == original.sha256 and module.sealed_strength == 0.75
            assert module.tensors.keys() == tensors.keys()
            assert all(torch.equal(value, tensors[name]) for name, value in module.tensors.items())
            assert {**module.metadata, "msl.signature": ""} == {
                **original.metadata,
                "msl.signature": "",
            }
    assert kept < MUTATIONS / 50


@settings(max_examples=MADE_UP // 2, **QUIET)
@given(content=st.binary(max_size=600))
@example(content=b"")
@example(content=struct.pack("<Q", 2) + b"{}")
def test_made_up_bytes_are_refused(path, content):
    assert attempt(path, content) is None


words = st.text(max_size=12)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | words,
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)


@settings(max_examples=MADE_UP // 2, **QUIET)
@given(
    metadata=st.dictionaries(
        st.sampled_from(
            ["msl.version", "msl.role", "msl.seal", "msl.tensors_sha256", "msl.strength"]
        ),
        words,
    ),
    entry=st.fixed_dictionaries(
        {
            "dtype": st.sampled_from(["F16", "F32", "U8", "?"]),
            "shape": values,
            "data_offsets": values,
        }
    ),
    data=st.binary(max_size=64),
)
def test_made_up_headers_are_refused(path, metadata, entry, data):
    header = json.dumps({"__metadata__": {**metadata, "msl.role": "safety"}, "x": entry}).encode()
    assert attempt(path, struct.pack("<Q", len(header)) + header + data) is None


DIGEST = tensors_sha256({"x": torch.ones(2)}, {"x": "F32"})
plain = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
keys = plain.filter(
    lambda key: (
        key not in UNSEALED_KEYS
        and key not in sealed_metadata({}, DIGEST)
        and key != "msl.strength"
    )
)
entries = st.dictionaries(keys, plain, max_size=5)


def moved(entries: dict[str, str], cut: int) -> dict[str, str]:
    """The same characters in the same order, with another border between keys and values."""
    parts = [part for entry in sorted(entries.items()) for part in entry]
    text, count = "".join(parts), max(2, len(parts))
    places = sorted((cut * number * 7) % (len(text) + 1) for number in range(1, count))
    parts = [text[start:end] for start, end in zip([0, *places], [*places, len(text)], strict=True)]
    return dict(zip(parts[::2], parts[1::2], strict=False))


@settings(max_examples=400, **QUIET)
@given(one=entries, other=entries, cut=st.integers(1, 50))
def test_a_seal_is_of_its_own_metadata_alone(one, other, cut):
    """Every example spells a whole seal, and what is not its own is found out.

    That is another file's seal, or one of the same characters cut elsewhere.
    """
    whole = sealed_metadata(one, DIGEST)
    assert seal_fault(whole, DIGEST) is None
    for changed in (other, moved(one, cut), {**one, "msl.strength": "0.5"}, {**one, "new": "x"}):
        if changed == one or changed.keys() & {
            *UNSEALED_KEYS,
            "msl.version",
            "msl.role",
            "msl.tensors_sha256",
        }:
            continue
        forged = sealed_metadata(changed, DIGEST) | {"msl.seal": whole["msl.seal"]}
        assert "its metadata gives" in str(seal_fault(forged, DIGEST)), (one, changed)
    assert "its tensors give" in seal_fault(whole, DIGEST[::-1])


@settings(max_examples=100, **QUIET)
@given(metadata=st.dictionaries(words, words), seal=words)
def test_a_made_up_seal_is_found_out(metadata, seal):
    forged = {
        **metadata,
        "msl.version": "1",
        "msl.role": "safety",
        "msl.tensors_sha256": DIGEST,
        "msl.seal": seal,
    }
    forged.pop("msl.strength", None)
    assert "its metadata gives" in seal_fault(forged, DIGEST)
