"""What is part of the host, its packages and its packs, and so need not be looked at."""

import sysconfig
import time
from collections.abc import Iterable
from pathlib import Path

import folder_paths
from server import PromptServer

import nodes

from .known import Stamp


class Installed:
    """The frontend, packages and packs' scripts, as they were when the server began."""

    def __init__(self, server: PromptServer):
        self._server, self._begun = server, time.time_ns()

    def has(self, path: Path) -> bool:
        """Whether a file is part of it.

        What lies in a folder that nodes and people write to is not, nor what came to a pack's
        scripts since: packs write pictures beside them, too.
        """
        place = path.resolve()
        written = (
            folder_paths.get_output_directory(),
            folder_paths.get_input_directory(),
            folder_paths.get_temp_directory(),
            folder_paths.get_user_directory(),
        )
        if _lies_in(place, written):
            return False
        packages = sysconfig.get_path("purelib"), sysconfig.get_path("platlib")
        if _lies_in(place, (self._server.web_root, *packages)):
            return True
        try:
            is_new = Stamp.of(place.stat()).moved >= self._begun
        except OSError:
            return False
        return not is_new and _lies_in(place, nodes.EXTENSION_WEB_DIRS.values())


def _lies_in(place: Path, folders: Iterable[str]) -> bool:
    return any(place.is_relative_to(Path(each).resolve()) for each in folders)
