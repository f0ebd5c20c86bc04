"""The pack's command line: in this process, or in one of its own that can be killed.

Those are forked from one that has all imported: a new Python takes ten seconds to import what a
verb needs. That the command starts from nothing is tested where it is installed
(pure/test_shipped.py) and with launchers (host/test_train_scripts.py).
"""

import contextlib
import io
import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path

from modular_safety_lora.commands import main

TESTS = Path(__file__).parent
ways = (
    multiprocessing.get_all_start_methods()
)  # Windows has no fork: there everything is imported again
processes = multiprocessing.get_context("forkserver" if "forkserver" in ways else "spawn")
processes.set_forkserver_preload(["warm"])


def forking() -> multiprocessing.context.BaseContext:
    """What starts processes that have all imported, for those that a test starts by itself."""
    if processes.get_start_method() == "forkserver":
        from multiprocessing import forkserver

        with _found():
            forkserver.ensure_running()
    return processes


class Command:
    """A verb at work; `returncode` is None until it has ended."""

    def __init__(self, arguments: list, env: Mapping[str, str] | None, file_size: int | None):
        self.folder = tempfile.TemporaryDirectory()
        self.files = [Path(self.folder.name, name) for name in ("stdout", "stderr")]
        given = ([str(each) for each in arguments], [*map(str, self.files)], dict(env or {}))
        self.process = processes.Process(target=_work, args=(*given, file_size))
        with _found():
            self.process.start()

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def kill(self) -> None:
        self.process.kill()
        self.process.join()

    def done(self, timeout: float = 300) -> subprocess.CompletedProcess:
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.kill()
            raise TimeoutError(f"It was not done after {timeout:g} seconds: {self._read()[1]}")
        return subprocess.CompletedProcess([], self.process.exitcode, *self._read())

    def _read(self) -> list[str]:
        return [each.read_text() if each.exists() else "" for each in self.files]


def start(
    *arguments: object, env: Mapping[str, str] | None = None, file_size: int | None = None
) -> Command:
    """Start a verb with more environment, and with files no larger than `file_size` bytes."""
    return Command([*arguments], env, file_size)


def run(*arguments: object) -> subprocess.CompletedProcess:
    """What a verb printed here, and its exit code."""
    words = [str(each) for each in arguments]
    with (
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(io.StringIO()) as errors,
    ):
        try:
            code = main(words)
        except SystemExit as end:  # an exit code, or words for stderr
            code = end.code if isinstance(end.code, int) else 1
            errors.write("" if isinstance(end.code, int) else f"{end.code}\n")
    return subprocess.CompletedProcess(words, code, out.getvalue(), errors.getvalue())


@contextlib.contextmanager
def _found():
    """The folder of this module on the path of the process that is forked from."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(TESTS), *([before] if before else [])])
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _work(
    arguments: list[str], files: list[str], env: Mapping[str, str], file_size: int | None
) -> None:
    for number, name in enumerate(files, 1):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
    os.environ.update(env)
    if "OMP_NUM_THREADS" in env:  # which what is imported already does not read again
        import torch

        torch.set_num_threads(int(env["OMP_NUM_THREADS"]))
    if file_size is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    try:
        sys.exit(main(arguments))
    finally:
        # An interpreter ends its threads first. A process of multiprocessing closes its queues
        # before, and a pool's thread that still ends its workers then waits for them forever.
        threading._shutdown()
