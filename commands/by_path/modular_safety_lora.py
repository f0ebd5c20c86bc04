"""The pack under its name, whatever its folder is called, for whoever has this folder on the path.

`python PACK_FOLDER` puts it there, and the processes that it starts have their path from it.
"""

from pathlib import Path

__path__ = [str(Path(__file__).resolve().parents[2])]
