"""What is kept on disk, and ways in which a file of it is not as it was written."""

import hashlib
import os

import torch
from modular_safety_lora.function import kept
from safetensors import safe_open
from safetensors.torch import load_file, save_file

NAME = kept.digest(base="b", safety="s")
ABOUT = {"prompts": ["a", "ü"], "number": 0.1}


def tensors(seed: int = 1) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "x": torch.randn(2, 4, 8, 8, generator=generator),
        "half": torch.randn(3, generator=generator).half(),
        "sums": torch.randn(2, 6, generator=generator, dtype=torch.float64),
        "none": torch.zeros(0, 3),
    }


def file_of(place, name: str = NAME):
    return place / f"{name}.safetensors"


def written(place, name: str = NAME) -> None:
    kept.write(name, tensors(), ABOUT, place)
    kept.forget()


def changed_tensor(place):
    found = load_file(file_of(place))
    metadata = metadata_of(file_of(place))
    found["x"][0, 0, 0, 0] += 1e-3
    save_file(found, file_of(place), metadata)


def changed_about(place):
    metadata = metadata_of(file_of(place)) | {"about": '{"number": 1.0}'}
    save_file(load_file(file_of(place)), file_of(place), metadata)


def unsigned(place):
    save_file(load_file(file_of(place)), file_of(place))


def metadata_of(file) -> dict:
    with safe_open(str(file), framework="pt") as opened:
        return dict(opened.metadata())


def other_name(place):
    """What was measured of another merge, moved here."""
    other = kept.digest(base="b", safety="weak")
    kept.write(other, tensors(2), ABOUT, place)
    kept.forget()
    file_of(place, other).replace(file_of(place))


def other_key(place):
    (place / kept.KEY_FILE).write_bytes(os.urandom(32))


def empty_key(place):
    """With a key that anybody knows anybody could sign."""
    (place / kept.KEY_FILE).write_bytes(b"")
    metadata = metadata_of(file_of(place))
    signed = kept._signed(b"", NAME, tensors(), metadata["about"])
    save_file(tensors(), file_of(place), metadata | {"signed": signed})


def signed_alone(place):
    """The digest without a key."""
    metadata = metadata_of(file_of(place))
    metadata["signed"] = hashlib.sha256(metadata["about"].encode()).hexdigest()
    save_file(load_file(file_of(place)), file_of(place), metadata)


def not_ascii(place):
    metadata = metadata_of(file_of(place)) | {"signed": "ü" * 64}
    save_file(load_file(file_of(place)), file_of(place), metadata)


FAULTS = {
    "a tensor": changed_tensor,
    "what is beside it": changed_about,
    "no signature": unsigned,
    "another one's name": other_name,
    "another key": other_key,
    "no key": lambda place: (place / kept.KEY_FILE).unlink(),
    "an empty key": empty_key,
    "a digest in the signature's place": signed_alone,
    "a signature in other letters": not_ascii,
    "no file of this kind": lambda place: file_of(place).write_bytes(b"x" * 100),
    "an empty file": lambda place: file_of(place).write_bytes(b""),
    "half a file": lambda place: file_of(place).write_bytes(
        file_of(place).read_bytes()[: file_of(place).stat().st_size // 2]
    ),
}
