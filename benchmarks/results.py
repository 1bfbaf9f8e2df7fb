"""What was measured, as plain facts that go into ``results.json``, and from there into tables and plots."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .turns import Spread, Times


@dataclass(frozen=True)
class Target:
    """What a ratio should be: at least, or at most, so much."""

    sign: str
    bound: float

    def reached(self, value: float) -> bool:
        """Returns whether a ratio, rounded as it is printed, is what it should be."""
        rounded = round(value, 2)
        return rounded >= self.bound if self.sign == "≥" else rounded <= self.bound

    def __str__(self) -> str:
        return f"{self.sign} {self.bound:g}"


def at_least(bound: float) -> Target:
    """Returns the target of a ratio that should be large."""
    return Target("≥", bound)


def at_most(bound: float) -> Target:
    """Returns the target of a ratio that should be small."""
    return Target("≤", bound)


@dataclass(frozen=True)
class Ratio:
    """How one figure of a row compares with another: ``over ÷ under``."""

    over: str
    under: str
    value: Spread
    target: Target | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns the ratio as plain types, with its name and whether its target was reached."""
        return {
            "name": f"{self.over} ÷ {self.under}",
            **asdict(self.value),
            "target": self.target and str(self.target),
            "reached": self.target and self.target.reached(self.value.median),
        }


@dataclass(frozen=True)
class Row:
    """One model, or one case.

    Attributes:
        name: What it is.
        values: By who, in the unit of the table.
        ratios: Of these values.
    """

    name: str
    values: Mapping[str, Spread]
    ratios: tuple[Ratio, ...] = ()


@dataclass(frozen=True)
class Table:
    """Rows that are read together.

    Attributes:
        key: Names it for plots.
        title: Of its section.
        about: What was done, in a sentence or two.
        unit: Of the values.
        rows: In order.
    """

    key: str
    title: str
    about: str
    unit: str
    rows: tuple[Row, ...]

    def to_dict(self) -> dict[str, Any]:
        """Returns the table as plain types, ready for JSON."""
        rows = [
            {
                "name": row.name,
                "values": {who: asdict(value) for who, value in row.values.items()},
                "ratios": [ratio.to_dict() for ratio in row.ratios],
            }
            for row in self.rows
        ]
        return {"key": self.key, "title": self.title, "about": self.about, "unit": self.unit, "rows": rows}


Pairs = Iterable[tuple[str, str, Target | None]]


def row_of(name: str, times: Times, pairs: Pairs = (), *, scale: float = 1000.0) -> Row:
    """Returns the row of some times.

    Args:
        name: Of the row.
        times: Of all contenders.
        pairs: Which of them to compare, slow and fast; pairs of which one is missing are left out.
        scale: What seconds are multiplied by: 1000 for milliseconds.
    """
    values = {who: _scaled(times.spread(who), scale) for who in times.rounds}
    found = [pair for pair in pairs if pair[0] in times and pair[1] in times]
    return Row(name, values, tuple(Ratio(*pair[:2], times.ratio(*pair[:2]), pair[2]) for pair in found))


def headlines(tables: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns every ratio that has a target, with the baseline in its name."""
    return [
        {"what": table["title"], "row": row["name"], "ratio": ratio["name"], "value": ratio["median"]}
        | {"target": ratio["target"], "reached": ratio["reached"]}
        for table in tables
        for row in table["rows"]
        for ratio in row["ratios"]
        if ratio["target"]
    ]


def _scaled(spread: Spread, scale: float) -> Spread:
    return Spread(scale * spread.median, scale * spread.low, scale * spread.high)
