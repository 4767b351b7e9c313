"""m3index: index a multilingual corpus into Milvus with BGE-M3, and keep it right every night."""

from __future__ import annotations

__version__: str
"""Of the installed package, as the tag in git gave it when it was built."""


def __getattr__(name: str) -> str:
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import metadata  # here: it takes longer to import than the rest of the package

    try:
        return metadata.version("m3index")
    except metadata.PackageNotFoundError:  # run from a source tree that nobody installed
        return "0.1.0.dev0"
