"""Tables of ``results.json`` between two marks of pages in ``docs``; what is around them is written by hand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .results import headlines
from .workers import ROOT

PAGE = ROOT / "docs" / "performance.md"
PAGES = {"scaling": "scaling.md"}
"""Parts with a page of their own, beside that of all others."""
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
_REACHED = {True: "yes", False: "**no**", None: ""}

Results = Mapping[str, Any]


def write_pages(results: Results, page: Path = PAGE) -> None:
    """Puts the tables of `results` into a page, and into those beside it, in place of those that are there."""
    for place in (page, *(page.with_name(name) for part, name in PAGES.items() if part in results["parts"])):
        text = place.read_text(encoding="utf-8")
        place.write_text(with_results(text, results, place.name), encoding="utf-8")


def with_results(text: str, results: Results, name: str = PAGE.name) -> str:
    """Returns a page with those tables of `results` that belong there between its marks.

    Args:
        text: The page.
        results: As in ``results.json``.
        name: Of its file.

    Raises:
        ValueError: The marks are not there.
    """
    before, _, rest = text.partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise ValueError(f"The page needs {BEGIN} and {END}.")
    parts = {part: each for part, each in results["parts"].items() if PAGES.get(part, PAGE.name) == name}
    return f"{before}{BEGIN}\n{markdown({**results, 'parts': parts})}\n{END}{after}"


def markdown(results: Results) -> str:
    """Returns all tables, the headlines, and what was not measured."""
    return "\n".join(_lines(results))


def _lines(results: Results) -> Iterator[str]:
    parts = results["parts"].values()
    yield ", ".join(f"{name} {value}" for name, value in results["machine"].items()) + "."
    tables = [table for part in parts for table in part["tables"]]
    if lines := headlines(tables):
        yield "\n### Every target\n"
        yield from _grid(("what", "model or case", "ratio", "measured", "target", "reached"), map(_line_of, lines))
    for table in tables:
        if table["rows"]:
            yield from _section(table)
            yield from (f"\n![{each['alt']}](plots/{each['file']})" for each in _plots_of(results, table["key"]))
    if missing := [each for part in parts for each in part["missing"]]:
        yield "\n### Not measured\n"
        yield from _grid(("what", "why"), ((each["what"], _plain(each["why"])) for each in missing))


def _line_of(headline: Mapping[str, Any]) -> tuple[str, ...]:
    what, row, ratio, target = (headline[name] for name in ("what", "row", "ratio", "target"))
    return what, row, ratio, f"{headline['value']:.2f}", target, _REACHED[headline["reached"]]


def _section(table: Mapping[str, Any]) -> Iterator[str]:
    yield f"\n### {table['title']}\n"
    yield f"{table['about']}\n"
    people = list(dict.fromkeys(who for row in table["rows"] for who in row["values"]))
    yield from _grid(
        ("", *(f"{who}, {table['unit']}" for who in people)),
        ((row["name"], *(_figure(row["values"].get(who)) for who in people)) for row in table["rows"]),
    )
    if any(row["ratios"] for row in table["rows"]):
        yield ""
        yield from _grid(
            ("", "ratio", "measured", "p10 to p90", "target", "reached"),
            ((row["name"], *_cells(each)) for row in table["rows"] for each in row["ratios"]),
        )


def _cells(ratio: Mapping[str, Any]) -> tuple[str, ...]:
    measured, spread = f"**{ratio['median']:.2f}**", f"{ratio['low']:.2f} to {ratio['high']:.2f}"
    return ratio["name"], measured, spread, ratio["target"] or "", _REACHED[ratio["reached"]]


def _plots_of(results: Results, key: str) -> Iterator[Mapping[str, str]]:
    return (each for each in results["plots"] if each["table"] == key)


def _grid(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield "| " + " | ".join(heads) + " |"
    yield "|---" * len(heads) + "|"
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def _figure(value: Mapping[str, float] | None) -> str:
    if value is None:
        return ""
    median = value["median"]
    return f"{median:.0f}" if median >= 100 else f"{median:.3g}"


def _plain(text: str) -> str:
    """A message, without what would end the cell or show where on a disk something was."""
    return text.replace("|", "/").replace(str(ROOT), ".")[:300]
