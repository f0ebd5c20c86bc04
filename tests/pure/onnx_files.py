"""Small ONNX files for the tests of detectors that users bring, and rules that use one."""

import os

import numpy as np
import onnx
from modular_safety_lora.audit.presets import read_presets
from modular_safety_lora.audit.rules import Rules
from onnx import TensorProto, helper, numpy_helper

COLOURS = {
    "kind": "classifier",
    "file": "colours.onnx",
    "classes": ["red", "green", "blue"],
    "size": 32,
    "scores": "none",
}
REDS = read_presets({"reds": {"detector": "c", "thresholds": {"red": 0.9}}}, "file")["reds"]
SHAPE = (3, 32, 32)
RED = np.full((9, 9, 3), [255, 0, 0], np.uint8)


def network(path, outputs, shape, weights=None, beside=""):
    """A small ONNX file: mean colour of the picture, times weights (3, classes).

    The weights may lie in a file beside it.
    """
    layout = ["batch", *shape]
    axes = [2, 3] if shape[0] == 3 else [1, 2]
    weights = np.asarray(weights if weights is not None else np.eye(3, outputs), np.float32)
    nodes = [
        helper.make_node("ReduceMean", ["pictures", "axes"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "weights"], ["scores"]),
    ]
    constants = [
        helper.make_tensor("axes", TensorProto.INT64, [2], axes),
        numpy_helper.from_array(weights, "weights"),
    ]
    graph = helper.make_graph(
        nodes,
        "mean colour",
        [helper.make_tensor_value_info("pictures", TensorProto.FLOAT, layout)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", outputs])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    for file in (path, path.parent / beside) if beside else (path,):
        file.unlink(missing_ok=True)  # onnx appends to a file of weights
    onnx.save(
        model, path, save_as_external_data=bool(beside), location=beside or None, size_threshold=32
    )


def rules(folder, **changed) -> Rules:
    """The reds of `colours.onnx` in a folder; `changed` is what its entry says otherwise."""
    return Rules(REDS, entries={"c": {**COLOURS, **changed}}, folder=str(folder))


def replaced(folder, factor: float = 0.5) -> None:
    """Other weights under the same name, of the same size, with the time of the old file."""
    path = folder / "colours.onnx"
    before = path.stat()
    network(folder / "new.onnx", 3, SHAPE, weights=factor * np.eye(3))
    (folder / "new.onnx").replace(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size and path.stat().st_mtime_ns == before.st_mtime_ns


def spoilt(path, operation: str, kind: str) -> None:
    """A network of one class that gives an operation of the picture's mean: 1 for a white one."""
    least = 0.1 if operation == "Sqrt" else 0.0
    # all five numbers of a yolo's only anchor are the same
    shape = [5, 1] if kind == "yolo" else [1]
    nodes = [
        helper.make_node("ReduceMean", ["pictures", "axes"], ["mean"], keepdims=0),
        helper.make_node("Unsqueeze", ["mean", "last"], ["column"]),
        helper.make_node("Sub", ["column", "least"], ["above"]),
        helper.make_node("Mul", ["above", "more"], ["scaled"]),
        helper.make_node(operation, ["scaled"], ["score"]),
        helper.make_node("Expand", ["score", "wide"], ["wider"]),
        helper.make_node("Reshape", ["wider", "shape"], ["scores"]),
    ]
    numbers = {"axes": [1, 2, 3], "last": [1], "wide": [1, shape[0]], "shape": [0, *shape]}
    constants = [
        helper.make_tensor(name, TensorProto.INT64, [len(values)], values)
        for name, values in numbers.items()
    ]
    constants += [
        helper.make_tensor(name, TensorProto.FLOAT, [], [value])
        for name, value in (("least", least), ("more", 1 / (1 - least)))
    ]
    layout = ["batch", 3, "height", "width"]
    graph = helper.make_graph(
        nodes,
        "spoilt",
        [helper.make_tensor_value_info("pictures", TensorProto.FLOAT, layout)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", *shape])],
        constants,
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path
    )
