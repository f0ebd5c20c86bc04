"""The language of the pages that a node writes: the one that its user reads ComfyUI in."""

import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import folder_paths
from comfy_execution.utils import get_executing_context
from server import PromptServer

from ..options.language import nearest, read_in
from .users import asked_for, user_of

SETTINGS, LOCALE, ALONE = "comfy.settings.json", "Comfy.Locale", "default"


def by_user() -> AbstractContextManager[None]:
    """A block whose pages are in the language of the user whose prompt runs."""
    context = get_executing_context()
    user = user_of(context.prompt_id) if context else None
    return read_in(language_of(user))


def language_of(user: str | None) -> str:
    """The setting Comfy.Locale of a user; where it was never changed, what the browser asks for.

    The frontend decides so too. None is the one user of a ComfyUI without --multi-user.
    """
    chosen = _settings(user).get(LOCALE)
    return nearest(chosen if isinstance(chosen, str) and chosen else asked_for(user))


def _settings(user: str | None) -> dict[str, Any]:
    """The settings of a user as ComfyUI's frontend keeps them; none where there are none."""
    known = getattr(getattr(PromptServer, "instance", None), "user_manager", None)
    if user is not None and not (known and user in known.users):
        return {}  # any request can name any user, such as a path
    file = Path(folder_paths.get_user_directory(), user or ALONE, SETTINGS)
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # as ComfyUI takes it
    return found if isinstance(found, dict) else {}
