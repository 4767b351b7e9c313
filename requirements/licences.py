"""docs/licences.md: what m3index installs, and under which licences.

pip-licenses' JSON comes on standard input. Run by the project's own environment (`make licences`), whose
packages are the pinned ones.
"""

from __future__ import annotations

import json
import sys
from importlib import metadata
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HEAD = """# Licences

m3index is under the [Apache License 2.0](https://www.apache.org/licenses/LICENSE-2.0). It installs the
packages below, at these versions where `constraints.txt` is used. Written by `make licences` from what each
package says of itself (pip-licenses). The CUDA builds of torch bring NVIDIA's libraries, under NVIDIA's own
terms. Models have licences of their own: BGE-M3 is under MIT.

## Always

{always}

## With an extra

| package | version | licence | extras |
|---|---|---|---|
{extras}
"""
EXTRAS = ("offline", "eval", "serve", "mcp", "bulk", "documents")
"""Those of the environment that `make setup` makes. The others have their libraries' own trees."""


def closure(name: str, extras: frozenset[str] = frozenset()) -> set[str]:
    """The packages that a package needs, itself left out, as they are installed."""
    found: set[tuple[str, frozenset[str]]] = set()
    queue = [(name, extras)]
    while queue:
        package, wanted = queue.pop()
        for text in metadata.requires(package) or ():
            need = Requirement(text)
            if need.marker and not any(need.marker.evaluate({"extra": extra}) for extra in wanted or {""}):
                continue
            step = (canonicalize_name(need.name), frozenset(need.extras))
            if step not in found:
                found.add(step)
                queue.append(step)
    return {package for package, _ in found} - {canonicalize_name(name)}


def main() -> None:
    said: dict[str, Any] = {canonicalize_name(p["Name"]): p for p in json.load(sys.stdin)}

    def row(package: str) -> str:
        version = said[package]["Version"].partition("+")[0]
        return f"| {package} | {version} | {said[package]['License'].splitlines()[0].strip()} |"

    always = closure("m3index")
    needed: dict[str, list[str]] = {}
    for extra in EXTRAS:
        for package in closure("m3index", frozenset({extra})) - always:
            needed.setdefault(package, []).append(extra)
    head = "| package | version | licence |\n|---|---|---|\n"
    extras = "\n".join(f"{row(package)} {', '.join(names)} |" for package, names in sorted(needed.items()))
    print(HEAD.format(always=head + "\n".join(map(row, sorted(always))), extras=extras), end="")


if __name__ == "__main__":
    main()
