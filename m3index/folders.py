"""The user's own folders, as the XDG base directory specification places them. Nothing is created here."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

_NAME = "m3index"


def configuration() -> Path:
    """For m3index.toml: `$XDG_CONFIG_HOME/m3index`, or `~/.config/m3index`."""
    return _of_user("XDG_CONFIG_HOME", ".config")


def state() -> Path:
    """For what runs leave that nobody has named a place for: `$XDG_STATE_HOME/m3index`, or
    `~/.local/state/m3index`."""
    return _of_user("XDG_STATE_HOME", ".local/state")


def cache() -> Path:
    """For what can be made again: `$XDG_CACHE_HOME/m3index`, or `~/.cache/m3index`."""
    return _of_user("XDG_CACHE_HOME", ".cache")


def runtime() -> Path:
    """For locks: `m3index-UID` in `$XDG_RUNTIME_DIR`, or in the temporary directory."""
    given = os.environ.get("XDG_RUNTIME_DIR", "")
    base = Path(given) if os.path.isabs(given) and Path(given).is_dir() else Path(tempfile.gettempdir())
    return base / f"{_NAME}-{os.getuid()}"


def _of_user(variable: str, below_home: str) -> Path:
    """The specification ignores a value that is not absolute."""
    given = os.environ.get(variable, "")
    if os.path.isabs(given):
        return Path(given) / _NAME
    home = os.path.expanduser("~")  # stays "~" for a user without a home directory
    return Path(home if os.path.isabs(home) else "/") / below_home / _NAME
