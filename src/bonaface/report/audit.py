"""An `Audit` as one page that stands alone."""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup

from bonaface.audit import FATAL_AUC, FATAL_COPIES, FATAL_LOW, SIMILAR, Audit, Finding, Property
from bonaface.files import write_text
from bonaface.report.render import count, render

LISTED = 100
_MEANING = {
    "fatal": "A test figure on this data set would be worthless.",
    "warning": "Read these before you quote a figure.",
    "info": "How the data set is; no reason to distrust a figure.",
}
_TITLES = {"fatal": "fatal", "warning": "warnings", "info": "noted"}


def write_audit_page(audit: Audit, path: Path) -> None:
    """Write the page, atomically."""
    write_text(path, audit_page(audit))


def audit_page(audit: Audit) -> str:
    """The audit as HTML."""
    copies = sorted(audit.copies, key=lambda one: (-len(one.splits), -len(one.labels), one.paths))
    return render(
        "audit.html",
        a=audit,
        verdict=_verdict(audit),
        basis=_basis(audit),
        findings=[
            (_TITLES[severity], meaning, found)
            for severity, meaning in _MEANING.items()
            if (found := [(f, _numbers(f)) for f in audit.findings if f.severity == severity])
        ],
        limits={"auc": FATAL_AUC, "auc_low": FATAL_LOW},
        properties=[
            (one, _spread(one, one.by_label["real"]), _spread(one, one.by_label["fake"]))
            for one in audit.properties
        ],
        copies=copies[:LISTED],
        total=len(copies),
        listed=LISTED,
        facts=[
            ("Data fingerprint", audit.fingerprint or "none: its layout cannot be read"),
            ("Groups known", count(audit.groups)),
            (
                "Copies",
                f"pHash of 64 bits, then a correlation of fine structure of at least {SIMILAR:g}; "
                f"fatal above {100 * FATAL_COPIES:g} % of the test split",
            ),
            ("Intervals", f"95 %, draws of whole groups, seed {audit.seed}"),
            *(("Read as", note) for note in audit.notes),
        ],
    )


def _verdict(audit: Audit) -> str:
    fatal = sum(one.severity == "fatal" for one in audit.findings)
    warned = sum(one.severity == "warning" for one in audit.findings)
    warnings = f"{warned} warning{'' if warned == 1 else 's'}"
    if fatal:
        reasons = "one reason" if fatal == 1 else f"{fatal} reasons"
        verdict = f"A test figure on this data set would be worthless, for {reasons}; {warnings}."
        if audit.fingerprint is None:
            return verdict
        return Markup(  # noqa: S704  (words and numbers of our own)
            f"{verdict} <code>bonaface audit DATA --fix OUT</code> writes a copy without copies "
            "and leaks, both classes saved alike."
        )
    return f"Nothing was found that makes a test figure on this data set worthless; {warnings}."


def _basis(audit: Audit) -> str:
    if audit.fingerprint is None:
        return "It cannot be read as a data set, so no picture was looked at."
    real, fake = (sum(n[label] for n in audit.counts.values()) for label in ("real", "fake"))
    lost = f"; {count(len(audit.unreadable))} could not be read" if audit.unreadable else ""
    return f"{count(real)} real and {count(fake)} fake pictures{lost}."


def _numbers(finding: Finding) -> str:
    return "; ".join(
        f"{name} {value:,.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in finding.evidence.items()
    )


def _spread(one: Property, found: dict[str, float | int]) -> str:
    if not found or found.get("n") == 0:
        return "none"
    if "half" in found:
        return f"{found['half']:.4g} ({found['5%']:.4g} to {found['95%']:.4g})"
    total = sum(found.values())
    return ", ".join(f"{name} {100 * n / total:.3g} %" for name, n in found.items())
