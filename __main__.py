"""`python -m modular_safety_lora VERB`.

Where it is not installed: `python custom_nodes/modular-safety-lora VERB`.
"""

import importlib
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
NAME = "modular_safety_lora"

# This folder's `nodes` must not stand before ComfyUI's own.
sys.path[:] = [each for each in sys.path if Path(each or ".").resolve() != FOLDER]
if NAME not in sys.modules:  # before another copy that may be installed
    sys.path.insert(0, str(FOLDER / "commands" / "by_path"))

if __name__ == "__main__":
    try:
        sys.exit(importlib.import_module(f"{NAME}.commands").main())
    except ModuleNotFoundError as error:
        sys.exit(f"{error}, for {sys.executable}. Run this with ComfyUI's Python, which has it.")
