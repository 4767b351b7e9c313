"""Commands that need an extra of m3index say so in one sentence."""

from __future__ import annotations

import sys
from importlib.util import find_spec

from m3index.errors import UsageError


def need(*modules: str, extra: str) -> None:
    """Raises UsageError that names the remedy, where a library of the extra is not installed."""
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        remedy = f"{sys.executable} -m pip install 'm3index[{extra}]'"
        raise UsageError(f"This command needs {', '.join(missing)}. Install the extra: {remedy}")
