"""Content credentials (C2PA): what a signed file says of its own origin, beside any score.

They are read by the C2PA project's own library, in a process of its own with limits on time and
memory, without rights to write files: it parses what strangers made, and what ends it must not
end a batch or a service. Nothing is fetched: no manifest that lies elsewhere, no state of a
certificate, no identity. Specification: C2PA Technical Specification 2.x, c2pa.org.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Final, Literal

State = Literal["absent", "valid", "invalid", "unreadable"]

_MARKS: Final = (b"c2pa", b"dcterms:provenance")  # of a manifest inside; of one elsewhere
_MOST_BYTES: Final = 2**28
_BLOCK: Final = 2**20  # of a file, searched at a time
_SECONDS: Final = 20  # of the process; of its processor time at most a quarter
_MEMORY: Final = 2**31
_LETTERS: Final = 120  # of a name that the file gives
_ITEMS: Final = 20  # of a list that the file gives
_SETTINGS: Final = {
    # No list of trusted signers is shipped, so nobody is called trusted.
    "verify": {
        "verify_trust": False,
        "verify_timestamp_trust": False,
        "ocsp_fetch": False,
        "remote_manifest_fetch": False,
    },
    "core": {
        "allowed_network_hosts": [],
        "allow_redirects": False,
        "decode_identity_assertions": False,
        "max_decompressed_manifest_size_in_mb": 16,
    },
}
_AI: Final = frozenset({"trainedAlgorithmicMedia", "compositeWithTrainedAlgorithmicMedia"})
_SOURCES: Final = {  # of the IPTC's digital source types
    "trainedAlgorithmicMedia": "by generative AI",
    "compositeWithTrainedAlgorithmicMedia": "in part by generative AI",
    "algorithmicMedia": "by an algorithm",
    "digitalCapture": "by a camera",
    "computationalCapture": "by a camera that computes",
    "humanEdits": "by a person",
}
_PROBLEMS: Final = {
    "assertion.dataHash.mismatch": "the file was changed after it was signed",
    "assertion.boxesHash.mismatch": "the file was changed after it was signed",
    "assertion.bmffHash.mismatch": "the file was changed after it was signed",
    "assertion.hashedURI.mismatch": "a statement was changed after it was signed",
    "claimSignature.mismatch": "the signature does not fit",
    "claimSignature.outsideValidity": "the certificate was not valid at the time",
    "signingCredential.invalid": "the certificate is not one for this use",
    "signingCredential.expired": "the certificate has expired",
}
_ERRORS: Final = {
    "Remote": "they lie at an address elsewhere, which is not fetched",
    "RemoteManifest": "they lie at an address elsewhere, which is not fetched",
}


@dataclass(frozen=True, slots=True)
class Provenance:
    """What a file's content credentials (C2PA) say of its origin; no part of the verdict.

    Attributes:
        state: absent; valid: signed, and unchanged since; invalid: they do not hold; unreadable.
        summary: one sentence for a person.
        signer: who signed, by the certificate, which is not checked against a list of trusted
            signers: anybody can make one with any name.
        signed_at: when, by a time stamp, whose authority is not checked either; None: no stamp.
        generator: the program that wrote them.
        says_ai: whether they say that generative AI made the picture or clip, or a part of it.
        actions: what they say was done, the last file's before those of its sources.
        problems: why they do not hold, cannot be read, or were not looked for.
    """

    state: State
    summary: str
    signer: str | None = None
    signed_at: str | None = None
    generator: str | None = None
    says_ai: bool = False
    actions: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


_ABSENT: Final = Provenance(
    "absent", "no content credentials; most files carry none, so that says nothing"
)


def read_provenance(source: Path | bytes) -> Provenance | None:
    """The content credentials of a picture or clip that could be decoded.

    Args:
        source: its file, which is not read into memory here, or its bytes.

    Returns:
        What they say; None: the extra `provenance` is not installed. Whatever is wrong with them
        or with the file is `unreadable`, never an error; so is a file that is too large.
    """
    if importlib.util.find_spec("c2pa") is None:
        return None
    try:
        with _opened(source) as file:
            if file.seek(0, os.SEEK_END) > _MOST_BYTES:
                return _too_large()
            return _read_apart(source, file) if _marked(file) else _ABSENT
    except OSError:
        return _unreadable("the file cannot be read")


def _opened(source: Path | bytes) -> IO[bytes]:
    return io.BytesIO(source) if isinstance(source, bytes) else source.open("rb", buffering=0)


def _marked(file: IO[bytes]) -> bool:
    """Whether there is anything for the reader to look at; most files have nothing."""
    file.seek(0)
    overlap, last = max(map(len, _MARKS)) - 1, b""
    while block := file.read(_BLOCK):
        last = last[-overlap:] + block
        if any(mark in last for mark in _MARKS):
            return True
    return False


def _read_apart(source: Path | bytes, file: IO[bytes]) -> Provenance:
    """In a process of its own: `main`, which gets the open file, or the bytes through a pipe."""
    given: dict[str, Any] = {"input": source} if isinstance(source, bytes) else {"stdin": file}
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "bonaface.provenance"],
            **given,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_SECONDS,
            check=False,
        )
        found = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        return _unreadable(f"that takes longer than {_SECONDS} s")
    except (OSError, ValueError):
        return _unreadable("their reader gave up on them")
    lists = {name: tuple(found[name]) for name in ("actions", "problems")}
    return Provenance(**found | lists)


def _too_large() -> Provenance:
    why = f"not looked for: the file is larger than {_MOST_BYTES >> 20} MiB"
    return Provenance("unreadable", f"content credentials were {why}", problems=(why,))


def _unreadable(why: str) -> Provenance:
    return Provenance(
        "unreadable", f"content credentials that could not be read: {why}", problems=(why,)
    )


# -- in the other process --


def main() -> None:
    """Read a file from standard input; write its `Provenance` to standard output as JSON."""
    _limit()
    given = sys.stdin.buffer
    found = _read(given if given.seekable() else io.BytesIO(given.read()))
    sys.stdout.write(json.dumps(asdict(found)))


def _limit() -> None:
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return
    for what, most in (
        (resource.RLIMIT_AS, _MEMORY),
        (resource.RLIMIT_CPU, _SECONDS // 4),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        with contextlib.suppress(ValueError):  # lower already, or unknown to macOS
            resource.setrlimit(what, (most, most))


def _read(file: IO[bytes]) -> Provenance:
    import c2pa

    file.seek(0)
    context = c2pa.Context.from_dict(_SETTINGS)
    try:
        with c2pa.Reader(file, context=context) as reader:
            store = json.loads(reader.json())
    except (c2pa.C2paError.ManifestNotFound, c2pa.C2paError.NotSupported):
        return _ABSENT
    except c2pa.C2paError as error:
        kind = str(error).partition(":")[0]
        return _unreadable(_ERRORS.get(kind, "they or the file are damaged"))
    return _of(store)


def _of(store: Mapping[str, Any]) -> Provenance:
    """From the library's report on all manifests of a file."""
    manifests = store.get("manifests") or {}
    label = store.get("active_manifest")
    active = manifests.get(label, {})
    others = [one for name, one in manifests.items() if name != label]
    statements = [one for manifest in (active, *others) for one in _statements(manifest)]
    actions = _few(_action(one) for one in statements)
    says_ai = any(_source(one) in _AI for one in statements)
    signature = active.get("signature_info") or {}
    signer = _names(signature.get("common_name"), signature.get("issuer"))
    codes = (str(one.get("code")) for one in store.get("validation_status") or ())
    problems = _few(_PROBLEMS.get(code, _text(code)) for code in codes)
    good = store.get("validation_state") in ("Valid", "Trusted")
    signed_at = _text(signature.get("time"))
    return Provenance(
        state="valid" if good else "invalid",
        summary=_summary(good, signer, signed_at, says_ai, problems),
        signer=signer or None,
        signed_at=signed_at or None,
        generator=_generator(active),
        says_ai=says_ai,
        actions=actions,
        problems=() if good else problems,
    )


def _summary(good: bool, signer: str, when: str, says_ai: bool, problems: tuple[str, ...]) -> str:
    if not good:
        why = "; ".join(problems[:2]) or "they do not fit the file"
        return f"content credentials that do not hold: {why}; do not rely on what they say"
    dated = f" at {when}" if when else ""
    says = "; they say that generative AI made it or a part of it" if says_ai else ""
    return (
        f"content credentials signed by {signer or 'someone without a name'}{dated}, not checked "
        f"against a list of trusted signers; unchanged since{says}"
    )


def _statements(manifest: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for assertion in manifest.get("assertions") or ():
        if str(assertion.get("label")).startswith("c2pa.actions"):
            data = assertion.get("data")
            for action in (data.get("actions") or ()) if isinstance(data, dict) else ():
                if isinstance(action, dict):
                    yield action


def _action(action: Mapping[str, Any]) -> str:
    name = _text(action.get("action")).removeprefix("c2pa.").replace("_", " ")
    source = _source(action)
    made = f" {_SOURCES.get(source, f'({source})')}" if source else ""
    agent = action.get("softwareAgent")
    program = _text(agent.get("name") if isinstance(agent, dict) else agent)
    return f"{name}{made}" + (f", with {program}" if program else "")


def _source(action: Mapping[str, Any]) -> str:
    return _text(action.get("digitalSourceType")).rpartition("/")[2]


def _generator(manifest: Mapping[str, Any]) -> str | None:
    first = next(iter(manifest.get("claim_generator_info") or ()), None)
    if isinstance(first, dict):
        return " ".join(filter(None, (_text(first.get("name")), _text(first.get("version")))))
    return _text(manifest.get("claim_generator")) or None


def _names(name: Any, organisation: Any) -> str:
    return ", ".join(dict.fromkeys(filter(None, (_text(name), _text(organisation)))))


def _text(value: Any) -> str:
    """A name that the file gives, in one line, not long; "" where it is none."""
    return " ".join(value[: 2 * _LETTERS].split())[:_LETTERS] if isinstance(value, str) else ""


def _few(found: Iterator[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(filter(None, found)))[:_ITEMS]


if __name__ == "__main__":
    main()
