"""The verdict as a whole, and as lines for the terminal. Its sentences are in the findings."""

from collections.abc import Iterator, Sequence

from serve.bundle import Finding
from serve.command import printable

INDENT = 11


def overall(findings: Sequence[Finding]) -> str:
    """The worst status among them: "bad", "unknown" or "good"; "unknown" if there is none."""
    found = {finding.status for finding in findings}
    return next((status for status in ("bad", "unknown", "good") if status in found), "unknown")


def summary(findings: Sequence[Finding]) -> str:
    """In how many respects the model is what: "bad in 2 of 6 respects, unknown in 1"."""
    counts = {
        status: sum(finding.status == status for finding in findings)
        for status in ("bad", "unknown", "good")
    }
    first, *rest = [(status, count) for status, count in counts.items() if count] or [
        ("unknown", 0)
    ]
    if not rest:
        return f"{first[0]} in all of {first[1]} respects" if first[1] else "unknown"
    others = ", ".join(f"{status} in {count}" for status, count in rest)
    return f"{first[0]} in {first[1]} of {len(findings)} respects, {others}"


def verdict_lines(findings: Sequence[Finding]) -> Iterator[str]:
    """The block `verdict` of the terminal: its summary, and a line for each finding."""
    yield f"{'verdict':<{INDENT}}the model is {summary(findings)}"
    for finding in findings:
        yield f"{'':<{INDENT}}{finding.status:<7}  {printable(finding.text)}"
