"""A network of Keras layers, as TensorFlow.js keeps them, built as ONNX; weights stay bytes."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET, IR = 17, 8  # of onnxruntime 1.13 and newer


class Builder:
    """Nodes in the order of the layers. Pictures are NCHW here, NHWC there.

    A weight is what TensorFlow.js reads, `byte * scale + min`; onnxruntime computes it once.
    """

    def __init__(self, specs: list[Mapping[str, Any]], weights: bytes):
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.specs: dict[str, tuple[Mapping[str, Any], np.ndarray]] = {}
        start = 0
        for spec in specs:
            count = int(np.prod(spec["shape"]))
            found = np.frombuffer(weights, np.uint8, count, start).reshape(spec["shape"])
            self.specs[spec["name"]], start = (spec["quantization"], found), start + count
        if start != len(weights):
            raise ValueError(f"The layers name {start} bytes of weights; there are {len(weights)}.")

    def constant(self, name: str, value: np.ndarray) -> str:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(self, kind: str, name: str, *inputs: str, **told: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [name], name, **told))
        return name

    def weight(self, name: str, axes: tuple[int, ...] | None = None) -> str:
        """A weight by its name, with its axes in another order."""
        how, found = self.specs.pop(name)
        found = found if axes is None else found.transpose(axes)
        scale = self.constant(f"{name}/scale", np.float32(how["scale"]))
        low = self.constant(f"{name}/min", np.float32(how["min"]))
        read = self.node("Cast", f"{name}/read", self.constant(name, found), to=TensorProto.FLOAT)
        scaled = self.node("Mul", f"{name}/scaled", read, scale)
        return self.node("Add", f"{name}/value", scaled, low)

    def built(self, layers: list[Mapping[str, Any]]) -> onnx.ModelProto:
        """The network of these layers. Raises ValueError for what it has no row for."""
        for layer in layers:
            kind, config = layer["class_name"], layer["config"]
            sources = [each[0] for each in (layer["inbound_nodes"] or [[]])[0]]
            if kind not in LAYERS:
                raise ValueError(f"The layer {config['name']!r} is a {kind}, which has no row.")
            made = LAYERS[kind](self, config, sources)
            if config.get("activation", "linear") != "linear":
                made = _activated(self, config, made)
            self.node("Identity", config["name"], made)
        if self.specs:
            raise ValueError(f"{len(self.specs)} weights in no layer (first: {min(self.specs)}).")
        picture = helper.make_tensor_value_info("pictures", TensorProto.FLOAT, ["B", 3, 224, 224])
        scores = helper.make_tensor_value_info(
            layers[-1]["config"]["name"], TensorProto.FLOAT, ["B", None]
        )
        graph = helper.make_graph(self.nodes, "nsfwjs", [picture], [scores], self.constants)
        opset = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=IR, producer_name="")
        onnx.checker.check_model(model, full_check=True)
        return model


Layer = Callable[[Builder, Mapping[str, Any], list[str]], str]


def _activated(net: Builder, config: Mapping[str, Any], made: str) -> str:
    kinds = {"relu": ("Relu", {}), "softmax": ("Softmax", {"axis": -1})}
    kind, told = kinds[config["activation"]]
    return net.node(kind, f"{config['name']}/{config['activation']}", made, **told)


def _input(net: Builder, config: Mapping[str, Any], _: list[str]) -> str:
    if config["batch_input_shape"] != [None, 224, 224, 3]:
        raise ValueError(f"The input is {config['batch_input_shape']}.")
    return "pictures"


def _padded(net: Builder, config: Mapping[str, Any], sources: list[str]) -> str:
    (top, bottom), (left, right) = config["padding"]
    pads = np.array([0, 0, top, left, 0, 0, bottom, right], np.int64)
    name = config["name"]
    return net.node("Pad", f"{name}/padded", sources[0], net.constant(f"{name}/pads", pads))


def _convolved(axes: tuple[int, ...], kernel: str) -> Layer:
    def made(net: Builder, config: Mapping[str, Any], sources: list[str]) -> str:
        name = config["name"]
        shape = net.specs[f"{name}/{kernel}"][1].shape
        inputs = [sources[0], net.weight(f"{name}/{kernel}", axes)]
        if config["use_bias"]:
            inputs.append(net.weight(f"{name}/bias"))
        return net.node(
            "Conv",
            f"{name}/convolved",
            *inputs,
            strides=config["strides"],
            dilations=config["dilation_rate"],
            group=shape[2] if kernel.startswith("depthwise") else 1,
            auto_pad={"same": "SAME_UPPER", "valid": "VALID"}[config["padding"]],
        )

    return made


def _normalised(net: Builder, config: Mapping[str, Any], sources: list[str]) -> str:
    name = config["name"]
    parts = ("gamma", "beta", "moving_mean", "moving_variance")
    weights = [net.weight(f"{name}/{part}") for part in parts]
    epsilon = config["epsilon"]
    return net.node("BatchNormalization", f"{name}/out", sources[0], *weights, epsilon=epsilon)


def _clipped(net: Builder, config: Mapping[str, Any], sources: list[str]) -> str:
    if config["negative_slope"] or config["threshold"]:
        raise ValueError(f"{config['name']} is no plain ReLU.")
    name, ends = config["name"], (0.0, config["max_value"])
    limits = [net.constant(f"{name}/{end:g}", np.float32(end)) for end in ends]
    return net.node("Clip", f"{name}/clipped", sources[0], *limits)


def _pooled(net: Builder, config: Mapping[str, Any], sources: list[str]) -> str:
    told = {"kernel_shape": config["pool_size"], "strides": config["strides"]}
    return net.node("AveragePool", f"{config['name']}/pooled", sources[0], **told)


def _dense(net: Builder, config: Mapping[str, Any], sources: list[str]) -> str:
    name = config["name"]
    weights = net.weight(f"{name}/kernel"), net.weight(f"{name}/bias")
    return net.node("Gemm", f"{name}/dense", sources[0], *weights)


LAYERS: dict[str, Layer] = {
    "InputLayer": _input,
    "ZeroPadding2D": _padded,
    "Conv2D": _convolved((3, 2, 0, 1), "kernel"),
    "DepthwiseConv2D": _convolved((2, 3, 0, 1), "depthwise_kernel"),
    "BatchNormalization": _normalised,
    "ReLU": _clipped,
    "Add": lambda net, config, sources: net.node("Add", f"{config['name']}/sum", *sources),
    "AveragePooling2D": _pooled,
    # of 1 x 1 pixels: the order of the axes is no matter
    "Flatten": lambda net, config, sources: net.node(
        "Flatten", f"{config['name']}/flat", sources[0]
    ),
    "Dropout": lambda net, config, sources: sources[0],
    "Dense": _dense,
}
