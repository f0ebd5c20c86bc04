"""The architecture: who may import whom, and nothing that harms the packs it is installed beside."""

import ast
import re
import subprocess
import sys

import pytest
from modular_safety_lora.demo.server import PACK

FORBIDDEN = {
    "modular": {"audit", "nodes", "training", "evaluation", "demo"},
    "audit": {"modular", "nodes", "training", "evaluation", "demo"},
    "training": {"nodes", "evaluation", "demo"},
    "evaluation": {"nodes", "demo"},
    "nodes": {"demo"},
}
NETWORK = {"urllib.request", "requests", "httpx", "aiohttp", "socket", "huggingface_hub"}


def imports(path):
    """(level, module) of every import of a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            yield node.level, node.module or ""
        elif isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)


@pytest.mark.parametrize("half", FORBIDDEN)
def test_layers_only_reach_down_and_never_the_network(half):
    sources = sorted((PACK / half).glob("*.py"))
    assert sources
    for path in sources:
        for level, module in imports(path):
            assert not (level == 2 and module.split(".")[0] in FORBIDDEN[half]), f"{path}: {module}"
            assert not module.startswith("modular_safety_lora"), f"{path}: only relative imports inside the pack"
            assert level or module not in NETWORK, f"{path}: {module}"


def test_the_package_and_its_pure_half_import_without_comfyui():
    code = (
        "import modular_safety_lora, modular_safety_lora.modular.files, modular_safety_lora.audit.report, sys; "
        "assert not {'comfy', 'nudenet', 'onnxruntime', 'cv2', 'folder_paths'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_requirements_pin_nothing_and_name_nothing_that_replaces_a_build():
    lines = (PACK / "requirements.txt").read_text(encoding="utf-8").splitlines()
    wanted = [line for line in lines if line.strip() and not line.startswith("#")]
    for line in wanted:
        assert re.fullmatch(r"[A-Za-z0-9_.-]+", line), f"{line}: a pin, or something the Manager can't install alone"
        assert not re.match(r"(torch|numpy|onnxruntime|opencv|nudenet|transformers)", line, re.I), line
