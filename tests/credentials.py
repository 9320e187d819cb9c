"""Signs pictures with content credentials, by a certificate that is made for the test."""

from __future__ import annotations

import functools
import io
from datetime import UTC, datetime, timedelta
from typing import Any

import c2pa
import numpy as np
import PIL.Image
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AI = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
CAMERA = "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture"
MIME = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "TIFF": "image/tiff"}


def picture(kind: str = "JPEG", brightness: int = 255) -> bytes:
    out = io.BytesIO()
    PIL.Image.fromarray(np.full((64, 64, 3), brightness, np.uint8)).save(out, kind)
    return out.getvalue()


def created(source: str = AI, agent: str = "DrawBot") -> dict[str, Any]:
    return {
        "action": "c2pa.created",
        "digitalSourceType": source,
        "softwareAgent": {"name": agent},
    }


def signed(
    data: bytes,
    *actions: dict[str, Any],
    kind: str = "JPEG",
    elsewhere: str | None = None,
    generator: str = "test app",
) -> bytes:
    """The picture with credentials; `elsewhere`: they only name an address where they lie."""
    manifest = {
        "claim_generator_info": [{"name": generator, "version": "1.0"}],
        "assertions": [
            {"label": "c2pa.actions", "data": {"actions": list(actions) or [created()]}}
        ],
    }
    builder = c2pa.Builder(manifest)
    if elsewhere:
        builder.set_no_embed()
        builder.set_remote_url(elsewhere)
    out = io.BytesIO()
    builder.sign(_signer(), MIME[kind], io.BytesIO(data), out)
    return out.getvalue()


def tampered(data: bytes) -> bytes:
    """With another last byte of the picture itself; the credentials stay."""
    return data[:-3] + bytes([data[-3] ^ 1]) + data[-2:]


def _signer() -> Any:
    chain, key = _certificate()
    return c2pa.Signer.from_info(
        c2pa.C2paSignerInfo(alg=b"es256", sign_cert=chain, private_key=key, ta_url=None)
    )


@functools.cache
def _certificate() -> tuple[bytes, bytes]:
    root, leaf = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    pem = serialization.Encoding.PEM
    chain = b"".join(
        _issued(name, key, root).public_bytes(pem)
        for name, key in (("Test Signer", leaf), ("Test Root", root))
    )
    pkcs8, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return chain, leaf.private_bytes(pem, pkcs8, plain)


def _issued(
    name: str, key: ec.EllipticCurvePrivateKey, root: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    is_root, now = key is root, datetime.now(UTC)
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_root,
        crl_sign=is_root,
        encipher_only=False,
        decipher_only=False,
    )
    subject = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(root.public_key())
    made = (
        x509.CertificateBuilder()
        .subject_name(_named(name))
        .issuer_name(_named("Test Root"))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=2))
        .add_extension(x509.BasicConstraints(ca=is_root, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(subject, critical=False)
        .add_extension(issuer, critical=False)
    )
    if not is_root:
        mail = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
        made = made.add_extension(mail, critical=False)
    return made.sign(root, hashes.SHA256())


def _named(name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Test Newsroom"),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )
