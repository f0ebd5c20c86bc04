"""`python dev.py pictures`: thumbnails of the workflows and pictures of the documents.

They are of what `python dev.py demo` made last, and with a Chromium or Chrome on this machine of
the graph itself.
"""

import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ...emoji import story
from .. import frontend, plans, workflow_variants
from ..server import PACK
from ..shipped import WORKFLOWS
from . import pages, shots

OUTPUT = PACK / "demo-output"
PAGE = OUTPUT / "index.html"
THUMBNAIL = (640, 640)  # the frame that the frontend fits it into is square
BANNER = (1260, 540)  # 21:9, as the Registry wants it
FLAGGED, CLEAR, INK = "#ea580c", "#d9e6dd", "#1f2933"


def board(lines: dict[str, list[dict]], columns: int) -> Image.Image:
    """Rows of framed pictures under their titles, as large as a thumbnail holds.

    A picture is a row of the story: its `file`, and whether it was `flagged`.
    """
    canvas = Image.new("RGB", THUMBNAIL, "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(30)
    high = (THUMBNAIL[1] - 16) // len(lines)
    side = min(high - 56, (THUMBNAIL[0] - 24) // columns - 8)
    for row, (title, shown) in enumerate(lines.items()):
        top = 10 + row * high + (high - 56 - side) // 2
        draw.text((16, top), title, fill=INK, font=font)
        for place, each in enumerate(shown[:columns]):
            left = 16 + place * (side + 8)
            edge = FLAGGED if each["flagged"] else CLEAR
            draw.rounded_rectangle((left, top + 44, left + side, top + 44 + side), 8, fill=edge)
            picture = Image.open(each["file"]).convert("RGB")
            inner = picture.resize((side - 8, side - 8), Image.Resampling.LANCZOS)
            canvas.paste(inner, (left + 4, top + 48))
    return canvas


def thumbnails(base: Path) -> dict[str, Image.Image]:
    """The thumbnail of each workflow, of what the demo made in this folder."""
    rows, harmless = (story.rows_of(base, which) for which in story.SETS)
    rows |= {f"harmless {arm}": some for arm, some in harmless.items()}
    return {
        name: board({title: rows[which] for title, which in lines.items()}, columns)
        for name, (columns, lines) in plans.BOARDS.items()
    }


def main() -> int:
    if not PAGE.is_file():
        print("Run `python dev.py demo` first: the pictures are of what it makes.", file=sys.stderr)
        return 1
    made = {WORKFLOWS / f"{name}.jpg": each for name, each in thumbnails(OUTPUT).items()}
    made[PACK / "docs" / "comparison.jpg"] = Image.open(OUTPUT / "weapons.png").convert("RGB")
    executable = frontend.chromium()
    if executable:
        with frontend.browsing(executable) as browser, shots.emoji_server() as server:
            page = frontend.opened(browser, server.url)
            for file, name, waits_for, between in (
                ("workflow", plans.MERGE, "Audited pictures", (0, 2480)),
                ("training", plans.TASK, "Loss and audited previews", (0, 2000)),
            ):
                shots.open_here(page, name)
                shots.run(page, waits_for)
                made[PACK / "docs" / f"{file}.jpg"] = shots.of_graph(page, between)
            made[PACK / "docs" / "story.jpg"] = shots.of_page(browser, PAGE, 800, 1280)
            report = story.folder_of(OUTPUT, story.SETS[0], "base") / "report.html"
            banner = OUTPUT / "banner.html"
            banner.write_text(pages.banner(OUTPUT, PACK / "docs" / "icon.svg"), encoding="utf-8")
            made[PACK / "docs" / "banner.jpg"] = shots.of_page(browser, banner, *reversed(BANNER))
            made[PACK / "docs" / "audit-report.jpg"] = shots.of_page(browser, report, 1250)
    else:
        print(
            "No Chromium or Chrome found: pictures of pages are left as they are.", file=sys.stderr
        )
    for file, picture in made.items():
        picture.save(file, quality=88, optimize=True)
        print(f"made: {file.relative_to(PACK)}")
    for file, picture in workflow_variants.thumbnails(WORKFLOWS).items():
        file.write_bytes(picture)
    return 0


if __name__ == "__main__":
    sys.exit(main())
