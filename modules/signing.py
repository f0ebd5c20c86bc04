"""Signatures of safety modules: Ed25519 (RFC 8032) over the seal.

The seal covers the tensors' digest and all metadata. A signature says who vouches for a module; the
seal alone says that it is whole. `msl.signature` is `ed25519:<public key>:<signature>`, both in
base64; it is the one entry that the seal does not cover.
"""

from __future__ import annotations

import base64
import binascii
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..options.errors import PackError
from ..options.words import amount
from ..storage.faults import told
from .errors import ModuleFileError, NotTrusted
from .files import LoraFile, load_safety, save_module

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

logger = logging.getLogger(__name__)
SCHEME = "ed25519"
CONTEXT = b"modular-safety-lora seal\0"


class KeyFileError(PackError, ValueError):
    """A key that can't be read or used; the message names the file or the key."""


def new_key(path: Path) -> str:
    """Write a new private key as PEM, readable by its owner alone; its public key in base64."""
    crypto = _Library()
    private, forms = crypto.PrivateKey.generate(), crypto.serialization
    content = private.private_bytes(
        forms.Encoding.PEM, forms.PrivateFormat.PKCS8, forms.NoEncryption()
    )
    try:
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise KeyFileError(
            f"{path}: no key can be written there ({told(error)}); a key that is there is kept."
        ) from error
    with os.fdopen(opened, "wb") as file:
        file.write(content)
    return _text(private.public_key())


def sign_file(path: Path, key: Path) -> str:
    """Sign a sealed safety module in place, whole or not at all; return the public key in base64.

    Its seal stays as it is, since it does not cover `msl.signature`. Raises KeyFileError,
    ModuleFileError.
    """
    crypto = _Library()
    try:
        private = crypto.serialization.load_pem_private_key(key.read_bytes(), password=None)
    except (ValueError, TypeError) as error:
        raise KeyFileError(
            f"{key}: this is not a private key in PEM without a password ({error})."
        ) from error
    if not isinstance(private, crypto.PrivateKey):
        raise KeyFileError(f"{key}: this is not an Ed25519 key.")
    seal, tensors, metadata = _copied(path)
    public = _text(private.public_key())
    signature = base64.b64encode(private.sign(_signed(seal))).decode()
    signed = {**metadata, "msl.signature": f"{SCHEME}:{public}:{signature}"}
    digest = save_module(path, tensors, signed, "safety", overwrite=True)
    if digest != seal:
        raise ModuleFileError(
            f"{path.name}: signing changed its seal from {seal[:12]} to {digest[:12]}."
        )
    return public


def _copied(path: Path) -> tuple[str, dict[str, torch.Tensor], dict[str, str]]:
    """Seal, tensors and metadata of a safety module, in memory: Windows replaces no mapped file."""
    module = load_safety(path, path.name)
    return (
        module.sha256,
        {name: value.clone() for name, value in module.tensors.items()},
        dict(module.metadata),
    )


def signer(module: LoraFile) -> str | None:
    """The public key (base64) that signed a safety module; None when it is not signed.

    Raises ModuleFileError for a signature that is not right, or can't be checked here.
    """
    signature = module.metadata.get("msl.signature")
    if signature is None:
        return None
    try:
        crypto = _Library()
    except KeyFileError as error:
        raise ModuleFileError(f"{module.name}: its signature can't be checked: {error}.") from error
    try:
        scheme, public, signed = signature.split(":")
        if scheme != SCHEME:
            raise ValueError(f"the scheme {scheme!r} is not known")
        crypto.PublicKey.from_public_bytes(_bytes(public)).verify(
            _bytes(signed), _signed(module.sha256)
        )
    except ValueError as error:
        raise ModuleFileError(f"{module.name}: its signature can't be read: {error}.") from error
    except crypto.InvalidSignature as error:
        raise ModuleFileError(
            f"{module.name}: its signature is wrong: it belongs to another file, or was changed."
        ) from error
    return public


def signers(modules: Sequence[LoraFile]) -> tuple[str | None, ...]:
    """The public key (base64) that signed each safety module; None without a right signature."""
    found = []
    for module in modules:
        try:
            found.append(signer(module))
        except ModuleFileError as error:
            logger.warning("%s", error)
            found.append(None)
    return tuple(found)


def check_trusted(modules: Sequence[LoraFile], trusted: Sequence[str]) -> None:
    """Raise NotTrusted unless every safety module is signed by one of the trusted keys.

    These are public keys in base64; without any, every module passes.
    """
    for module in modules if trusted else ():
        by = signer(module)
        if by not in trusted:
            what = "is not signed" if by is None else f"is signed by {by}"
            raise NotTrusted(
                f"{module.name}: it {what}, and this ComfyUI loads only safety LoRAs signed with a"
                " key that it trusts. Ask its operator to sign it, or to trust its key. (Trusted:"
                f" {amount(len(trusted), 'key')}, first: {trusted[0]}.)"
            )


def check_key(text: str) -> None:
    """Raise KeyFileError unless a text is an Ed25519 public key in base64."""
    if len(_bytes(text)) != 32:
        raise KeyFileError(
            f"{text!r} is not an Ed25519 public key, which must be 32 bytes in base64."
        )


def _signed(seal: str) -> bytes:
    return CONTEXT + seal.encode()


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise KeyFileError(f"{text!r} is not base64") from error


def _text(public: Ed25519PublicKey) -> str:
    return base64.b64encode(public.public_bytes_raw()).decode()


class _Library:
    """PyCA's cryptography, imported where something is signed or a signature is checked.

    Raises KeyFileError without it.
    """

    def __init__(self) -> None:
        try:
            from cryptography.exceptions import InvalidSignature
            from cryptography.hazmat.primitives import serialization
            from cryptography.hazmat.primitives.asymmetric import ed25519
        except ImportError as error:
            raise KeyFileError(
                f"signatures need the package cryptography, which can't be imported ({error}): pip"
                " install cryptography"
            ) from error
        self.InvalidSignature, self.serialization = InvalidSignature, serialization
        self.PrivateKey, self.PublicKey = ed25519.Ed25519PrivateKey, ed25519.Ed25519PublicKey
