"""Signs pictures and clips with content credentials, by a certificate that is made for the test."""

from __future__ import annotations

import functools
import io
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import c2pa
import cv2
import numpy as np
import PIL.Image
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AI = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
CAMERA = "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture"
MIME = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "TIFF": "image/tiff"}
CLIPS = {
    "mp4": "video/mp4",
    "m4v": "video/x-m4v",
    "mov": "video/quicktime",
    "3gp": "video/mp4",
    "avi": "video/avi",
}


def picture(kind: str = "JPEG", brightness: int = 255) -> bytes:
    out = io.BytesIO()
    PIL.Image.fromarray(np.full((64, 64, 3), brightness, np.uint8)).save(out, kind)
    return out.getvalue()


@functools.cache
def clip(ending: str = "mp4") -> bytes:
    """A second of grey that becomes lighter."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"clip.{ending}")
        writer = cv2.VideoWriter(
            str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), 10, (64, 64)
        )
        for at in range(10):
            writer.write(np.full((64, 64, 3), 20 * at, np.uint8))
        writer.release()
        return path.read_bytes()


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
    """The file with credentials; `elsewhere`: they only name an address where they lie."""
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
    builder.sign(_signer(), (MIME | CLIPS)[kind], io.BytesIO(data), out)
    return out.getvalue()


def tampered(data: bytes) -> bytes:
    """With another last byte of the picture itself; the credentials stay."""
    return data[:-3] + bytes([data[-3] ^ 1]) + data[-2:]


def tampered_clip(data: bytes) -> bytes:
    """With another name of a program or track in it; frames and credentials stay."""
    name = next(name for name in (b"VideoHandler", b"Lavf") if name in data)
    return data.replace(name, name.swapcase(), 1)


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
