"""Videos: which frames are looked at, when something was found, and what is no whole film."""

import io
import json
import math
import subprocess
import sys
import time

import av
import numpy as np
import pytest
from films import CODECS, CUP, faces, film, turn
from modular_safety_lora.audit.film_audit import Watching, hiding, watch
from modular_safety_lora.audit.film_reader import clock, spans
from modular_safety_lora.audit.films import SUFFIXES, described, frame_at, open_film
from modular_safety_lora.audit.folders import workers
from modular_safety_lora.audit.folders.files import walk
from modular_safety_lora.audit.pictures import Unreadable
from modular_safety_lora.audit.rules import Rules
from modular_safety_lora.audit.words import film_in_words
from picture_folders import FACES, audited
from PIL import Image

FRONT = {"movflags": "faststart"}  # the list of packets before them


def times(path, every: float = 1.0, **told) -> list[float]:
    return [round(each.time, 3) for each in open_film(path).looks(every, **told)]


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """A film of noise in each container; its frames are told apart by their colour."""
    folder = tmp_path_factory.mktemp("films")
    noise = np.random.default_rng(0).integers(0, 60, (64, 96, 3), dtype=np.uint8)

    def picture(at: float) -> np.ndarray:
        return noise + np.uint8(30 * int(at + 1e-6))

    return {suffix: film(folder / f"film{suffix}", picture) for suffix in CODECS}


def test_each_suffix_is_tried():
    assert {*CODECS, ".m4v"} == SUFFIXES


@pytest.mark.parametrize("suffix", CODECS)
def test_a_frame_each_second_and_the_last_are_looked_at(films, suffix):
    path = films[suffix]
    assert times(path) == [0, 1, 2, 3, 4, 5, 5.9]
    assert times(path, 2.5) == [0, 2.5, 5, 5.9] and len(times(path, 0)) == 60
    assert times(path, 1.0, window=(1.95, 4.0)) == [2, 3, 3.9]
    found = open_film(path)
    for look in found.looks():
        assert look.picture.shape == (64, 96, 3) and look.number == round(10 * look.time)
        shown = 30 * int(look.time + 1e-6) + 29.5
        assert look.picture.mean() == pytest.approx(shown, abs=8)
        assert np.abs(frame_at(found, look.time).astype(int) - look.picture).mean() < 1
    assert (found.seconds, found.width, found.height) == (pytest.approx(6), 96, 64)
    assert not found.mislabelled


@pytest.mark.parametrize(
    "suffix",
    [
        ".mp4",
        ".webm",
        *(pytest.param(each, marks=pytest.mark.long) for each in (".mkv", ".mov", ".avi")),
    ],
)
def test_a_damaged_film_is_unreadable_and_never_partly_seen(films, suffix, tmp_path):
    """Cut off anywhere, or with a hole: an error, or all of it is seen that there is."""
    whole = films[suffix].read_bytes()
    path, unreadable = tmp_path / f"cut{suffix}", 0
    for part in (0.01, 0.1, 0.5, 0.8, 0.9, 0.95):
        path.write_bytes(whole[: int(part * len(whole))])
        with pytest.raises(Unreadable):
            times(path)
    for part in (0.05, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8):
        at, hole = int(part * len(whole)), len(whole) // 8
        path.write_bytes(whole[:at] + bytes(hole) + whole[at + hole :])
        try:
            assert times(path) == [0, 1, 2, 3, 4, 5, 5.9]  # VP9 has no sums of what it holds
        except Unreadable:
            unreadable += 1
    assert unreadable >= (3 if suffix == ".webm" else 6)


@pytest.mark.parametrize("sound", [False, True])
def test_a_film_cut_within_its_last_packet_is_unreadable(tmp_path, sound):
    """With its list in front all packets are counted there: only the last says that it is cut."""
    made, front = film(tmp_path / "a.mov", lambda _: CUP, 1.0, sound=sound), tmp_path / "front.mov"
    with av.open(str(made)) as source, av.open(str(front), "w", options=FRONT) as target:
        streams = {each.index: target.add_stream_from_template(each) for each in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                target.mux(packet)
    whole = front.read_bytes()
    assert times(front) == [0, 0.9]
    front.write_bytes(whole[:-5])
    with pytest.raises(Unreadable, match="a part of it is damaged"):
        times(front)


def test_what_is_no_film_or_has_no_pictures(films, tmp_path):
    (tmp_path / "empty.mkv").touch()
    (tmp_path / "text.mp4").write_text("no film")
    (tmp_path / "text.txt").write_text("no film")
    (tmp_path / "noname").write_bytes(films[".mp4"].read_bytes())
    (tmp_path / "wrong.webm").write_bytes(films[".mp4"].read_bytes())
    (tmp_path / "list.mp4").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nnoname\n")
    for name in ("sound.m4a", "sound.mp4"):
        with av.open(str(tmp_path / name), "w", format="mp4") as made:
            stream = made.add_stream("aac", rate=8000, layout="mono")
            wave = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            wave.sample_rate = 8000
            made.mux([*stream.encode(wave), *stream.encode()])
    for name in ("empty.mkv", "text.mp4", "sound.mp4", "list.mp4"):
        with pytest.raises(Unreadable):
            open_film(tmp_path / name)
    assert open_film(tmp_path / "text.txt") is None and open_film(tmp_path / "sound.m4a") is None
    assert open_film(tmp_path / "noname").format == "MP4"
    assert open_film(tmp_path / "wrong.webm").mislabelled
    with pytest.raises(Unreadable, match="more than the limit of 0.001 megapixels"):
        times(films[".mp4"], megapixels=0.001)
    buffer = io.BytesIO(films[".webm"].read_bytes())
    assert len(list(described(buffer).looks())) == 7


def test_a_turned_film_is_seen_upright(tmp_path):
    picture = np.zeros((64, 96, 3), np.uint8)
    picture[:32] = 255
    path = film(tmp_path / "turned.mp4", lambda _: picture, seconds=1.0, rate=5)
    turn(path, 96)
    look = next(open_film(path).looks())
    assert look.picture.shape == (96, 64, 3)
    halves = look.picture[:, :24].mean(), look.picture[:, 40:].mean()
    assert sorted(halves) == pytest.approx([0, 255], abs=5) and halves[1] > 200


def test_folders_tell_when_and_the_page_shows_it(tmp_path):
    folder = tmp_path / "films"
    folder.mkdir()
    faces(folder / "face.mp4", (2, 4), (5.9, 7))
    faces(folder / "cup.webm")
    broken = folder / "broken.mp4"
    broken.write_bytes((folder / "face.mp4").read_bytes()[:-2000])
    Image.fromarray(CUP).save(folder / "cup.png")
    page, report = tmp_path / "r.html", tmp_path / "r.json"
    audited(folder, "--preset", "faces", "--output", report, "--html", page, "--workers", 1)
    found = json.loads(report.read_text(encoding="utf-8"))["images"]
    rows = {row["path"].rsplit("/", 1)[1]: row for row in found}
    assert rows.keys() == {"face.mp4", "cup.webm", "cup.png"}
    assert rows["face.mp4"]["flagged_at"] == [[2, 3], [5.9, 5.9]]
    assert rows["face.mp4"]["frames_audited"] == 7 and rows["face.mp4"]["frames"] == 60
    assert {each["time"] for each in rows["face.mp4"]["detections"]} == {2, 3, 5.9}
    assert not rows["cup.webm"]["flagged"] and "flagged_at" not in rows["cup.png"]
    text = page.read_text(encoding="utf-8")
    assert "<b>2</b>videos" in text and "0:02-0:03, 0:05.9" in text and "broken.mp4" in text
    # once a second from the beginning says nothing of what lies between
    rules = Rules(FACES.preset, every=2.5)
    ((_, _, row),) = workers.audit_files([(str(folder / "face.mp4"), "")], rules)
    assert row["flagged_at"] == [[2.5, 2.5], [5.9, 5.9]]
    assert "every" in rules.identity() and "every" not in FACES.identity()
    stamps = {path.rsplit("/", 1)[1]: stamp for path, stamp in walk([folder])}
    assert stamps["face.mp4"].endswith("-film") and not stamps["cup.png"].endswith("-film")


def test_a_watched_film_says_when_and_shows_a_few_frames(tmp_path):
    found = open_film(faces(tmp_path / "face.mp4", (2, 4)))
    first = FACES.opinions()[0]
    watched = watch(found, first, every=0.2)
    summary = watched.report["summary"]
    assert summary["flagged_at"] == [[2.0, 3.8]] and summary["images"] == 31
    assert len(watched.shown) == 12 and sum(each["flagged"] for each, _ in watched.shown) >= 5
    assert "0:02-0:03.8" in film_in_words(summary, "none")
    hides = hiding(watch(found, first).report["images"])
    assert [at for at in np.arange(0, 6, 0.1).round(1) if hides(at)] == pytest.approx(
        np.arange(1.1, 3.95, 0.1)
    )
    assert not hides(1.0) and not hides(4.0)
    with pytest.raises(Unreadable):
        watch(described(io.BytesIO(b"")), first)


def test_spans_and_clock():
    assert spans([(0, True), (1, True), (2, False), (3.25, True)]) == [[0, 1], [3.25, 3.25]]
    assert spans([]) == [] and spans([(0.0, False)]) == []
    told = {0: "0:00", 7.04: "0:07", 7.5: "0:07.5", 59.96: "1:00", 3723: "1:02:03"}
    assert {at: clock(at) for at in told} == told
    for wrong in ({"every": -1.0}, {"every": math.nan}, {"action": "annotate"}):
        with pytest.raises(ValueError):
            Watching(**wrong)


PEAK = """
import resource, sys
from modular_safety_lora.audit.folders.workers import audit_files
from modular_safety_lora.audit.presets import PRESETS
from modular_safety_lora.audit.rules import Rules
((_, _, row),) = audit_files([(sys.argv[1], "")], Rules(PRESETS["faces"]))
print(row["frames_audited"], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.long
def test_an_hour_of_film_takes_no_more_memory_than_a_minute(tmp_path):
    peaks = {}
    for minutes in (1, 60):
        path = film(
            tmp_path / f"{minutes}.mp4",
            lambda at: np.full((144, 176, 3), int(at) % 200, np.uint8),
            seconds=60 * minutes,
        )
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", PEAK, str(path)], capture_output=True, text=True, check=True
        )
        looks, peaks[minutes] = map(int, done.stdout.split())
        print(f"{minutes} min: {looks} looks, {peaks[minutes]} MB", time.perf_counter() - began)
        assert looks == 60 * minutes + 1
    assert peaks[60] - peaks[1] < 40
