"""Ways by which a picture leaves a ComfyUI with stock nodes and routes, or another pack's."""

import json
import struct
import zipfile
from base64 import b64encode
from io import BytesIO

import comfy_extras.nodes_images as images
import comfy_extras.nodes_video as videos
import folder_paths
import numpy as np
import requests
from gated import FACE, HARMLESS, House, encoded, film, image, png
from PIL import Image
from protocol import BinaryEventTypes as Event
from safetensors.numpy import save
from ways_of_nodes import decoded, latent, node, save_image, vae
from ways_of_packs import beside_its_scripts, by_its_socket, other

import nodes

FRAMES = [HARMLESS] * 5 + [FACE]
CLEAR = np.dstack([np.full_like(FACE, 255), FACE[..., 1]])  # a face in the transparency


def overwritten(house: House) -> list[bytes]:
    name = house.put(png(HARMLESS))
    first = house.get("/view", filename=name).content
    assert first == png(HARMLESS)
    house.put(png(FACE), name)
    return [house.get("/view", filename=name).content]


def in_ranges(house: House) -> list[bytes]:
    name, size = house.put(encoded(FACE, "BMP")), len(encoded(FACE, "BMP"))
    parts = [
        house.get("/view", {"Range": f"bytes={at}-{at + 9999}"}, filename=name).content
        for at in range(0, size, 10_000)
    ]
    return [b"".join(parts)]


def compressed_twin(house: House) -> list[bytes]:
    name = house.put(png(HARMLESS))
    house.put(png(FACE), f"{name}.gz")
    answer = requests.get(
        f"{house.url}/view",
        {"filename": name},
        headers={"Accept-Encoding": "gzip"},
        stream=True,
        timeout=60,
    )
    return [answer.raw.read()]


def uploaded(route: str):
    def got(house: House) -> list[bytes]:
        sent = {"image": ("up.png", png(FACE))}
        told = {"original_ref": json.dumps({"filename": house.put(png(FACE)), "type": "output"})}
        answer = requests.post(f"{house.url}{route}", files=sent, data=told, timeout=60).json()
        return [house.get("/view", filename=answer["name"], type="input").content]

    return got


def userdata(house: House) -> list[bytes]:
    requests.post(f"{house.url}/userdata/a.json", data=png(FACE), timeout=60)
    return [house.get("/userdata/a.json").content]


def beside_a_model(house: House) -> list[bytes]:
    folder = house.folder / "models"
    folder.mkdir(exist_ok=True)
    (folder / "m.safetensors").write_bytes(save({"a": np.zeros(1, np.float32)}))
    (folder / "m.png").write_bytes(png(FACE))
    return preview_of_model(house, folder)


def in_a_model(house: House) -> list[bytes]:
    folder = house.folder / "covered"
    folder.mkdir(exist_ok=True)
    metadata = {"ssmd_cover_images": json.dumps([b64encode(png(FACE)).decode()])}
    (folder / "m.safetensors").write_bytes(save({"a": np.zeros(1, np.float32)}, metadata))
    return preview_of_model(house, folder)


def preview_of_model(house: House, folder) -> list[bytes]:
    folder_paths.folder_names_and_paths["tried"] = ([str(folder)], {".safetensors"})
    try:
        return [house.get("/experiment/models/preview/tried/0/m.safetensors").content]
    finally:
        del folder_paths.folder_names_and_paths["tried"]


def archived() -> bytes:
    written = BytesIO()
    with zipfile.ZipFile(written, "w") as file:
        file.writestr("a.png", png(FACE))
    return written.getvalue()


def drawing() -> bytes:
    inside = b64encode(png(FACE)).decode()
    return (
        "<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg' width='224' height='224'>"
        f"<image href='data:image/png;base64,{inside}'/></svg>"
    ).encode()


def as_text() -> bytes:
    rows = "\n".join(" ".join(map(str, row.reshape(-1))) for row in FACE)
    return f"P3\n224 224\n255\n{rows}\n".encode()


def messages(*sent):
    """What leaves by the websocket, each without the host's head where it has a known one."""

    def got(house: House) -> list[bytes]:
        found = []
        for each in house.sent(*sent):
            kind, head = struct.unpack(">II", each[:8])
            start = 8 + head if kind == Event.PREVIEW_IMAGE_WITH_METADATA else 8
            found += [each[start:], each[4:]]
        return found

    return got


def animated(kind: str):
    return lambda house: [
        house.view(encoded(FRAMES[0], kind, FRAMES[1:], duration=100), f"a.{kind.lower()}")
    ]


def video(*frames):
    """What Create Video gives."""
    return videos.CreateVideo.execute(image(*frames), 6.0).args[0]


FACE_MESSAGE = ("PNG", Image.fromarray(FACE), None)
WAYS = {
    "VAE Decode, Save Image": lambda h: save_image(h, decoded(FACE)),
    "VAE Decode, Preview Image": lambda h: h.saved(nodes.PreviewImage().save_images(decoded(FACE))),
    "VAE Decode (Tiled)": lambda h: save_image(
        h, nodes.VAEDecodeTiled().decode(vae(), latent(FACE), 512)[0]
    ),
    "the last of a batch of three": lambda h: save_image(h, decoded(HARMLESS, HARMLESS, FACE)),
    "Load Image, Save Image": lambda h: save_image(h, image(FACE)),
    "Save Animated WEBP": lambda h: node(
        images.SaveAnimatedWEBP,
        h,
        images=image(*FRAMES),
        fps=6.0,
        lossless=True,
        quality=90,
        method="default",
    ),
    "Save Animated PNG": lambda h: node(
        images.SaveAnimatedPNG, h, images=image(*FRAMES), fps=6.0, compress_level=4
    ),
    "Save WEBM": lambda h: node(
        videos.SaveWEBM, h, images=image(*FRAMES), codec="vp9", fps=6.0, crf=20
    ),
    "Create Video, Save Video": lambda h: node(
        videos.SaveVideo, h, video=video(*FRAMES), format="auto", codec={"codec": "auto"}
    ),
    "Save Image (Websocket)": messages((Event.UNENCODED_PREVIEW_IMAGE, FACE_MESSAGE)),
    "a preview with metadata": messages(
        (Event.PREVIEW_IMAGE_WITH_METADATA, (FACE_MESSAGE, {"node_id": "1"}))
    ),
    "a message that another pack packs": messages((Event.PREVIEW_IMAGE, b"\0\0\0\2" + png(FACE))),
    "a message of an unknown kind": messages((99, b"\0\0\0\0" + png(FACE))),
    "a picture sent as a text": messages((Event.TEXT, b"\0\0\0\0" + png(FACE))),
    "`/view` of what another pack wrote": lambda h: [h.view(png(FACE))],
    "`/api/view`": lambda h: [h.get("/api/view", filename=h.put(png(FACE))).content],
    "`/view?preview=webp;90`": lambda h: [h.view(png(FACE), preview="webp;90")],
    "`/view?preview=jpeg;50`": lambda h: [h.view(png(FACE), preview="jpeg;50")],
    "`/view?channel=rgb`, hidden under full transparency": lambda h: [
        h.view(png(np.dstack([FACE, np.zeros_like(FACE[..., 0])])), channel="rgb")
    ],
    "`/view?channel=a`, a picture in the transparency": lambda h: [h.view(png(CLEAR), channel="a")],
    "`/view` of a picture in the transparency": lambda h: [h.view(png(CLEAR))],
    "`/view?type=temp`": lambda h: [h.view(png(FACE), place="temp")],
    "`/view?type=input`": lambda h: [h.view(png(FACE), place="input")],
    "`/view` with a subfolder": lambda h: [
        h.put(png(FACE), "sub/a.png") and h.get("/view", filename="a.png", subfolder="sub").content
    ],
    "`/view` of `a.png [input]`": lambda h: [
        h.put(png(FACE), "a.png", "input") and h.get("/view", filename="a.png [input]").content
    ],
    "`/view` in ranges of bytes": in_ranges,
    "`/view` of a picture named `.txt`": lambda h: [h.view(png(FACE), "a.txt")],
    "`/view` with a compressed twin beside a harmless file": compressed_twin,
    "`/view` of a file that was harmless when it was looked at": overwritten,
    "`/view` of JPEG": lambda h: [h.view(encoded(FACE, "JPEG"), "a.jpg")],
    "`/view` of AVIF": lambda h: [h.view(encoded(FACE, "AVIF"), "a.avif")],
    "`/view` of a TIFF's second page": animated("TIFF"),
    "`/view` of a late frame, GIF": animated("GIF"),
    "`/view` of a late frame, WebP": animated("WEBP"),
    "`/view` of a late frame, PNG": animated("PNG"),
    "`/view` of MP4": lambda h: [h.view(film(FRAMES), "a.mp4")],
    "`/view` of WebM": lambda h: [h.view(film(FRAMES, "webm", "libvpx-vp9"), "a.webm")],
    "`/view` of a picture written as text (PPM)": lambda h: [h.view(as_text(), "a.ppm")],
    "`/view` of an SVG with a picture inside": lambda h: [h.view(drawing(), "a.svg")],
    "`/view` of an archive": lambda h: [h.view(archived(), "a.zip")],
    "`/view` of half a PNG": lambda h: [h.view(png(FACE)[:-20_000], "half.png")],
    "`/upload/image`, then `/view`": uploaded("/upload/image"),
    "`/upload/mask`, then `/view`": uploaded("/upload/mask"),
    "`/userdata`": userdata,
    "a model's preview, beside it": beside_a_model,
    "a model's preview, in its metadata": in_a_model,
    "another pack's route: bytes that it calls text": other("bytes"),
    "another pack's route: a file": other("file"),
    "another pack's route: a stream": other("stream"),
    "another pack's route: a stream that it calls text": other("called-text"),
    "another pack's route: a stream that it calls text, all in its end": other("called-text?whole"),
    "another pack's route: a stream of its own kind that it calls text": other("own"),
    "another pack's route: an iterated body": other("iterated"),
    "another pack's route: a file that it sends itself": other("prepared"),
    "another pack's route: an answer that it raises": other("raised"),
    "another pack's websocket": by_its_socket,
    "another pack's folder of scripts, where it saved a picture": beside_its_scripts,
}
