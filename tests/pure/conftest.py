"""The pure tier needs no ComfyUI; its helpers are importable from here on."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
