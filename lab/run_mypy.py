"""mypy on the pack, where it has the name of its package: mypy goes by the names of folders.

Its settings are in pyproject.toml. What follows is handed on to it.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".host" / "types"


def link_pack(folder: Path = FOLDER) -> None:
    """Link this repository, whatever its folder is called, below `folder` as the package."""
    link = folder / "modular_safety_lora"
    if link.exists() and link.samefile(ROOT):
        return
    folder.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)  # of a repository that was moved
    if os.name == "nt":  # a link needs an administrator there, a junction does not
        import _winapi

        _winapi.CreateJunction(str(ROOT), str(link))
    else:
        link.symlink_to(ROOT, target_is_directory=True)


if __name__ == "__main__":
    link_pack()
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml")]
    sys.exit(subprocess.run([*command, *sys.argv[1:]], cwd=FOLDER).returncode)
