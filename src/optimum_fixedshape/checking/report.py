"""Reports: what was checked, how it went, and the numbers that show it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """How a line of a report ends."""

    PASS = "pass"
    WARNING = "warning"
    FAIL = "fail"
    SKIPPED = "skipped"


_MOST_LETTERS = 300
_FROM_BEST = (Verdict.SKIPPED, Verdict.PASS, Verdict.WARNING, Verdict.FAIL)


@dataclass(frozen=True)
class Line:
    """One line of a report.

    Attributes:
        name: What was checked, such as ``"slots"``.
        verdict: How it went; `Verdict.SKIPPED` where there was nothing to check, or no way to.
        summary: One sentence in plain words.
        evidence: What was seen, with numbers; each begins with the graph that it was seen at.
        facts: The same numbers for programs.
    """

    name: str
    verdict: Verdict
    summary: str
    evidence: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """What `check_model` found.

    Attributes:
        source: What was checked: a file, a folder or a Hub repo.
        provider: The execution provider that was asked for.
        graphs: The files that were run, in the order of the rungs.
        lines: One for each thing that was checked, in the order in which it was.
    """

    source: str
    provider: str
    graphs: tuple[str, ...]
    lines: tuple[Line, ...]

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of all lines."""
        return worst(line.verdict for line in self.lines)

    @property
    def ok(self) -> bool:
        """Whether no line fails; warnings are in order."""
        return self.verdict is not Verdict.FAIL

    @property
    def exit_code(self) -> int:
        """What a command exits with: 0 where no line fails, else 1."""
        return 0 if self.ok else 1

    def line(self, name: str) -> Line:
        """Returns the line called `name`.

        Raises:
            KeyError: There is none.
        """
        return {line.name: line for line in self.lines}[name]

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as plain types, ready for JSON."""
        return {
            "source": self.source,
            "provider": self.provider,
            "graphs": list(self.graphs),
            "verdict": self.verdict.value,
            "ok": self.ok,
            "exit_code": self.exit_code,
            "lines": [
                {
                    "name": line.name,
                    "verdict": line.verdict.value,
                    "summary": line.summary,
                    "evidence": list(line.evidence),
                    "facts": {name: _plain(fact) for name, fact in line.facts.items()},
                }
                for line in self.lines
            ],
        }

    def __str__(self) -> str:
        counts = Counter(line.verdict for line in self.lines)
        said = ", ".join(f"{counts[verdict]} {verdict}" for verdict in reversed(_FROM_BEST) if counts[verdict])
        width = max((len(line.name) for line in self.lines), default=0)
        rows = [
            f"{self.verdict.upper()}: {self.source} on {self.provider} ({said})",
            f"graphs: {', '.join(self.graphs)}",
        ]
        for line in self.lines:
            rows.append(f"  {line.verdict:<7}  {line.name:<{width}}  {line.summary}")
            if line.verdict in (Verdict.WARNING, Verdict.FAIL):
                rows += [f"{'':{width + 13}}{evidence}" for evidence in line.evidence]
        return "\n".join(rows)


def _plain(fact: Any) -> Any:
    """A fact as JSON has it, which knows no infinity."""
    return None if isinstance(fact, float) and not math.isfinite(fact) else fact


@dataclass(frozen=True)
class Finding:
    """One thing that a line has seen.

    Attributes:
        verdict: What it means.
        summary: What the line says if this is the worst of its findings; without numbers that differ between rungs.
        evidence: Where it was seen, and the numbers.
        facts: The same numbers for programs.
    """

    verdict: Verdict
    summary: str
    evidence: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


def conclude(name: str, findings: Iterable[Finding]) -> Line:
    """Returns the line that several findings make; the worst of them decides.

    Args:
        name: Of the line.
        findings: At least one.
    """
    found = list(findings)
    verdict = worst(finding.verdict for finding in found)
    summaries = list(dict.fromkeys(finding.summary for finding in found if finding.verdict is verdict))
    is_bad = verdict in (Verdict.WARNING, Verdict.FAIL)
    shown = (
        [finding for finding in found if finding.verdict in (Verdict.WARNING, Verdict.FAIL)]
        if is_bad
        else [finding for finding in found if finding.verdict is verdict]
    )
    shown.sort(key=lambda finding: -_FROM_BEST.index(finding.verdict))
    facts: dict[str, Any] = {}
    for finding in reversed(shown):
        facts.update(finding.facts)
    return Line(
        name, verdict, " ".join(summaries), tuple(finding.evidence for finding in shown if finding.evidence), facts
    )


def brief(error: Exception) -> str:
    """Returns what an error says, on one line and no longer than people read."""
    text = " ".join(str(error).split())
    return text if len(text) <= _MOST_LETTERS else f"{text[:_MOST_LETTERS]} …"


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Returns the worst of several verdicts; `Verdict.SKIPPED` for none."""
    return max(verdicts, key=_FROM_BEST.index, default=Verdict.SKIPPED)
