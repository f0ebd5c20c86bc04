"""C2PA claims: valid until a byte changes, signed by whom, and worth what; mistakes are errors."""

import base64
import builtins
from io import BytesIO

import numpy as np
import pytest
from certificates import operators
from modular_safety_lora.provenance import certificates, claims
from modular_safety_lora.provenance.certificates import NotInstalled, SigningError, from_files
from modular_safety_lora.provenance.reading import inspect
from modular_safety_lora.provenance.saving import encoded
from PIL import Image
from told import FILES, PIXELS, told, written

KINDS = {"png": "PNG", "jpeg": "JPEG", "webp": "WEBP"}


@pytest.mark.parametrize("name", KINDS)
def test_a_claim_is_valid_until_a_byte_changes_and_a_trial_is_called_unknown(tmp_path, name):
    path = written(tmp_path, name, told())
    plain = path.read_bytes()
    signed = claims.sign(plain, KINDS[name], told(), certificates.trial(), "0.30.0")
    path.write_bytes(signed)
    found = inspect(path)
    assert found["fault"] is None and "an unknown issuer" in found["signed"]
    assert certificates.TRIAL in found["signed"] and "a trained model made" in found["signed"]
    claim = claims.claim_in(signed, KINDS[name])
    assert claim.is_valid and not claim.is_trusted
    assert claim.faults == ("signingCredential.untrusted",)
    assert claim.record == told() and claim.made_by_model
    issuer = certificates.trial().chain.decode().partition("-----END CERTIFICATE-----\n")[2]
    assert claims.claim_in(signed, KINDS[name], issuer).is_trusted
    # of the record in the claim, of the text beside it, and of the last pixels
    last = {"png": signed.find(b"IEND"), "jpeg": len(signed), "webp": signed.find(b"EXIF")}
    for place in (signed.index(b"gflagged") + 3, signed.rindex(b"not_looked_at"), last[name] - 20):
        changed = bytearray(signed)
        changed[place] ^= 1
        claim = claims.claim_in(bytes(changed), KINDS[name])
        assert not claim.is_valid, place
        path.write_bytes(bytes(changed))
        assert inspect(path)["fault"], place


@pytest.mark.parametrize("kind", ["es256", "es384", "ed25519", "ps256"])
def test_an_operators_certificate_signs_with_any_key_that_c2pa_knows(tmp_path, kind):
    issuer = operators(tmp_path, kind)
    by = from_files(tmp_path / "studio.pem", tmp_path / "studio.key")
    assert by.algorithm == kind and not by.is_trial and "key=" not in repr(by)
    path = written(tmp_path, "png", told())
    path.write_bytes(claims.sign(path.read_bytes(), "PNG", told(), by))
    assert "by Test studio; an unknown issuer" in inspect(path)["signed"]
    assert "an issuer that you trust" in inspect(path, issuer)["signed"]


FAULTY = {
    "expired": ({"first": -40, "days": 30}, "is valid from .* not today"),
    "not yet valid": ({"first": 3}, "is valid from .* not today"),
    "a kind of key that C2PA does not know": ({"kind": "unknown"}, "this is another"),
}


@pytest.mark.parametrize("how", FAULTY)
def test_a_certificate_that_can_not_be_used_is_an_error(tmp_path, how):
    made, words = FAULTY[how]
    operators(tmp_path, **made)
    with pytest.raises(SigningError, match=words):
        from_files(tmp_path / "studio.pem", tmp_path / "studio.key")


def test_files_that_are_none_are_an_error(tmp_path):
    operators(tmp_path)
    pem, key = tmp_path / "studio.pem", tmp_path / "studio.key"
    with pytest.raises(SigningError, match="can't be read"):
        from_files(pem, tmp_path / "missing.key")
    with pytest.raises(SigningError, match="not a private key"):
        from_files(pem, pem)
    with pytest.raises(SigningError, match="no certificate"):
        from_files(key, key)
    (tmp_path / "other").mkdir()
    operators(tmp_path / "other")
    with pytest.raises(SigningError, match="not the key of the certificate"):
        from_files(pem, tmp_path / "other" / "studio.key")


def test_a_kind_of_key_that_nobody_knows_is_an_error(tmp_path):
    operators(tmp_path)
    pem, key = tmp_path / "studio.pem", tmp_path / "studio.key"
    known, unknown = (bytes.fromhex(f"2a8648ce3d02{end}") for end in ("01", "7f"))
    for path, words in ((key, "not a private key"), (pem, "no certificate")):
        begin, *text = path.read_text().partition("\n-----END")[0].splitlines()
        odd = base64.b64decode("".join(text)).replace(known, unknown)
        end = begin.replace("BEGIN", "END")
        path.write_text(f"{begin}\n{base64.encodebytes(odd).decode()}{end}\n")
        with pytest.raises(SigningError, match=words):
            from_files(pem, key)


def test_without_the_package_the_one_command_is_named(tmp_path, monkeypatch):
    path = written(tmp_path, "png", told())
    path.write_bytes(claims.sign(path.read_bytes(), "PNG", told(), certificates.trial()))
    there = builtins.__import__

    def missing(name, *args, **kwargs):
        if name == "c2pa":
            raise ImportError("No module named 'c2pa'")
        return there(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(NotInstalled, match=r"install\.py --with c2pa"):
        claims.check_installed()
    assert "perhaps: C2PA needs c2pa-python" in inspect(path)["signed"]


def test_what_a_jpeg_can_not_hold_is_an_error():
    with pytest.raises(SigningError, match="too long for a JPEG"):
        encoded(PIXELS, FILES["jpeg"], {"workflow": "x" * 70_000})
    clear = np.dstack([PIXELS, PIXELS[..., :1]])
    with pytest.raises(SigningError, match="no transparency"):
        encoded(clear, FILES["jpeg"], {})
    with Image.open(BytesIO(encoded(clear, FILES["webp"], {}))) as image:
        assert np.array_equal(np.asarray(image), clear)
