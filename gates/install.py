"""Every gate that the operator asks for, closed again as one."""

import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import folder_paths
from server import PromptServer

from ..audit.opinion import Opinion
from . import decode, door, graph, previews, socket
from .keeper import Keeper
from .look import Inspector
from .seen import Seen
from .wanted import RequireAudit

Gate: TypeAlias = Callable[[], Callable[[], None]]  # closes it; what that gives opens it again
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

    With a `mistake` nothing passes, and a gate that can't be closed is no reason to leave another
    one open. The server's gates need a server: in a program without one there is no door to hold.
    """
    seen = Seen(None if mistake else seen_file())
    keeper = Keeper(wanted, Inspector(opinion, seen), mistake)
    server = getattr(PromptServer, "instance", None)
    gates: list[Gate] = [previews.install, lambda: graph.install(keeper)]
    if "decode" in wanted.gates:
        gates.append(lambda: decode.install(keeper))
    if "door" in wanted.gates and server is not None:
        gates += [lambda: socket.install(keeper), lambda: door.install(keeper, server)]
    with contextlib.ExitStack() as held:
        held.callback(seen.close)
        for gate in gates:
            try:
                held.callback(gate())
            # whatever it is: with a mistake nothing samples, and the others close
            except Exception:
                if not mistake:
                    raise
                logger.exception("A gate of require_audit can't be closed.")
        taken_away = held.pop_all()
    if not mistake:
        logger.info(
            "require_audit is in force: %s by the preset %s; what is flagged: %s",
            " and ".join(wanted.gates),
            wanted.preset,
            wanted.flagged,
        )
    return taken_away.close
