"""Folders, local and in an object store: whole files or none, errors as ours."""

from __future__ import annotations

import errno
import os
import pickle
import time
from pathlib import Path

import pytest

from m3index.errors import NotAuthorisedError, NotFoundError, StoppedError, UnreachableError, UsageError
from m3index.files import Folder, digest_of


@pytest.fixture(params=["local", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    if request.param == "local":
        return Folder(tmp_path / "a folder with ü?" / "deeper")
    return Folder(f"{request.getfixturevalue('s3')}/files-{os.getpid()}-{time.monotonic_ns()}")


def test_what_is_written_is_read(folder: Folder) -> None:
    assert folder.sizes() == {}
    assert folder.read("none") is None
    written = folder.write("one.bin", b"12345")
    assert (written.bytes, folder.sizes(), folder.read("one.bin")) == (5, {"one.bin": 5}, b"12345")
    folder.sub("below").write("two", b"")
    assert (folder.sizes(), folder.sub("below").sizes()) == ({"one.bin": 5}, {"two": 0})
    folder.write("one.bin", b"new")
    with folder.open("one.bin") as file:
        assert file.read() == b"new"
    assert folder.map("one.bin").to_pybytes() == b"new"
    folder.delete("one.bin")
    folder.delete("one.bin")
    assert folder.sizes() == {}
    with pytest.raises(NotFoundError):
        folder.open("one.bin")


def test_an_error_leaves_what_was_there(folder: Folder) -> None:
    folder.write("one", b"old")
    with pytest.raises(ZeroDivisionError), folder.writing("one") as path:  # noqa: PT012
        path.write_bytes(b"half")
        raise ZeroDivisionError
    assert (folder.read("one"), folder.sizes()) == (b"old", {"one": 3})


def test_the_digest_is_of_the_bytes(folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "same").write_bytes(b"12345")
    assert folder.write("one", b"12345").digest == digest_of(tmp_path / "same")


def test_folders_travel_to_other_processes(folder: Folder) -> None:
    folder.write("one", b"1")
    assert pickle.loads(pickle.dumps(folder)).read("one") == b"1"


def test_what_a_killed_writer_left_goes_when_it_is_old(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    old, young = tmp_path / ".a.0.partial", tmp_path / ".b.0.partial"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    folder.clear_partials(3600)
    assert sorted(tmp_path.iterdir()) == [young]


def test_foreign_errors_become_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError):
        Folder(tmp_path / "file" / "below").write("x", b"")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(StoppedError, match="disk is full"):
            Folder(tmp_path).write("x", b"1")
    with pytest.raises(UsageError, match="no folder that can be opened"):
        Folder("nonsense://somewhere")


def test_an_object_store_that_refuses_or_is_away(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotFoundError):
        Folder(f"{s3}-is-no-bucket/x").open("one")
    folder = Folder(f"{s3}/x")
    for said, error in (
        ("AWS Error NETWORK_CONNECTION during PutObject", UnreachableError),
        ("AWS Error ACCESS_DENIED during PutObject", NotAuthorisedError),
    ):

        class Failing:
            def open_output_stream(self, _: str, said: str = said) -> None:
                raise OSError(said)

        monkeypatch.setattr(folder, "_fs", Failing())
        with pytest.raises(error):
            folder.write("one", b"1")


def test_a_folder_of_fsspec(tmp_path: Path) -> None:
    folder = Folder(f"memory://m3index-{os.getpid()}")
    folder.write("one", b"12")
    assert (folder.read("one"), folder.sizes()) == (b"12", {"one": 2})
