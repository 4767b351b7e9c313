"""Files that are archives of others: Office, OpenDocument, EPUB. Checked before a library opens them."""

from __future__ import annotations

import io
import zipfile
from zipfile import BadZipFile, ZipFile

from m3index.documents.kinds import MAX_FILE, MAX_PARTS, BadFileError

OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
"""The beginning of files of Office before 2007, and of those with a password since."""


def checked(data: bytes, what: str) -> ZipFile:
    """The archive, which does not unpack to more than memory holds. Raises BadFileError."""
    if data.startswith(OLE):
        raise BadFileError("it has a password, or the format of Office before 2007; save it anew without")
    if not data.startswith(b"PK"):
        raise BadFileError(f"it is not {what} (it begins with {data[:4]!r})")
    try:
        archive = ZipFile(io.BytesIO(data))
        parts = archive.infolist()
    except (BadZipFile, OSError, ValueError, NotImplementedError, UnicodeDecodeError) as error:
        raise BadFileError(f"it is damaged: {error}") from None
    if len(parts) > MAX_PARTS:
        raise BadFileError(f"it has {len(parts):,} parts, more than {MAX_PARTS:,}")
    if (size := sum(part.file_size for part in parts)) > MAX_FILE:
        raise BadFileError(f"it unpacks to {size:,} bytes, more than {MAX_FILE:,}")
    if any(part.flag_bits & 1 for part in parts):
        raise BadFileError("it is encrypted; save it without a password")
    return archive


def part_of(archive: ZipFile, name: str) -> bytes:
    """One file of the archive. Raises BadFileError."""
    try:
        return archive.read(name)
    except (
        KeyError,
        BadZipFile,
        zipfile.LargeZipFile,
        EOFError,
        OSError,
        ValueError,
        NotImplementedError,
    ) as error:
        raise BadFileError(f"its part {name} cannot be read: {error}") from None
