"""The architecture: which folder may import which, and nothing that harms the packs beside it."""

import ast
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from modular_safety_lora.lab.server import PACK

BELOW = {
    *("options", "drawing", "storage", "modules", "audit", "host", "function", "merge"),
    *("demands", "evidence", "emoji", "evaluation", "extraction", "gates", "provenance"),
    *("reporting", "training", "searching", "experiment"),
}
# What each folder may import, from the ground up.
ALLOWED = {
    "options": set(),
    "drawing": {"options"},
    "storage": {"options"},
    "modules": {"options", "storage"},
    "audit": {"options", "drawing", "storage", "modules"},
    "evidence": {"options", "drawing", "storage", "modules", "audit"},
    "host": {"options", "storage", "modules"},
    "emoji": {
        *("options", "drawing", "storage", "modules", "audit", "host"),
        "merge",
        "evaluation",
    },
    "function": {"options", "drawing", "storage", "modules", "host"},
    "gates": {"options", "drawing", "storage", "audit", "provenance"},
    "provenance": {"options", "storage", "audit"},
    "demands": {
        *("options", "storage", "modules", "audit", "evidence", "gates", "host", "function"),
        "provenance",
    },
    "merge": {"options", "drawing", "modules", "host", "function"},
    "evaluation": {"options", "drawing", "storage", "modules", "audit", "host", "merge"},
    "extraction": {"options", "drawing", "storage", "modules", "host", "function", "merge"},
    "training": {
        *("options", "drawing", "storage", "modules", "audit", "host", "function", "merge"),
        "extraction",
    },
    "reporting": {
        *("options", "drawing", "storage", "modules", "audit", "host", "function", "merge"),
        *("evaluation", "training"),
    },
    "searching": {
        *("options", "drawing", "storage", "modules", "audit", "host", "evaluation"),
        *("training", "reporting"),
    },
    "experiment": {
        *("options", "drawing", "storage", "modules", "audit", "host", "merge", "evaluation"),
        *("training", "reporting"),
    },
    "commands": BELOW,
    "nodes": BELOW - {"drawing"},
    "lab": BELOW | {"commands", "nodes", "root"},
    # __init__.py; __main__.py, install.py and dev.py import nothing of the pack by name
    "root": {"nodes"},
}
UNSHIPPED = {"lab"}
NETWORK = {
    *("urllib.request", "requests", "httpx", "aiohttp", "socket", "huggingface_hub"),
    *("http.client", "ftplib", "smtplib", "socketserver", "xmlrpc.client"),
}
# What speaks to the network all the same, and why (docs/security.md).
SPEAKS = {
    # off until the operator's settings name an address, which no graph can: a webhook that another
    # program sends would read the log's files, and be told of a refusal minutes later
    "evidence.webhook": {"http.client"},
}


def sources() -> dict[str, Path]:
    """Every module of the pack by its dotted name; those of packages end in `__init__`."""
    found = [
        *PACK.glob("*.py"),
        *(path for folder in ALLOWED for path in (PACK / folder).rglob("*.py")),
    ]
    return {".".join(path.relative_to(PACK).with_suffix("").parts): path for path in found}


SOURCES = sources()


def imports(path: Path) -> list[tuple[int, str, list[str]]]:
    """(level, module, names) of every import of a file.

    Those inside functions and those for annotations alone are among them.
    """
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            found.append((node.level, node.module or "", [alias.name for alias in node.names]))
        elif isinstance(node, ast.Import):
            found += [(0, alias.name, []) for alias in node.names]
    return found


def reached(name: str) -> set[str]:
    """The modules of the pack that a module imports, as far as they are written out."""
    found = set()
    for level, module, names in imports(SOURCES[name]):
        if not level:
            continue
        base = name.split(".")[:-level]
        target = [*base, *filter(None, module.split("."))]
        for each in names:  # a module, a package, or a name inside the module or package before it
            places = [[*target, each], [*target, each, "__init__"], target, [*target, "__init__"]]
            found |= set([place for place in map(".".join, places) if place in SOURCES][:1])
    return found


def folder_of(name: str) -> str:
    return name.split(".")[0] if "." in name else "root"


@pytest.mark.parametrize("folder", ALLOWED)
def test_imports_go_down_only_and_never_to_the_network(folder):
    own = [name for name in SOURCES if folder_of(name) == folder]
    assert own
    for name in own:
        up = {each for each in reached(name) if folder_of(each) not in ALLOWED[folder] | {folder}}
        assert not up, f"{name} imports {sorted(up)}"
        for level, module, _ in imports(SOURCES[name]):
            assert not module.startswith("modular_safety_lora"), (
                f"{name}: only relative imports inside the pack"
            )
            forbidden = NETWORK - SPEAKS.get(name, set())
            assert folder in UNSHIPPED or level or module not in forbidden, f"{name}: {module}"


def test_what_may_speak_to_the_network_does():
    """A row of an exception that nothing needs goes."""
    for name, allowed in SPEAKS.items():
        assert allowed == {module for _, module, _ in imports(SOURCES[name])} & NETWORK


def test_no_imports_go_in_a_circle():
    graphlib.TopologicalSorter({name: reached(name) - {name} for name in SOURCES}).prepare()


def test_every_folder_is_in_the_house_and_every_shipped_package_in_the_wheel():
    folders = {path.parent.relative_to(PACK).parts[0] for path in PACK.glob("*/*.py")} - {"tests"}
    assert folders == ALLOWED.keys() - {"root"}
    packages = {
        ".".join(path.relative_to(PACK).parts[:-1])
        for folder in ALLOWED.keys() - UNSHIPPED
        for path in (PACK / folder).rglob("__init__.py")
    }
    listed = re.search(
        r"packages = \[(.*?)\]", (PACK / "pyproject.toml").read_text(encoding="utf-8"), re.DOTALL
    )[1]
    assert set(re.findall(r'"modular_safety_lora\.?([a-z_.]*)"', listed)) == packages | {""}


UNTYPED = {"evaluation", "commands", "nodes", "lab", "root"}


def test_types_are_checked_in_every_folder_that_computes():
    listed = (PACK / "pyproject.toml").read_text(encoding="utf-8").partition("[tool.mypy]")[2]
    packages = re.search(r"packages = \[(.*?)\]", listed, re.DOTALL)[1]
    checked = set(re.findall(r'"modular_safety_lora\.([a-z]+)"', packages))
    assert checked == ALLOWED.keys() - UNTYPED


# What the host calls by name, and what overrides a method of the host.
OF_THE_HOST = {"execute", "calculate_weight"}


def test_no_function_takes_more_than_five_arguments_by_place():
    for name, path in SOURCES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name not in OF_THE_HOST:
                placed = [each.arg for each in (*node.args.posonlyargs, *node.args.args)]
                placed = [each for each in placed if each not in ("self", "cls")]
                assert len(placed) <= 5, f"{name}.{node.name}: {placed}"


LONGEST = 250  # lines of a file, tests too


def test_no_file_is_long():
    files = [*SOURCES.values(), *PACK.glob("tests/**/*.py")]
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    long = {str(path): length for path, length in lengths.items() if length > LONGEST}
    assert not long, f"split these by what they are about: {long}"


def test_what_is_started_by_its_name_is_there():
    """Code that starts `python -m modular_safety_lora...` names a module that can be run."""
    started = re.compile(r'"-m",\s*"modular_safety_lora\.?([\w.]*)"')
    tests = [*PACK.glob("tests/*/*.py")]
    for path in (*SOURCES.values(), *tests):
        for name in started.findall(path.read_text(encoding="utf-8")):
            place = PACK.joinpath(*filter(None, name.split(".")))
            runs = place / "__main__.py" if place.is_dir() else place.with_suffix(".py")
            assert runs.exists() and "__main__" in runs.read_text(encoding="utf-8"), (path, name)


def test_only_the_installer_starts_processes():
    for name, path in SOURCES.items():
        if folder_of(name) not in UNSHIPPED and name not in ("install", "dev"):
            assert all(module.split(".")[0] != "subprocess" for _, module, _ in imports(path)), name


def test_the_package_and_its_pure_half_import_without_comfyui():
    code = (
        "import modular_safety_lora, modular_safety_lora.modules.files, "
        "modular_safety_lora.audit.report, sys; "
        "import modular_safety_lora.commands.seal, modular_safety_lora.commands.audit; "
        "assert not {'comfy', 'nudenet', 'onnxruntime', 'cv2', 'folder_paths'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_requirements_pin_nothing_and_name_nothing_that_replaces_a_build():
    lines = (PACK / "requirements.txt").read_text(encoding="utf-8").splitlines()
    wanted = [line for line in lines if line.strip() and not line.startswith("#")]
    for line in wanted:
        assert re.fullmatch(r"[A-Za-z0-9_.-]+", line), (
            f"{line}: a pin, or something the Manager can't install alone"
        )
        assert not re.match(r"(torch|numpy|onnxruntime|opencv|nudenet|transformers)", line, re.I), (
            line
        )
