"""Every message that the package raises, warns of or logs as a warning, read from its syntax trees."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

SOURCE = Path(__file__).parents[1] / "src"
GAP = "\0"
_SAYS = re.compile(r"(Error|BadParameter)$|^(warn|warning)( of |$)")
_BROKEN = {"invalid of header", "invalid of self", "_damaged", "_FlawError"}
"""Which byte, field or node of a file is broken: the page has how these messages begin, which is the same for all."""
_FEWEST_LETTERS = 12


class Message(NamedTuple):
    """One message in the source.

    Attributes:
        place: File and line.
        text: It, with `GAP` for what is filled in.
    """

    place: str
    text: str

    @property
    def stems(self) -> list[str]:
        """The runs of words of the first sentence that says anything, which are the same whatever is filled in."""
        for sentence in re.split(r"(?<=[.?]) ", plain(self.text)):
            pieces = [piece.strip(" .,:;()") for piece in sentence.split(GAP)]
            if stems := [piece for piece in pieces if len(piece) >= _FEWEST_LETTERS]:
                return stems
        return []


def plain(text: str) -> str:
    """Returns a text without marks of code and line ends."""
    return " ".join(text.replace("`", "").split())


def all_messages() -> Iterator[Message]:
    """Yields every message of the package that says something in words of its own."""
    for path in sorted(SOURCE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        makers = {_name(node.exc) for node in ast.walk(tree) if isinstance(node, ast.Raise)} - {""}
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.Module)]
        for nodes in (list(_own(function)) for function in functions):
            for call in (node for node in nodes if isinstance(node, ast.Call)):
                name = _name(call)
                if name and name not in _BROKEN and (name in makers or _SAYS.search(name)):
                    found = (Message(f"{path.relative_to(SOURCE)}:{call.lineno}", text) for text in _texts(call, nodes))
                    yield from (message for message in found if message.stems)


def _name(node: ast.AST | None) -> str:
    """What is called: ``SomeError``, or ``invalid of header`` for a method."""
    function = node.func if isinstance(node, ast.Call) else None
    if isinstance(function, ast.Attribute):
        return f"{function.attr} of {function.value.id}" if isinstance(function.value, ast.Name) else function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _own(scope: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a function or a module that are in no function within it."""
    for child in ast.iter_child_nodes(scope):
        if not isinstance(child, ast.FunctionDef):
            yield child
            yield from _own(child)


def _texts(call: ast.Call, nodes: list[ast.AST]) -> Iterator[str]:
    """The texts among the arguments of a call, also of names that the same function gives them."""
    values: dict[str, list[Any]] = {}
    for node in nodes:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            values.setdefault(node.targets[0].id, []).append(node.value)
    causes = [keyword.value for keyword in call.keywords if keyword.arg == "cause"]  # all others are facts
    for argument in (*call.args, *causes):
        for value in values.get(argument.id, []) if isinstance(argument, ast.Name) else [argument]:
            yield from _alternatives(value)


def _alternatives(value: ast.AST) -> Iterator[str]:
    if isinstance(value, ast.IfExp):
        yield from (*_alternatives(value.body), *_alternatives(value.orelse))
    elif isinstance(value, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else GAP for part in value.values)
    elif isinstance(value, ast.Constant) and isinstance(value.value, str):
        yield re.sub(r"%[.\d]*[a-z]", GAP, value.value)
