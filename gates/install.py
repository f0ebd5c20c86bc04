"""Every gate that the operator asks for, closed again as one."""

import contextlib
import logging
from collections.abc import Callable
from pathlib import Path

import folder_paths
from server import PromptServer

from ..audit.report import Opinion
from . import decode, door, graph, previews, socket
from .keeper import Keeper
from .look import Inspector
from .seen import Seen
from .wanted import RequireAudit

logger = logging.getLogger(__name__)

FOLDER = "modular_safety_lora"  # in the user folder, of a system user: no route reads or writes it
FILE = "looked-at.sqlite"


def seen_file() -> Path:
    """Where findings outlive the server."""
    return Path(folder_paths.get_system_user_directory(FOLDER), FILE)


def install(
    wanted: RequireAudit, opinion: Callable[[], Opinion], mistake: str = ""
) -> Callable[[], None]:
    """Hold the gates of `wanted` from now on; returns what takes them away again.

    Without a gate nothing of the host is touched. With a `mistake` nothing passes. The server's
    gates need a server: in a program without one there is no door to hold.
    """
    if not wanted.gates:
        return lambda: None
    seen = Seen(None if mistake else seen_file())
    keeper = Keeper(wanted, Inspector(opinion, seen), mistake)
    with contextlib.ExitStack() as held:
        held.callback(seen.close)
        held.callback(previews.install())
        held.callback(graph.install(keeper))
        if "decode" in wanted.gates:
            held.callback(decode.install(keeper))
        server = getattr(PromptServer, "instance", None)
        if "door" in wanted.gates and server is not None:
            held.callback(socket.install(keeper))
            held.callback(door.install(keeper, server))
        if not mistake:
            logger.info(
                "require_audit is in force: %s by the preset %s; what is flagged: %s",
                " and ".join(wanted.gates),
                wanted.preset,
                wanted.flagged,
            )
        taken_away = held.pop_all()
    return taken_away.close
