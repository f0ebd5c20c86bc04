"""`python -m modular_safety_lora VERB`.

Where it is not installed: `python custom_nodes/modular-safety-lora VERB`.
"""

import importlib.util
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
NAME = "modular_safety_lora"

# This folder's `nodes` must not stand before ComfyUI's own.
sys.path[:] = [each for each in sys.path if Path(each or ".").resolve() != FOLDER]
if NAME not in sys.modules:
    spec = importlib.util.spec_from_file_location(
        NAME, FOLDER / "__init__.py", submodule_search_locations=[str(FOLDER)]
    )
    sys.modules[NAME] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[NAME])

if __name__ == "__main__":
    sys.exit(importlib.import_module(f"{NAME}.commands").main())
