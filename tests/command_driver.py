"""Runs commands as `python FOLDER_OR_FILE ARGUMENT...` would, one after another in one process.

They stand on stdin as JSON, with the folder that each runs in: a new Python takes ten seconds to
import what a verb needs. It is started by a Python that can't import the pack (stranger.py).
"""

import contextlib
import io
import json
import os
import runpy
import sys


def done(folder: str, arguments: list[str]) -> dict:
    os.chdir(folder)
    sys.argv = arguments
    with (
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(io.StringIO()) as errors,
    ):
        try:
            runpy.run_path(arguments[0], run_name="__main__")
            code = 0
        except SystemExit as end:  # an exit code, or words for stderr
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
            errors.write("" if isinstance(end.code, int) else str(end.code))
    return {"code": code, "out": out.getvalue(), "errors": errors.getvalue()}


if __name__ == "__main__":
    sys.path.pop(0)  # the folder of the tests
    print(json.dumps([done(*each) for each in json.load(sys.stdin)]))
