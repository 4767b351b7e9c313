"""Folders on local disks and in object stores, behind one interface. A file appears whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import queue
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from m3index.errors import (
    M3IndexError,
    NotAuthorisedError,
    NotFoundError,
    StoppedError,
    UnreachableError,
    UsageError,
)

T = TypeVar("T")

_CHUNK = 8 * 2**20


@dataclass(frozen=True, slots=True)
class Written:
    """A file that was written to its place. digest: BLAKE2b of its bytes, 128 bits in hex."""

    name: str
    bytes: int
    digest: str


class Folder:
    """A local directory, or a prefix in an object store (`s3://bucket/prefix`, `gs://`).

    The store's address and keys come from where its own tools look (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID
    ...); schemes that pyarrow does not support go through fsspec. Nothing is created before the first file
    is written. Raises NotFoundError, NotAuthorisedError, StoppedError (disk full), UnreachableError,
    UsageError.
    """

    def __init__(self, location: str | os.PathLike[str]) -> None:
        self.location = os.fspath(location).rstrip("/") or "/"
        self.local = "://" not in self.location or self.location.startswith("file://")
        self._fs, self._path = file_system(self.location, local=self.local)

    def __str__(self) -> str:
        return self.location

    def __reduce__(self) -> tuple[type[Folder], tuple[str]]:
        return Folder, (self.location,)

    def sub(self, name: str) -> Folder:
        """The folder `name` inside this one."""
        if self.local:
            return Folder(f"{self.location}/{name}")
        location, question, query = self.location.partition("?")
        return Folder(f"{location}/{name}{question}{query}")

    def in_bucket(self, name: str) -> str:
        """The file's path within its bucket. Raises UsageError for a local folder."""
        bucket, _, path = self._at(name).partition("/")
        if self.local or not bucket:
            raise UsageError(f"{self.location} is in no object store, and must be.")
        return path

    def sizes(self) -> dict[str, int]:
        """The files directly in this folder and their sizes in bytes; empty if the folder does not exist."""
        from pyarrow import fs

        with self._mapped():
            infos = self._fs.get_file_info(fs.FileSelector(self._path, allow_not_found=True))
        return {info.base_name: info.size for info in infos if info.type == fs.FileType.File}

    def read(self, name: str) -> bytes | None:
        """The whole file; None if it does not exist."""
        try:
            with self._mapped(), self._fs.open_input_file(self._at(name)) as file:
                return bytes(file.read())
        except NotFoundError:
            return None

    def open(self, name: str) -> Any:
        """The file for random access, a `pyarrow.NativeFile`."""
        with self._mapped():
            return self._fs.open_input_file(self._at(name))

    def map(self, name: str) -> Any:
        """The bytes of a file as a `pyarrow.Buffer`: mapped if the file is local, else in memory."""
        import pyarrow as pa

        with self._mapped():
            if self.local:
                with pa.memory_map(self._at(name)) as file:
                    return file.read_buffer()
            with self._fs.open_input_file(self._at(name)) as file:
                return file.read_buffer()

    def delete(self, name: str) -> None:
        """A missing file is not an error."""
        with suppress(NotFoundError), self._mapped():
            self._fs.delete_file(self._at(name))

    def clear_partials(self, seconds: float) -> None:
        """Deletes half-written files of killed writers from a local folder if they are older than this."""
        if not self.local:
            return
        with self._mapped():
            for partial in Path(self._path).glob(".*.partial"):
                if time.time() - partial.stat().st_mtime > seconds:
                    partial.unlink(missing_ok=True)

    def write(self, name: str, data: bytes) -> Written:
        with self.writing(name) as path:
            path.write_bytes(data)
        return Written(name, len(data), hashlib.blake2b(data, digest_size=16).hexdigest())

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """A local path to write to. The file takes its place when the block ends without an error."""
        with self._mapped():
            if self.local:
                directory = Path(self._path)
                directory.mkdir(parents=True, exist_ok=True)
            else:
                directory = Path(tempfile.gettempdir())
            partial = directory / f".{name}.{uuid.uuid4().hex}.partial"
            try:
                yield partial
                if self.local:
                    _sync(partial)
                    partial.replace(directory / name)
                else:
                    with partial.open("rb") as source, self._fs.open_output_stream(self._at(name)) as target:
                        shutil.copyfileobj(source, target, _CHUNK)
            finally:
                partial.unlink(missing_ok=True)

    def _at(self, name: str) -> str:
        return f"{self._path}/{name}"

    def _mapped(self) -> AbstractContextManager[None]:
        return mapped(self.location, local=self.local)


@contextmanager
def mapped(location: str, *, local: bool) -> Iterator[None]:
    """The only place where foreign exceptions become those of m3index."""
    try:
        yield
    except M3IndexError:
        raise
    except FileNotFoundError as error:
        raise NotFoundError(f"{location}: {_words(error)}") from error
    except PermissionError as error:
        raise NotAuthorisedError(f"{location}: {_words(error)}") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoppedError(f"{location}: the disk is full. Free some space and run again.") from error
        if "ACCESS_DENIED" in str(error) or "InvalidAccessKeyId" in str(error):
            raise NotAuthorisedError(
                f"{location}: the object store refused the credentials: {_words(error)}"
            ) from error
        if local:
            raise UsageError(f"{location}: {_words(error)}") from error
        raise UnreachableError(f"{location}: {_words(error)}") from error


def digest_of(path: Path) -> str:
    """BLAKE2b of a file's bytes, 128 bits in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _words(error: OSError) -> str:
    return error.strerror or str(error)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


PATIENCE = 300.0
"""The seconds in which an object store must give what is asked of it: a listing, or a block of at most 8 MiB.
Its own client waits as long as a byte arrives each second."""


def patiently(place: str, call: Callable[[], T]) -> T:
    """What the call returns, within `PATIENCE`. Raises UnreachableError, and what the call raises."""
    result: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            result.put((call(), None))
        except BaseException as error:
            result.put((None, error))

    threading.Thread(target=run, name="m3index-remote", daemon=True).start()  # it may never end
    try:
        value, error = result.get(timeout=PATIENCE)
    except queue.Empty:
        raise UnreachableError(f"{place} did not answer within {PATIENCE:.0f} s.") from None
    if error is not None:
        raise error
    return cast("T", value)


def file_system(location: str, *, local: bool) -> tuple[Any, str]:
    """A pyarrow file system and the path in it. Raises UsageError for a location that none can open."""
    import pyarrow as pa
    from pyarrow import fs

    if local:
        return fs.LocalFileSystem(), str(Path(location.removeprefix("file://")).expanduser().absolute())
    try:
        system_and_path: tuple[Any, str] = fs.FileSystem.from_uri(location)
        return system_and_path
    except pa.ArrowInvalid as unknown:
        try:
            import fsspec

            handler, path = fsspec.url_to_fs(location)
        except (ImportError, ValueError) as error:
            raise UsageError(f"{location} is no folder that can be opened: {error or unknown}") from None
        return fs.PyFileSystem(fs.FSSpecHandler(handler)), path
    except OSError as error:
        raise UnreachableError(f"{location} cannot be opened: {_words(error)}") from error
