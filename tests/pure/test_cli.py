"""The harness's own command line: that a command in a process of its own ends as Python does."""

import sys
import threading
import time
from multiprocessing.util import Finalize

import cli
import pytest


def _command(words: list[str]) -> None:
    """Ends while a thread is at work; what multiprocessing takes apart is told from it."""

    def work() -> None:
        time.sleep(0.3)
        print("the thread ends")

    Finalize(None, print, args=("the queues are closed",), exitpriority=10)
    threading.Thread(target=work).start()


def _in_a_process(files: list[str]) -> None:
    cli.main = _command
    cli._work([], files, {}, None)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
def test_a_commands_threads_end_before_its_queues(tmp_path):
    files = [str(tmp_path / name) for name in ("stdout", "stderr")]
    with cli._found():
        process = cli.processes.Process(target=_in_a_process, args=(files,))
        process.start()
    process.join(60)
    assert process.exitcode == 0
    said = (tmp_path / "stdout").read_text()
    assert said == "the thread ends\nthe queues are closed\n"


def test_the_start_of_an_option_is_not_taken_as_another_option():
    """`--surrogate sunflower` was a file of surrogates."""
    told = cli.run("inspect", "file.png", "--comfy", "here")
    assert told.returncode == 2 and "unrecognized arguments: --comfy here" in told.stderr
