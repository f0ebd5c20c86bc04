"""The live tier runs on a ComfyUI that serves; its helpers are importable from here on.

A folder of tests named `server` would stand in the place of ComfyUI's module of that name.
"""

import sys
from pathlib import Path

import pytest
from modular_safety_lora.lab import assets
from modular_safety_lora.modules.files import save_module
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parent))
pytest.register_assert_rewrite("prompting")  # it asserts as a test does


@pytest.fixture
def put(server):
    """Write a file into the live server's loras folder for one test."""
    written = []

    def write(
        name: str, tensors=None, metadata=None, role="safety", content: bytes | None = None
    ) -> str:
        path = server.folder / "models" / "loras" / name
        if content is None:
            save_module(path, tensors, metadata or {}, role)
        else:
            path.write_bytes(content)
        written.append(path)
        return name

    yield write
    for path in written:
        path.unlink()


@pytest.fixture
def sealed_tensors(models):
    """The tensors of the sealed safety module, to be changed."""
    return load_file(models / "loras" / assets.SAFETY)
