"""Certificates of an operator's kind, made for tests: an issuer of their own, any dates and key."""

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

KEYS = {
    "es256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "es384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "ps256": lambda: rsa.generate_private_key(65537, 2048),
    "unknown": lambda: ec.generate_private_key(ec.SECP256K1()),
}


def operators(
    folder: Path,
    kind: str = "es256",
    first: int = -1,
    days: int = 30,
    purpose: x509.ObjectIdentifier = ExtendedKeyUsageOID.EMAIL_PROTECTION,
) -> str:
    """Write `studio.pem` and `studio.key`, valid from day `first` on; the issuer's PEM."""
    now = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=first)
    root, own = KEYS["es256"](), KEYS[kind]()

    def made(subject: str, key, is_root: bool) -> x509.Certificate:
        names = [
            x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, each)])
            for each in (subject, "Test issuer")
        ]
        uses = ["digital_signature", "content_commitment", "key_encipherment", "data_encipherment"]
        uses += ["key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"]
        wanted = {"key_cert_sign", "crl_sign"} if is_root else {"digital_signature"}
        built = x509.CertificateBuilder(names[1], names[0], key.public_key())
        built = (
            built.serial_number(x509.random_serial_number())
            .not_valid_before(now)
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.BasicConstraints(is_root, None), critical=True)
            .add_extension(x509.KeyUsage(**{use: use in wanted for use in uses}), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(root.public_key()), False
            )
        )
        if not is_root:
            built = built.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        return built.sign(root, hashes.SHA256())

    pem = [
        each.public_bytes(serialization.Encoding.PEM)
        for each in (made("Test studio", own, False), made("Test issuer", root, True))
    ]
    (folder / "studio.pem").write_bytes(b"".join(pem))
    (folder / "studio.key").write_bytes(
        own.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return pem[1].decode()
