"""The audit's batched detector against the ONNX session alone and NudeNet's `detect_batch`.

    .venv/bin/python -m modular_safety_lora.lab.benchmarks.audit [--pictures 64] [--memory 10000]

Pictures are 512 x 512, uint8, in memory. `session` runs the ONNX session of the package on batches
prepared before; `ours` and `detect_batch` (NudeNet's own) do everything from pictures to
detections, one session each, in turns of random order; `its own session` is the time that ours
spent inside its session in the same pass. `decode` is the step from the network's output to
detections alone. The last part audits pictures one after the other from a generator, as the node
reads them, and tells the memory of the process after each tenth.
"""

import argparse
import random
import statistics
import time

BATCHES = (1, 4, 8, 16)
TURNS = 15


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument(
        "--memory", type=int, default=10_000, help="pictures of the memory part; 0 leaves it out"
    )
    options = parser.parse_args()
    import numpy as np
    from skimage.data import astronaut

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
    import numpy as np
    from nudenet import NudeDetector

    from ...audit.detectors.batches import detections
    from ...audit.detectors.registry import find
    from ...audit.detectors.yolo import letterbox

    package, ours = NudeDetector(), find()
    blobs = np.empty((len(pictures), 3, ours.size, ours.size), np.float32)
    for picture, place in zip(pictures, blobs, strict=True):
        letterbox(picture, place)
    inside, plain = Stopwatch(), ours.network.run
    ours.network.run = lambda batch: inside.of(plain, batch)
    print(
        f"{len(pictures)} pictures, {ours.name} {ours.version}, onnxruntime on {ours.provider};"
        f" medians of {TURNS} turns"
    )
    print(
        "| batch | session, ms a picture | ours | detect_batch "
        "| ours / its own session | ours / session | detect_batch / session |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    best, shuffle = {}, random.Random(0)
    for size in BATCHES:
        ours.batch, whole = size, Stopwatch()

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
                inside.seconds = whole.seconds = 0.0
                whole.of(work)
                if turn:  # the first is warm-up
                    times[name].append(whole.seconds / len(pictures) * 1e3)
                    own += [whole.seconds / inside.seconds] if name == "ours" else []
        middle = {name: statistics.median(values) for name, values in times.items()}
        ratios = [
            statistics.median(np.divide(times[name], times["session"]))
            for name in ("ours", "package")
        ]
        best = {name: min(best.get(name, value), value) for name, value in middle.items()}
        cells = [
            *(f"{value:.2f}" for value in middle.values()),
            *(f"{each:.3f}" for each in (statistics.median(own), *ratios)),
        ]
        print(f"| {size} | {' | '.join(cells)} |", flush=True)
    ours.network.run = plain
    print(f"At their best batch sizes: detect_batch / ours = {best['package'] / best['ours']:.2f}")


class Stopwatch:
    """Seconds spent in calls."""

    seconds = 0.0

    def of(self, work, *arguments, **named):
        start = time.perf_counter()
        result = work(*arguments, **named)
        self.seconds += time.perf_counter() - start
        return result


def _decode(pictures: list) -> None:
    from nudenet import NudeDetector
    from nudenet.nudenet import _postprocess, _read_image

    from ...audit.detectors.registry import find

    package, ours = NudeDetector(), find()
    outputs = [
        package.onnx_session.run(None, {package.input_name: _read_image(each)[0]})[0]
        for each in pictures
    ]
    theirs, mine = [], []
    for _ in range(TURNS):
        start = time.perf_counter()
        for output in outputs:
            _postprocess([output], 0, 0, 1, 1, 512, 512, 320, 320)
        theirs.append(time.perf_counter() - start)
        start = time.perf_counter()
        for output in outputs:
            ours._decode(output[0], 512, 512)
        mine.append(time.perf_counter() - start)
    a, b = (
        statistics.median(theirs) / len(pictures) * 1e3,
        statistics.median(mine) / len(pictures) * 1e3,
    )
    print(f"decode: package {a:.3f} ms a picture, ours {b:.4f} ms, {a / b:.0f}x")


def _memory(count: int) -> None:
    import numpy as np
    import psutil
    from skimage.data import astronaut

    from ...audit.presets import PRESETS
    from ...audit.report import audit

    face, process, seen = astronaut().astype(np.float32) / 255, psutil.Process(), []

    def pictures():
        for number in range(count):
            if number % max(1, count // 10) == 0:
                seen.append(process.memory_info().rss / 2**20)
            yield np.roll(face, number, axis=1)

    start = time.perf_counter()
    report = audit(pictures(), PRESETS["faces"])
    seen.append(process.memory_info().rss / 2**20)
    print(
        f"{count} pictures from ComfyUI's floats in {time.perf_counter() - start:.0f} s,"
        f" {report['summary']['verdict']}"
    )
    print("MB after each tenth: " + " ".join(f"{value:.0f}" for value in seen))


if __name__ == "__main__":
    main()
