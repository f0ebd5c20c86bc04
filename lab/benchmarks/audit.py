"""The audit's batched detector against the ONNX session alone and NudeNet's `detect_batch`.

    .venv/bin/python -m modular_safety_lora.lab.benchmarks audit [--pictures 64] [--memory 10000]

Pictures are 512 x 512, uint8, in memory. `session` runs the ONNX session of the package on batches
prepared before; `ours` and `detect_batch` (NudeNet's own) do everything from pictures to
detections, one session each, in turns of random order; `its own session` is the time that ours
spent inside its session in the same pass. `decode` is the step from the network's output to
detections alone. The last part audits pictures one after the other from a generator, as the node
reads them, and tells the memory of the process after each tenth.
"""

import random
import statistics

import numpy as np
import psutil
from nudenet import NudeDetector
from nudenet.nudenet import _postprocess, _read_image
from skimage.data import astronaut

from ...audit.detectors.batches import detections
from ...audit.detectors.registry import find
from ...audit.detectors.yolo import letterbox
from ...audit.presets import PRESETS
from ...audit.report import audit
from . import harness

BATCHES = (1, 4, 8, 16)
TURNS = 15
FLAGS = {
    "pictures": 64,
    "memory": {"type": int, "default": 10_000, "help": "pictures of that part; 0 leaves it out"},
}


def main(options) -> None:
    face = astronaut()
    pictures = [
        np.ascontiguousarray(np.roll(face, 5 * number, axis=1))
        for number in range(options.pictures)
    ]
    _throughput(pictures)
    _decode(pictures[:64])
    if options.memory:
        _memory(options.memory)


def _throughput(pictures: list) -> None:
    package, ours = NudeDetector(), find()
    blobs = np.empty((len(pictures), 3, ours.size, ours.size), np.float32)
    for picture, place in zip(pictures, blobs, strict=True):
        letterbox(picture, place)
    print(
        f"{len(pictures)} pictures, {ours.name} {ours.version}, onnxruntime on {ours.provider};"
        f" medians of {TURNS} turns"
    )
    harness.head(
        *("batch", "session, ms a picture", "ours", "detect_batch"),
        *("ours / its own session", "ours / session", "detect_batch / session"),
    )
    best, shuffle = {}, random.Random(0)
    for size in BATCHES:
        ours.batch = size

        def session(size=size):
            for start in range(0, len(blobs), size):
                package.onnx_session.run(None, {package.input_name: blobs[start : start + size]})

        arms = {
            "session": session,
            "ours": lambda: list(detections(ours, pictures)),
            "package": lambda size=size: package.detect_batch(pictures, size),
        }
        times, own = {name: [] for name in arms}, []
        for turn in range(TURNS + 1):
            # whoever comes first is the faster one
            for name, work in shuffle.sample(sorted(arms.items()), len(arms)):
                with harness.watched(ours.network, "run") as inside:
                    took = harness.seconds(work)
                if turn:  # the first is warm-up
                    times[name].append(took / len(pictures) * 1e3)
                    own += [took / inside.seconds] if name == "ours" else []
        middle = {name: statistics.median(values) for name, values in times.items()}
        ratios = [
            statistics.median(np.divide(times[name], times["session"]))
            for name in ("ours", "package")
        ]
        best = {name: min(best.get(name, value), value) for name, value in middle.items()}
        ratios.insert(0, statistics.median(own))
        harness.row(
            size,
            *(f"{value:.2f}" for value in middle.values()),
            *(f"{each:.3f}" for each in ratios),
        )
    print(f"At their best batch sizes: detect_batch / ours = {best['package'] / best['ours']:.2f}")


def _decode(pictures: list) -> None:
    package, ours = NudeDetector(), find()
    outputs = [
        package.onnx_session.run(None, {package.input_name: _read_image(each)[0]})[0]
        for each in pictures
    ]
    arms = {
        "package": lambda each: _postprocess([each], 0, 0, 1, 1, 512, 512, 320, 320),
        "ours": lambda each: ours._decode(each[0], 512, 512),
    }
    a, b = (
        harness.median(lambda work=work: [work(each) for each in outputs], TURNS) / len(pictures)
        for work in arms.values()
    )
    print(f"decode: package {1e3 * a:.3f} ms a picture, ours {1e3 * b:.4f} ms, {a / b:.0f}x")


def _memory(count: int) -> None:
    face, process, seen = astronaut().astype(np.float32) / 255, psutil.Process(), []

    def pictures():
        for number in range(count):
            if number % max(1, count // 10) == 0:
                seen.append(process.memory_info().rss / 2**20)
            yield np.roll(face, number, axis=1)

    reports = []
    took = harness.seconds(lambda: reports.append(audit(pictures(), PRESETS["faces"])))
    seen.append(process.memory_info().rss / 2**20)
    verdict = reports[0]["summary"]["verdict"]
    print(f"{count} pictures from ComfyUI's floats in {took:.0f} s, {verdict}")
    print("MB after each tenth: " + " ".join(f"{value:.0f}" for value in seen))
