"""ComfyUI as somebody has it who installed the pack with the Manager.

What ships lies in `custom_nodes`, and their Python has what ComfyUI and `install.py` bring, but no
package of this name.
"""

import os
import subprocess
import sysconfig
import venv
from pathlib import Path

from modular_safety_lora.lab import manager_install
from modular_safety_lora.lab.server import PACK_NAME, install_pack

BY_PATH = f"custom_nodes/{PACK_NAME}"  # as the documents call it, from ComfyUI's folder

UNSET = ("COMFYUI_PATH", "PYTHONPATH", "PYTHONSAFEPATH")  # as the tests have them


class Stranger:
    """`run` runs their Python in ComfyUI's folder, `folder`, with `more` in its environment.

    What is `said` comes to its stdin.
    """

    def __init__(self, place: Path):
        self.folder = place / "ComfyUI"
        self.folder.mkdir()
        manager_install.bare(self.folder)
        self.pack = install_pack(self.folder / "custom_nodes")
        venv.create(place / "venv", symlinks=os.name != "nt")
        scripts = place / "venv" / ("Scripts" if os.name == "nt" else "bin")
        self.python = scripts / ("python.exe" if os.name == "nt" else "python")
        # a folder that a .pth names is on the path, but what its own .pth files install is not
        site = sysconfig.get_path("purelib", "venv", {"base": str(place / "venv")})
        Path(site, "all.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")

    def run(
        self, *arguments: object, said: str | None = None, **more: str
    ) -> subprocess.CompletedProcess:
        env = {name: value for name, value in os.environ.items() if name not in UNSET} | more
        return subprocess.run(
            [str(self.python), *map(str, arguments)],
            cwd=self.folder,
            input=said,
            env=env,
            capture_output=True,
            text=True,
            timeout=300,
        )
