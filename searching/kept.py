"""What a search found, on disk: an embedding for each prompt, which says what it was found for."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..evaluation.embedded import ByText, of_prompt
from ..evaluation.prompt_set import Prompt
from ..evaluation.run import file_name
from ..host.named import WORD
from ..modules.tensors import metadata, write_atomically
from ..options.errors import PackError
from ..storage.differing import difference
from .search import Found

KEY = "msl.search"
NAMES = 12  # digits of the digest in a file's name


class OtherSearch(PackError, ValueError):
    """The folder holds what another search found."""


class Kept:
    """The embeddings of one search, which `stamp` tells from any other; by prompt.

    `named` are those that prompts name themselves: with another file a prompt is another.
    """

    def __init__(self, folder: Path, stamp: Mapping[str, Any], named: ByText):
        self.folder, self.stamp, self.named = folder, stamp, named
        self.files: dict[str, Path] = {}
        for file in sorted(folder.glob("*.safetensors")):
            said = json.loads(metadata(file, file.name).get(KEY, "{}"))
            if said.get("of") != stamp:
                differs = difference(said.get("of", {}), stamp, {}, {})
                raise OtherSearch(
                    f"{file} was found with another {differs}."
                    " Give this search another folder, or delete that one."
                )
            self.files[said["prompt"]] = file

    def add(self, prompt: Prompt, found: Found) -> None:
        """Write what was found for a prompt."""
        tensors = {name: each.cpu().contiguous() for name, each in found.prefix.items()}
        digest = hashlib.sha256(self._of(prompt).encode())
        for each in tensors.values():
            digest.update(each.numpy().tobytes())
        name = f"{file_name(prompt.key)}-{digest.hexdigest()[:NAMES]}"
        said = {
            "of": self.stamp,
            "prompt": self._of(prompt),
            "tokens": found.tokens,
            "losses": [round(each, 6) for each in found.losses],
            "hit": found.hit,
        }
        file = self.folder / f"{name}.safetensors"
        write_atomically(file, tensors, {KEY: json.dumps(said)})
        self.files[self._of(prompt)] = file

    def text(self, prompt: Prompt) -> str:
        """The prompt with what was found before it, as ComfyUI reads it."""
        return f"{WORD}{self.files[self._of(prompt)].stem} {prompt.text}"

    def __contains__(self, prompt: Prompt) -> bool:
        return self._of(prompt) in self.files

    def _of(self, prompt: Prompt) -> str:
        """What is found is for: a prompt, with the embeddings that it names."""
        named = of_prompt(self.named, prompt)
        return repr(prompt) if named is None else f"{prompt!r} {json.dumps(named)}"
