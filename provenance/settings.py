"""What an operator gives to sign with (`demands/fields.py` has the rest)."""

from typing import Annotated

from pydantic import Field

from ..storage.checked import Checked

File = Annotated[str, Field(min_length=1)]


class Provenance(Checked):
    """PEM files: a certificate with those of its issuers, and its private key."""

    certificate: File
    key: File
