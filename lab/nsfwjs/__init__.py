"""The network of nsfwjs as ONNX: `python -m modular_safety_lora.lab.nsfwjs`."""
