"""Make `audit/detectors/weights/nsfwjs.onnx` again from the npm package, and compare it.

    .venv/bin/python -m modular_safety_lora.lab.nsfwjs

npm fetches nsfwjs, whose MobileNetV2 has its weights inside as bytes, and TensorFlow.js, which is
asked what it computes: for seeded pictures the two must agree to 1e-4. Its answers are kept for the
tests, as `lab/nsfwjs/expected.json`.
"""

import hashlib
import json
import subprocess
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime

from ...storage.whole import whole, write_text
from .layers import Builder

PACKAGE = "nsfwjs@4.3.0"
SHA256 = "4496790efc9bdc6f3e85a826a8e482c1fa1e9db4b3d18c095e98cc0c73cfb12f"
TENSORFLOW = "@tensorflow/tfjs@4.22.0"
FOLDER = Path(__file__).parent
ONNX = FOLDER.parents[1] / "audit" / "detectors" / "weights" / "nsfwjs.onnx"
CLOSE = 1e-4


def pictures() -> np.ndarray:
    """Six seeded pictures of coloured squares, float32 (6, 224, 224, 3) of 0..1."""
    coarse = np.random.default_rng(0).random((6, 8, 8, 3), np.float32)
    return np.repeat(np.repeat(coarse, 28, axis=1), 28, axis=2)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _npm(folder, "pack", PACKAGE)
        (packed,) = folder.glob("*.tgz")
        found = hashlib.sha256(packed.read_bytes()).hexdigest()
        if found != SHA256:
            raise SystemExit(f"{PACKAGE} has the SHA-256 {found}; {SHA256} was looked at.")
        with tarfile.open(packed) as archive:
            archive.extractall(folder, filter="data")
        _node(FOLDER / "dump.cjs", folder / "package", folder)
        told = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        specs = [each for group in told["weightsManifest"] for each in group["weights"]]
        builder = Builder(specs, (folder / "weights.bin").read_bytes())
        model = builder.built(told["modelTopology"]["model_config"]["config"]["layers"])
        _npm(folder, "install", "--no-save", "--ignore-scripts", TENSORFLOW)
        pictures().tofile(folder / "pictures.bin")
        # beside what npm installed: that is where node looks for it
        here = folder / "run.cjs"
        here.write_bytes((FOLDER / "run.cjs").read_bytes())
        _node(here, folder, folder / "pictures.bin", folder / "scores.bin")
        expected = np.fromfile(folder / "scores.bin", np.float32).reshape(6, -1)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (ours,) = session.run(None, {"pictures": pictures().transpose(0, 3, 1, 2)})
    apart = float(np.abs(ours - expected).max())
    print(f"{apart:.2g} off TensorFlow.js at most")
    if not apart <= CLOSE:
        raise SystemExit(f"That is more than {CLOSE:g}: nothing was written.")
    with whole(ONNX) as part:
        part.write_bytes(model.SerializeToString(deterministic=True))
    rounded = [[round(each, 6) for each in row] for row in expected.tolist()]
    lines = ",\n".join(f"  {json.dumps(row)}" for row in rounded)
    write_text(FOLDER / "expected.json", f"[\n{lines}\n]\n")
    print(ONNX.stat().st_size, "bytes, SHA-256", hashlib.sha256(ONNX.read_bytes()).hexdigest())


def _npm(folder: Path, *command: str) -> None:
    subprocess.run(["npm", *command], cwd=folder, check=True, capture_output=True)


def _node(*command: Path) -> None:
    subprocess.run(["node", *map(str, command)], check=True)


if __name__ == "__main__":
    main()
