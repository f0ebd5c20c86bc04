"""What an operator asks of the log and its signals (`demands/fields.py` has the rest)."""

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from ..options.words import amount
from ..storage.checked import Checked
from ..storage.faults import told

Addresses = Literal["none", "connection", "proxy"]
SHORTEST = 16  # bytes of a secret


def _url(text: str) -> str:
    try:
        found = urlsplit(text)
        _ = found.port, (found.hostname or "").encode("idna")  # as it is sent to
    except ValueError as error:
        raise ValueError(f"webhook.url is {text!r}: {error}") from None
    if found.scheme not in ("http", "https") or not found.hostname:
        raise ValueError(f"webhook.url is {text!r}; it must be an http or https address")
    if found.username or found.password:
        raise ValueError("webhook.url holds a user or password; the body is signed instead")
    if any(each.isspace() for each in text) or not text.isascii():
        raise ValueError(f"webhook.url is {text!r}; it may hold no blanks and only ASCII")
    return text


class EvidenceLog(Checked):
    """The log: whether it keeps prompts, how large and old it may be, whether all stops without.

    `addresses` of clients are those of connections, or as the proxy before ComfyUI tells them.
    """

    prompts: bool = False
    addresses: Addresses = "none"
    max_mb: Annotated[int, Field(ge=1, le=2**16)] = 64
    max_days: Annotated[int, Field(ge=1, le=36_500)] | None = None
    required: bool = True


class Webhook(Checked):
    """One address that is told of refusals and of flagged pictures."""

    url: Annotated[str, AfterValidator(_url)]
    secret_file: Annotated[str, Field(min_length=1)]

    def secret(self, folder: Path) -> bytes:
        """The key of its signatures. Raises ValueError for a file that holds none."""
        file = folder / self.secret_file
        try:
            found = file.read_bytes().strip()
        except OSError as error:
            raise ValueError(f"webhook.secret_file: {file} can't be read ({told(error)})") from None
        if len(found) < SHORTEST:
            raise ValueError(
                f"webhook.secret_file: {file} holds {amount(len(found), 'byte')}; it must hold"
                f" at least {SHORTEST}"
            )
        return found
