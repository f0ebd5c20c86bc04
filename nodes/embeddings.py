"""When a node must run again because of an embedding that a prompt names."""

import hashlib
from pathlib import Path

from ..audit.folders.files import walk
from ..host.comfyui import embedding_folders
from ..host.named import WORD


def embeddings_state(*told: object) -> str:
    """It changes when any embedding's file does; empty where nothing that is told names one."""
    if not any(WORD in str(each) for each in told):
        return ""
    folders = [path for path in map(Path, embedding_folders()) if path.is_dir()]
    return hashlib.sha256(repr([*walk(folders)]).encode()).hexdigest()
