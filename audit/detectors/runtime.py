"""ONNX networks on the best provider that is installed and computes what the CPU computes."""

import logging
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ...options.errors import PackError
from ...options.words import amount
from .content import content_of
from .interface import finite

logger = logging.getLogger(__name__)

INSTALL_HINT = (
    "The audit needs NudeNet, onnxruntime and OpenCV, and {missing} is not installed."
    " Run `python install.py` in the pack's folder with ComfyUI's Python: it adds what is missing"
    " and leaves every installed build as it is."
)
NO_PACKAGE = "The detector {name!r} needs the package {package}, which is not installed. {way_out}"
PACKAGES = ("onnxruntime", "cv2")  # of every network
NO_FILE = "{file}: there is no such ONNX file."
CPU = "CPUExecutionProvider"
# In the order they are tried. Not TensorRT: it compiles for minutes before the first picture.
PROVIDERS: dict[str, dict[str, Any]] = {
    "CUDAExecutionProvider": {"use_tf32": 0},  # TF32 moves scores by 1e-3
    "MIGraphXExecutionProvider": {},
    "ROCMExecutionProvider": {},
    "DmlExecutionProvider": {},
    "OpenVINOExecutionProvider": {},
    "CoreMLExecutionProvider": {},
    CPU: {},
}
SHORT = {name.removesuffix("ExecutionProvider").lower(): name for name in PROVIDERS}
TOLERANCE = 0.01  # of the largest output: what a provider may differ from the CPU


class DetectorMissing(PackError, ImportError):
    """NudeNet, or something it needs, is not installed."""


class DetectorError(PackError, ValueError):
    """A detector can't be used as it is described."""


class OnnxNetwork:
    """An ONNX network with one input. `run` may be called from any thread; calls take turns.

    `provider` is `auto` (the best that is installed), or one of `SHORT`, which falls back to the
    CPU too. A provider that does not start, or whose outputs for a seeded input are not the CPU's,
    is passed over, and the log says so.
    """

    def __init__(
        self, name: str, file: Path, probe: np.ndarray, provider: str = "auto", threads: int = 0
    ):
        self.name, self.file, self.threads, self._lock = name, Path(file), threads, threading.Lock()
        if not self.file.is_file():
            raise DetectorError(NO_FILE.format(file=self.file))
        if provider != "auto" and provider not in SHORT:
            raise DetectorError(
                f"There is no provider {provider!r}; there are auto, {', '.join(SHORT)}."
            )
        self.content = content_of(self.file)
        self.provider, self._session = self._best(probe, provider)
        if not self.content.is_current():
            raise DetectorError(
                f"{self.file} was changed while it was being loaded; try again when it is complete."
            )
        logger.info("%s runs on %s", self.name, self.provider.removesuffix("ExecutionProvider"))

    def run(self, batch: np.ndarray) -> list[np.ndarray]:
        """The network's outputs for a batch.

        Raises DetectorError where the first, which is read, is not finite: NaN reaches no threshold
        and would read as nothing detected.
        """
        with self._lock:
            outputs = self._session.run(None, {self._session.get_inputs()[0].name: batch})
        if not finite(outputs[0]):
            raise DetectorError(f"{self.name} gave values that are not numbers (NaN or infinite).")
        return outputs

    def _best(self, probe: np.ndarray, wanted: str) -> tuple[str, Any]:
        runtime = _onnxruntime()
        installed = [name for name in PROVIDERS if name in runtime.get_available_providers()]
        names = installed if wanted == "auto" else [SHORT[wanted]]
        plain = self._start(CPU)
        expected = _outputs(plain, probe, self.file)
        for name in names:
            if name == CPU:
                break
            plain = None  # the weights are held once: its outputs are all that is needed
            try:
                if name not in installed:
                    raise RuntimeError("it is not installed")
                return name, self._checked(name, probe, expected)
            except Exception as error:  # each provider has errors of its own
                logger.warning(
                    "%s: %s is not used (%s); another provider takes its place",
                    self.name,
                    name,
                    error,
                )
        return CPU, plain or self._start(CPU)

    def _checked(self, name: str, probe: np.ndarray, expected: list[np.ndarray]) -> Any:
        """A session on a provider that loads and computes what is expected."""
        session = self._start(name)
        if session.get_providers()[0] != name:
            raise RuntimeError("onnxruntime could not load it")
        _check(_outputs(session, probe, self.file), expected)
        return session

    def _start(self, provider: str) -> Any:
        runtime = _onnxruntime()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.log_severity_level = 3
        # its threads sleep between batches: while they spin, decoding and scaling pictures takes a
        # third longer
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if provider == "DmlExecutionProvider":  # its documentation asks for both
            options.enable_mem_pattern = False
            options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
        chosen = [(provider, PROVIDERS[provider])] + ([CPU] if provider != CPU else [])
        try:
            return runtime.InferenceSession(str(self.file), options, providers=chosen)
        except Exception as error:  # onnxruntime's own classes of errors are not public
            if provider != CPU:
                raise
            raise DetectorError(
                f"{self.file}: onnxruntime can't read this as a network ({error})."
            ) from error


def _outputs(session: Any, probe: np.ndarray, file: Path) -> list[np.ndarray]:
    if len(session.get_inputs()) != 1:
        raise DetectorError(
            f"{file}: the network has {amount(len(session.get_inputs()), 'input')};"
            " one, of pictures, is needed."
        )
    try:
        return session.run(None, {session.get_inputs()[0].name: probe})
    except Exception as error:
        raise DetectorError(
            f"{file}: the network does not run on pictures of shape {probe.shape} ({error}). Check"
            " `size` and `layout`."
        ) from error


def _check(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for ours, cpu in zip(found, expected, strict=True):
        apart = np.abs(ours - cpu).max(initial=0.0)
        # not (a > b): NaN is not the CPU's either
        if not apart <= TOLERANCE * max(np.abs(cpu).max(initial=0.0), 1e-6):
            raise RuntimeError(f"its outputs are {apart:.3g} off the CPU's")


def _onnxruntime() -> ModuleType:
    try:
        import onnxruntime
    except ImportError as error:
        raise DetectorMissing(INSTALL_HINT.format(missing=error.name or error)) from error
    return onnxruntime


def opencv() -> ModuleType:
    """OpenCV, when it is needed. Raises DetectorMissing without it."""
    try:
        import cv2
    except ImportError as error:
        raise DetectorMissing(INSTALL_HINT.format(missing=error.name or error)) from error
    return cv2
