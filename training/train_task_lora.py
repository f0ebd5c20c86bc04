"""The command `train-task` as a script, by path and under `accelerate launch`."""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.argv[:1] = [str(Path(__file__).resolve().parents[1]), "train-task"]
    runpy.run_path(sys.argv[0], run_name="__main__")
