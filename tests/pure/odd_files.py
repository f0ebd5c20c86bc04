"""A folder of the files that datasets really hold: any depth, colour space, damage, false name."""

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data


def write(folder: Path) -> dict[str, str]:
    """Write the files; return what an audit must say of each.

    That is `face` (found), `clear`, `unreadable`, or `other` (no picture).
    """
    folder.mkdir(parents=True, exist_ok=True)
    face = Image.fromarray(data.astronaut())
    clear = Image.fromarray(data.coffee()).resize((300, 200))
    expected = {}

    def save(name: str, image: Image.Image, verdict: str, **how) -> None:
        image.save(folder / name, **how)
        expected[name] = verdict

    save("face.jpg", face, "face", quality=95)
    save("face.png", face, "face")
    save("face.webp", face, "face")
    save("face.bmp", face, "face")
    save("face.tif", face, "face")
    save("face.avif", face, "face")
    save("face.ppm", face, "face")
    save("cup.png", clear, "clear")
    save("cmyk.jpg", face.convert("CMYK"), "face", quality=95)
    save("palette.png", face.quantize(256), "face")
    save("palette.gif", face, "face")
    save("grey.png", face.convert("L"), "face")
    save("bits.png", clear.convert("1"), "clear")
    save("lab.tif", face.convert("LAB"), "face")
    alpha = face.copy()
    alpha.putalpha(40)
    save("transparent.png", alpha, "face")
    grey = np.asarray(face.convert("L"))
    save("16 bit.png", Image.fromarray(grey.astype(np.uint16) * 257), "face")
    save("16 bit.tif", Image.fromarray(grey.astype(np.uint16) * 257), "face")
    save("float.tif", Image.fromarray(grey.astype(np.float32) / 255), "face")
    save("nan.tif", Image.fromarray(np.full((9, 9), np.nan, np.float32)), "unreadable")
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    save("turned.jpg", face.rotate(180), "face", exif=exif, quality=95)
    save(
        "animated.gif",
        clear,
        "face",
        save_all=True,
        append_images=[clear.rotate(3), face.resize((300, 200))],
    )
    save(
        "animated.webp",
        clear,
        "face",
        save_all=True,
        append_images=[face.resize((300, 300)).crop((0, 0, 300, 200))] * 3,
    )
    save("pages.tif", clear, "face", save_all=True, append_images=[face])
    save("jpeg called.png", face, "face", format="JPEG", quality=95)
    save("png called.txt", face, "face", format="PNG")
    save("no suffix", face, "face", format="PNG")
    save("tiny.png", Image.new("RGB", (1, 1)), "clear")
    save("long.png", Image.new("RGB", (9000, 2)), "clear")

    def put(name: str, content: bytes, verdict: str) -> None:
        (folder / name).write_bytes(content)
        expected[name] = verdict

    whole = (folder / "face.jpg").read_bytes()
    put("cut off.jpg", whole[: len(whole) // 2], "unreadable")
    put("empty.png", b"", "unreadable")
    put("empty.txt", b"", "other")
    put("text called.jpg", b"this is a caption", "unreadable")
    put("caption.txt", b"a photo of an astronaut", "other")
    put("table.parquet", b"PAR1" + bytes(100), "other")
    damaged = bytearray((folder / "face.png").read_bytes())
    damaged[5000:5200] = bytes(200)
    put("damaged.png", bytes(damaged), "unreadable")
    put("huge.png", png_of_size(60_000, 60_000), "unreadable")
    put("noise.webp", b"RIFF" + struct.pack("<I", 100) + b"WEBP" + bytes(92), "unreadable")
    (folder / "broken link.jpg").symlink_to(folder / "absent.jpg")
    expected["broken link.jpg"] = "unreadable"
    return expected


def png_of_size(width: int, height: int) -> bytes:
    """A PNG that claims a size, of zeros that take little room: what would need 10 GB decoded."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )
