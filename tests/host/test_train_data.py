"""What training reads: sockets, and a folder's pictures as ComfyUI's LoadImage shows them.

The audit's own reader reads them.
"""

import os
import warnings

import folder_paths
import merging
import numpy as np
import pytest
import torch
from modular_safety_lora.host.prompts import lines_of
from modular_safety_lora.training import captions, data
from PIL import Image, ImageOps
from skimage.data import astronaut

import nodes

FACE = Image.fromarray(astronaut())
GREY = np.asarray(FACE.convert("L")).astype(np.uint16) * 257


def captioned(folder, name: str, image: Image.Image, **how) -> data.Captioned:
    image.save(folder / name, **how)
    return data.Captioned(folder / name, "a caption")


def pixels_of(picture: data.Captioned, resolution: int = 512) -> torch.Tensor:
    """What the encoder is given of one picture: (1, H, W, 3)."""
    seen = []
    data.load(
        data.sized([picture], resolution),
        lambda pixels: seen.append(pixels) or pixels,
        lambda texts: {text: [] for text in texts},
    )
    return seen[0]


def turned(folder) -> data.Captioned:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    return captioned(folder, "turned.jpg", FACE.rotate(90, expand=True), exif=exif, quality=95)


def faint(folder, name: str, **how) -> data.Captioned:
    image = FACE.copy()
    image.putalpha(Image.fromarray(np.tile(np.arange(512, dtype=np.uint8) // 2, (512, 1))))
    return captioned(folder, name, image, **how)


@pytest.mark.parametrize(
    "made",
    [
        lambda folder: captioned(folder, "16 bit.png", Image.fromarray(GREY)),
        lambda folder: captioned(folder, "16 bit.tif", Image.fromarray(GREY)),
        lambda folder: captioned(folder, "plain.png", FACE),
        lambda folder: captioned(folder, "palette.png", FACE.convert("P"), transparency=3),
        lambda folder: captioned(folder, "grey and alpha.png", FACE.convert("LA")),
        lambda folder: captioned(folder, "cmyk.jpg", FACE.convert("CMYK"), quality=95),
        lambda folder: captioned(
            folder,
            "moving.webp",
            FACE,
            save_all=True,
            append_images=[FACE.rotate(90)],
            lossless=True,
        ),
        lambda folder: faint(folder, "alpha.png"),
        lambda folder: faint(folder, "alpha.webp", lossless=True),
        turned,
    ],
)
def test_a_picture_trains_as_the_hosts_loader_shows_it(tmp_path, monkeypatch, made):
    """Orientation applied, transparency dropped, 16 bits scaled, an animation's first frame."""
    picture = made(tmp_path)
    monkeypatch.setattr(folder_paths, "input_directory", str(tmp_path))
    shown = nodes.LoadImage().load_image(picture.path.name)[0][:1]
    pixels = pixels_of(picture)
    assert pixels.shape == shown.shape == (1, 512, 512, 3)
    assert (pixels - shown).abs().mean() < 0.006, "more than the rounding of two decoders"


def test_floats_and_16_bits_are_scaled_not_cut_off(tmp_path):
    """ComfyUI's loader reads a float TIFF as black; 0.498 is what the audit sees of the grey."""
    floats = captioned(tmp_path, "float.tif", Image.fromarray(np.full((64, 64), 0.5, np.float32)))
    deep = captioned(tmp_path, "16 bit.png", Image.fromarray(np.full((64, 64), 32768, np.uint16)))
    assert pixels_of(floats).mean() == pytest.approx(0.498, abs=1e-3)
    assert pixels_of(deep).mean() == pytest.approx(0.498, abs=1e-3)


def test_a_plain_picture_is_fitted_to_the_bit_as_pillow_does(tmp_path):
    for number, size in enumerate([(300, 200), (200, 300), (512, 512), (900, 300)]):
        picture = captioned(tmp_path, f"{number}.png", FACE.resize(size))
        pixels = pixels_of(picture, 128)
        expected = ImageOps.fit(
            FACE.resize(size), data.bucket_size(*size, 128), Image.Resampling.LANCZOS
        )
        assert torch.equal(pixels[0], torch.from_numpy(np.asarray(expected, np.float32) / 255.0))


@pytest.mark.parametrize("size", [(60_000, 60_000), (10_000, 9_500)])
def test_a_decompression_bomb_is_an_error_with_count_and_file(tmp_path, monkeypatch, size):
    """The first is what Pillow refuses to open, the second what it only warns of.

    Neither is decoded.
    """
    from pure.odd_files import png_of_size

    fine = captioned(tmp_path, "fine.png", FACE)
    (tmp_path / "bomb.png").write_bytes(png_of_size(*size))
    pictures = [
        fine,
        data.Captioned(tmp_path / "bomb.png", ""),
        data.Captioned(tmp_path / "bomb.png", ""),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own, of the second
        with pytest.raises(
            data.DataError, match=r"2 of 3 pictures can't be read \(first: bomb.png: .*megapixels\)"
        ):
            data.sized(pictures)


def test_what_is_no_picture_or_not_there_is_named_with_the_others(tmp_path):
    (tmp_path / "notes").write_text("no picture")
    fine = captioned(tmp_path, "fine.png", FACE)
    gone = data.Captioned(tmp_path / "gone.png", "")
    with pytest.raises(
        data.DataError, match=r"2 of 3 pictures can't be read \(first: notes: .*Remove them"
    ):
        data.sized([fine, data.Captioned(tmp_path / "notes", ""), gone])


def test_only_line_ends_end_a_line(tmp_path):
    odd = "one\u2028two\u0085three"
    assert lines_of(f"{odd}\r\n\n next \rlast") == [odd, "next", "last"]
    captioned(tmp_path, "a.png", FACE)
    listed = '{"file_name": "a.png", "text": "one\u2028two\u0085three"}\n'
    (tmp_path / "metadata.jsonl").write_text(listed, encoding="utf-8")
    assert [each.caption for each in captions.find_pictures(tmp_path)] == [odd]


def test_the_sockets_of_the_stock_dataset_nodes_are_read(texts):
    one, two = torch.ones(1, 4, 8, 8), torch.zeros(2, 4, 8, 16)
    listed = data.of_sockets(
        [{"samples": one}, {"samples": two}], [texts["a cat"], texts["a dog"], texts["nude"]]
    )
    bucketed = data.of_sockets(
        [{"samples": one}, {"samples": two}], [texts["a cat"], [*texts["a dog"], *texts["nude"]]]
    )
    assert listed.sha256 == bucketed.sha256 and [tuple(each.shape) for each in listed.latents] == [
        (1, 4, 8, 8),
        (1, 4, 8, 16),
        (1, 4, 8, 16),
    ]
    assert sorted(map(sorted, listed.buckets)) == [[0], [1, 2]] and torch.equal(
        listed.conditions[2][0][0], texts["nude"][0][0]
    )
    shared = data.of_sockets([{"samples": two}], [texts["a cat"]])
    assert len(shared.conditions) == 2 and shared.sha256 != listed.sha256
    with pytest.raises(data.DataError, match="latents has 2 pictures, positive has 3 texts"):
        data.of_sockets([{"samples": two}], [texts["a cat"]] * 3)
    with pytest.raises(data.DataError, match="no pictures to train on"):
        data.of_sockets([], [texts["a cat"]])


def test_the_empty_prompt_among_the_sockets_texts_is_told(texts):
    latents = [{"samples": torch.zeros(1, 4, 8, 8)}] * 3
    again = [[texts[""][0][0].clone() + 1e-5, {}]]
    found = data.of_sockets(latents, [texts["a cat"], again, texts["a dog"]])
    assert found.warnings == () and data.warned(found, texts["nude"], "positive").warnings == []
    (told,) = data.warned(found, texts[""], "positive").warnings
    assert told.startswith("positive: 1 of 3 pictures without a caption (first: number 2), trained")
    (told,) = data.warned(found, texts[""], "positive", ["b.png"]).warnings
    assert "(first: b.png)" in told
    (told,) = data.warned(found, texts[""], "positive", ["b.png", "c.png"]).warnings
    assert "(first: number 2)" in told  # those files are not what was trained on
    shared = data.of_sockets(latents, [texts[""]])
    (told,) = data.warned(shared, texts[""], "positive").warnings
    assert told.startswith("positive: not one of 3 pictures has a caption")


def test_bad_data_names_the_count_and_the_first(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(data.DataError, match="no pictures in it"):
        captions.find_pictures(tmp_path / "empty")
    with pytest.raises(data.DataError, match="there is no such folder"):
        captions.find_pictures(tmp_path / "missing")
    folder = merging.picture_folder(tmp_path / "data")
    assert [each.caption for each in captions.find_pictures(folder)] == [
        "a picture 0",
        "a picture 1",
        "a picture 0",
    ]
    (folder / "1.txt").unlink()
    with pytest.raises(data.DataError, match=r"1 of 3 pictures without a caption \(first: 1.png\)"):
        captions.find_pictures(folder)
    (folder / "1.txt").write_text("")
    assert "1 of 3 pictures without a caption (first: 1.png)" in data.of_folder(folder).warnings[0]
    (folder / "lonely.txt").write_text("x")
    with pytest.raises(data.DataError, match=r"1 caption without a picture \(first: lonely.txt\)"):
        captions.find_pictures(folder)
    (folder / "lonely.txt").unlink()
    (folder / "2.png").write_bytes((folder / "2.png").read_bytes()[:40])
    with pytest.raises(data.DataError, match=r"1 of 3 pictures can't be read \(first: 2.png"):
        data.sized(captions.find_pictures(folder))
    (folder / "metadata.jsonl").write_text('{"file_name": "0.png", "text": "zero"}\n\n')
    assert [each.caption for each in captions.find_pictures(folder)] == ["zero"]
    (folder / "metadata.jsonl").write_text('{"file_name": "gone.png", "text": "zero"}\n{}\n')
    with pytest.raises(data.DataError, match=r"line 1 names gone.png, which does not exist"):
        captions.find_pictures(folder)


def test_buckets_keep_the_aspect_ratio_and_the_area():
    # a small model's pictures keep their size: 96 was once rounded to 128
    assert data.bucket_size(96, 96, 96) == (96, 96) and data.bucket_size(200, 200, 72) == (72, 72)
    assert data.bucket_size(512, 512, 512) == (512, 512) and data.bucket_size(1024, 512, 512) == (
        704,
        384,
    )
    for width, height in ((640, 480), (300, 1000), (4000, 300), (64, 64)):
        bucket = data.bucket_size(width, height, 512)
        assert (
            all(side % 64 == 0 for side in bucket) and 0.8 < bucket[0] * bucket[1] / 512**2 < 1.25
        )


@pytest.mark.skipif(os.name == "nt", reason="names are Unicode there")
def test_training_data_of_any_name_has_a_digest(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    Image.new("RGB", (64, 64)).save(tmp_path / name)
    (tmp_path / name).with_suffix(".txt").write_text("a cup")
    found = data.sized(captions.find_pictures(tmp_path), 64)
    Image.new("RGB", (64, 64)).save(tmp_path / "plain.png")
    other = data.sized([data.Captioned(tmp_path / "plain.png", "a cup")], 64)
    assert len(found.sha256) == 64 and found.sha256 != other.sha256
