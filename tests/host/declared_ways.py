"""Ways out that the gates do not close; each gives the picture that someone has elsewhere."""

from base64 import b64decode, b64encode
from io import BytesIO

import numpy as np
import torch
from gated import FACE, HARMLESS, House, film, png
from PIL import Image, PngImagePlugin
from safetensors.torch import load, save
from ways_of_nodes import latent


def small_in_a_large_one(house: House) -> np.ndarray:
    large = np.pad(FACE, ((0, 3000), (0, 3000), (0, 0)))
    return pixels(house.view(png(large, compress_level=1)))[:224, :224]


def strips(house: House) -> np.ndarray:
    parts = [
        pixels(house.view(png(np.ascontiguousarray(FACE[at : at + 16]))))
        for at in range(0, len(FACE), 16)
    ]
    return np.concatenate(parts)


def in_a_text(house: House) -> np.ndarray:
    return pixels(b64decode(house.view(b64encode(png(FACE)), "a.txt")))


def in_metadata(house: House) -> np.ndarray:
    told, written = PngImagePlugin.PngInfo(), BytesIO()
    told.add_text("workflow", b64encode(png(FACE)).decode())
    Image.fromarray(HARMLESS).save(written, "PNG", pnginfo=told)
    return pixels(b64decode(Image.open(BytesIO(house.view(written.getvalue()))).text["workflow"]))


def as_latent(house: House) -> np.ndarray:
    content = house.view(save({"latent_tensor": latent(FACE)["samples"].contiguous()}), "a.latent")
    values = (load(content)["latent_tensor"][0].movedim(0, -1) + 1) / 2
    return (values * 255).round().to(torch.uint8).numpy()


def between_looks(house: House) -> np.ndarray:
    """Frame 241 of a film of 250: of those after 240, every second one is looked at."""
    import av

    frames = [HARMLESS] * 250
    frames[241] = FACE
    content = house.view(film(frames), "long.mp4")
    with av.open(BytesIO(content)) as container:
        shown = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return shown[241]


def pixels(content: bytes) -> np.ndarray:
    return np.array(Image.open(BytesIO(content)).convert("RGB"))


DECLARED = {
    "a small picture in a large black one, cut out elsewhere": (
        "a detector flags what it knows, and misses what is tiny, distorted or drawn",
        small_in_a_large_one,
    ),
    "strips of a picture, joined elsewhere": ("each is too little to know", strips),
    "Save Latent, decoded elsewhere": ("tensors are no picture yet", as_latent),
    "a picture as text (base64)": ("text is not decoded", in_a_text),
    "a picture in another one's metadata": ("what a viewer shows is looked at", in_metadata),
    "one frame late in a long video": (
        "of a video the first 240 frames are looked at, then every 2nd, 4th, 8th and so on, 240"
        " times each; of an animation 240, evenly spread",
        between_looks,
    ),
}
