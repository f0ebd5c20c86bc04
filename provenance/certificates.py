"""Who signs: the operator's certificate, or one that is made here to try it.

A trial certificate shows that nothing changed since, not who signed: anybody can make one, and
readers call its issuer unknown. Its key stays in this process.
"""

from __future__ import annotations

import datetime
import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..options.errors import PackError
from ..storage.faults import told

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

INSTALL = "python install.py --with c2pa in the pack's folder, with ComfyUI's Python; then restart"
TRIAL = "Trial certificate that nobody checked"
SIGNER, ISSUER = "Modular Safety LoRA", "Modular Safety LoRA, trial issuer"
VALID = datetime.timedelta(days=365)  # of a trial certificate
CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}


class SigningError(PackError, RuntimeError):
    """A picture can't be signed; nothing was written."""


class NotInstalled(PackError, ImportError):
    """C2PA needs packages that are not here."""


@dataclass(frozen=True)
class Credentials:
    """A chain of certificates, PEM, the signer's first; its key, PEM; C2PA's name of the kind."""

    chain: bytes
    key: bytes = field(repr=False)
    algorithm: str
    is_trial: bool = False


def from_files(certificate: Path, key: Path) -> Credentials:
    """The operator's. Raises SigningError for files that can't be used now, NotInstalled."""
    crypto = _Library()
    chain, private = _content(certificate), _content(key)
    try:
        first = crypto.x509.load_pem_x509_certificates(chain)[0]
        public = first.public_key()
    except crypto.faults as error:
        raise SigningError(
            f"{certificate}: this is no certificate in PEM that can be used ({error})."
        ) from error
    try:
        secret = crypto.serialization.load_pem_private_key(private, password=None)
    except crypto.faults as error:
        raise SigningError(
            f"{key}: this is not a private key in PEM without a password ({error})."
        ) from error
    if secret.public_key() != public:
        raise SigningError(f"{key}: this is not the key of the certificate {certificate}.")
    _check_dates(first, certificate)
    return Credentials(chain, private, _algorithm(secret, key))


@functools.cache
def trial() -> Credentials:
    """A certificate that is made here, with an issuer that is made here: the same until the end."""
    crypto = _Library()
    now = datetime.datetime.now(datetime.timezone.utc)
    root, own = (crypto.ec.generate_private_key(crypto.ec.SECP256R1()) for _ in range(2))

    def certificate(name: str, key: Any, is_root: bool) -> Certificate:
        x509, names = crypto.x509, crypto.x509.oid
        issuer, subject = (
            x509.Name(
                [
                    x509.NameAttribute(names.NameOID.ORGANIZATION_NAME, TRIAL),
                    x509.NameAttribute(names.NameOID.COMMON_NAME, each),
                ]
            )
            for each in (ISSUER, name)
        )
        uses = dict.fromkeys(
            (
                *("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
                *("encipher_only", "decipher_only"),
            ),
            False,
        )
        built = (
            x509.CertificateBuilder(issuer, subject, key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + VALID)
            .add_extension(x509.BasicConstraints(is_root, None), critical=True)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=not is_root, key_cert_sign=is_root, crl_sign=is_root, **uses
                ),
                critical=True,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(root.public_key()), False
            )
        )
        if not is_root:  # what C2PA asks of a signer's
            email = x509.ExtendedKeyUsage([names.ExtendedKeyUsageOID.EMAIL_PROTECTION])
            built = built.add_extension(email, critical=False)
        return built.sign(root, crypto.hashes.SHA256())

    made = certificate(SIGNER, own, False), certificate(ISSUER, root, True)
    forms = crypto.serialization
    chain = b"".join(each.public_bytes(forms.Encoding.PEM) for each in made)
    secret = own.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, forms.NoEncryption())
    return Credentials(chain, secret, "es256", is_trial=True)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SigningError(
            f"{path} can't be read ({told(error)}), so nothing is signed or saved."
        ) from error


def _check_dates(found: Certificate, path: Path) -> None:
    now = datetime.datetime.now(datetime.timezone.utc)
    first, last = found.not_valid_before_utc, found.not_valid_after_utc
    if not first <= now <= last:
        raise SigningError(
            f"{path}: this certificate is valid from {first.date()} to {last.date()}, not today."
        )


def _algorithm(secret: Any, path: Path) -> str:
    """C2PA's name of a key's kind."""
    crypto = _Library()
    if isinstance(secret, crypto.ec.EllipticCurvePrivateKey) and secret.curve.name in CURVES:
        return CURVES[secret.curve.name]
    if isinstance(secret, crypto.ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(secret, crypto.rsa.RSAPrivateKey):
        return "ps256"
    raise SigningError(
        f"{path}: C2PA takes keys on P-256, P-384 or P-521, Ed25519 and RSA; this is another."
    )


class _Library:
    """PyCA's cryptography, imported where something is signed. Raises NotInstalled without it."""

    def __init__(self) -> None:
        try:
            from cryptography import x509
            from cryptography.exceptions import UnsupportedAlgorithm
            from cryptography.hazmat.primitives import hashes, serialization
            from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
        except ImportError as error:
            raise NotInstalled(
                f"C2PA needs cryptography ({error}): {INSTALL}, or pip install cryptography."
            ) from error
        self.x509: Any = x509
        self.hashes, self.serialization = hashes, serialization
        self.ec, self.ed25519, self.rsa = ec, ed25519, rsa
        self.faults = ValueError, TypeError, UnsupportedAlgorithm  # of files that can't be used
