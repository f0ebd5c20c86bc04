"""What ships declares what it imports: in pyproject.toml, or in install.py."""

import ast
import importlib.util
import re
import sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

from modular_safety_lora.host.comfyui import comfyui_path
from modular_safety_lora.lab.server import PACK
from test_layout import SOURCES, UNSHIPPED, folder_of

OF_COMFYUI = {
    "comfy",
    "comfy_api",
    "comfy_execution",
    "comfyui_version",
    "execution",
    "folder_paths",
}
OF_COMFYUI |= {"latent_preview", "nodes", "protocol", "server"}
SHIPPED = {
    name: path
    for name, path in SOURCES.items()
    if folder_of(name) not in UNSHIPPED and name not in ("dev", "install", "setup")
}


def imported(path: Path) -> list[tuple[str, bool, str]]:
    """(module, whether at the top, what its `except ImportError` says) of a file's imports.

    Those for annotations alone import nothing.
    """
    found, tree = [], ast.parse(path.read_text(encoding="utf-8"))
    above = {id(child): node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names = [] if node.level else [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        outer, top, said = node, True, ""
        while outer := above.get(id(outer)):
            if isinstance(outer, ast.If) and ast.unparse(outer.test) == "TYPE_CHECKING":
                names = []
            top = top and not isinstance(outer, ast.FunctionDef)
            if isinstance(outer, ast.Try):
                said += "".join(map(ast.unparse, outer.handlers))
        found += [(name.split(".")[0], top, said) for name in names]
    return [each for each in found if each[0] not in sys.stdlib_module_names | OF_COMFYUI]


def plain(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def listed(name: str) -> set[str]:
    """The packages of a list in pyproject.toml."""
    text = (PACK / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(rf"^{name} = \[(.*?)\]$", text, re.DOTALL | re.MULTILINE)[1]
    return {plain(each) for each in re.findall(r'"([^"]+)"', found)}


def of_installer() -> set[str]:
    spec = importlib.util.spec_from_file_location("install", PACK / "install.py")
    installer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(installer)
    wished = {module for each in installer.OPTIONAL.values() for module in each}
    return {*installer.WITH_REQUIREMENTS, *installer.ALONE, *wished}  # by module


def test_every_import_of_what_ships_is_declared():
    always, brought = listed("dependencies"), of_installer()
    optional = set.union(*map(listed, ("optimizers", "parquet", "ray", "signing")))
    assert optional <= listed("dev"), "the tests use them"
    packages, used = packages_distributions(), set()
    for name, path in SHIPPED.items():
        for module, top, said in imported(path):
            package = plain(packages[module][0])
            used |= {package}
            if package in always:
                continue
            assert not top, f"{name} imports {module} before anybody asked for what needs it"
            assert module in brought or package in optional, f"{name}: nothing declares {module}"
            if package in optional:
                assert "pip install" in said, f"{name}: {module}"
    assert used >= always | optional, "declared, and imported by nothing"


def test_what_is_always_imported_comes_with_comfyui():
    """The Manager installs nothing of pyproject.toml."""
    wanted = (comfyui_path() / "requirements.txt").read_text(encoding="utf-8").splitlines()
    todo, found = {plain(each) for each in wanted if re.match(r"\w", each)}, set()
    while todo:
        name = todo.pop()
        found.add(name)
        try:
            asked = requires(name) or []
        except PackageNotFoundError:
            continue
        todo |= {plain(each) for each in asked if "extra ==" not in each} - found
    assert listed("dependencies") <= found
