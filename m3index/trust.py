"""Which configuration files the user trusts.

An m3index.toml in the working directory may come from anyone: with a repository, an archive, a shared
folder. Until the user trusts it, it cannot say where a run connects, what it reads, writes or loads. Trust
is kept by path and content in the user's state directory, so it ends when the file changes.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from m3index import folders
from m3index.output import unwritable, write_output


def is_trusted(path: Path, content: bytes) -> bool:
    return _record(path, content).is_file()


def remember(path: Path, content: bytes) -> None:
    """Trusts the file as long as its path and content stay the same. Raises UsageError if that cannot be
    written down."""
    record = _record(path, content)
    try:
        record.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(record.parent, error) from None
    write_output(record, f"{os.path.realpath(path)}\n")


def _record(path: Path, content: bytes) -> Path:
    place = os.fsencode(os.path.realpath(path))
    return folders.state() / "trusted" / hashlib.sha256(place + b"\0" + content).hexdigest()
