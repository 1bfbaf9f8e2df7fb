"""For the pages of the API: the package's public names, which it looks up lazily, as names that griffe can read."""

from __future__ import annotations

import ast
from typing import Any

import griffe


class PublicNames(griffe.Extension):
    """Gives the package an alias for each entry of its table of names."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """Reads the table, once the package is loaded."""
        table = ast.literal_eval(str(pkg.members["_HOMES"].value))
        for name, home in table.items():
            pkg.set_member(name, griffe.Alias(name, f"{pkg.path}.{home.replace(':', '.')}"))
