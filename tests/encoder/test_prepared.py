"""The cache of prepared models: whole or not at all, whoever is killed, and made once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from m3index.encoder import prepared
from m3index.encoder.prepared import PreparedModel, cache_folder, prepare, remove
from m3index.errors import StoppedError, UsageError

FORM = PreparedModel("small", "0123456789abcdef")
FILES = 40


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/m3index/models"


def build(target: Path) -> None:
    (target / "sub").mkdir()
    for i in range(FILES):
        (target / "sub" / str(i)).write_text(str(i))


def is_whole(directory: Path) -> bool:
    return sorted(int(path.name) for path in (directory / "sub").iterdir()) == list(range(FILES))


SLOW = """
import logging, sys, time
from pathlib import Path
from m3index.encoder.prepared import PreparedModel, prepare
logging.basicConfig(level=logging.INFO, format="%(message)s")
def build(target):
    (target / "sub").mkdir()
    for i in range(int(sys.argv[1])):
        (target / "sub" / str(i)).write_text(str(i))
        time.sleep(float(sys.argv[2]))
print("ready", flush=True)
prepare(PreparedModel("small", "0123456789abcdef"), build, "Building it.")
"""


def process(seconds: float = 0.005) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", SLOW, str(FILES), str(seconds)]
    started = subprocess.Popen(words, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert started.stdout is not None
    assert started.stdout.readline() == "ready\n"
    return started


def test_it_is_built_once(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "m3index.encoder")
    assert prepare(FORM, build, "Building it.") == cache / "small-0123456789abcdef"
    prepare(FORM, lambda _: pytest.fail("again"), "Building it.")
    assert is_whole(FORM.directory)
    assert caplog.messages == ["Building it."]
    assert prepared.prepared() == [FORM]
    assert FORM.size == sum(len(str(i)) for i in range(FILES))


def test_a_build_that_fails_leaves_nothing(cache: Path) -> None:
    def fails(target: Path) -> None:
        build(target)
        raise ValueError

    with pytest.raises(ValueError):
        prepare(FORM, fails, "")
    assert [path.name for path in cache.iterdir()] == [".small.lock"]
    prepare(FORM, build, "")
    assert is_whole(FORM.directory)


def test_a_process_that_is_killed_leaves_nothing_half_made(cache: Path) -> None:
    for i in range(8):
        killed = process()
        time.sleep(0.03 * i)
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
        assert not FORM.directory.exists() or is_whole(FORM.directory)
        if FORM.directory.exists():
            remove(FORM)
    prepare(FORM, build, "")
    assert is_whole(FORM.directory)
    assert sorted(path.name for path in cache.iterdir()) == [".small.lock", FORM.directory.name]


def test_a_second_process_waits_and_says_so() -> None:
    first = process(0.05)
    while not list(cache_folder().glob(".small.*.partial")):
        time.sleep(0.01)
    second = process(0)
    assert "Building it." in first.communicate()[1]
    assert second.communicate()[1] == "Another process is preparing the model small; waiting for it.\n"
    assert (first.returncode, second.returncode) == (0, 0)
    assert is_whole(FORM.directory)


def test_a_process_that_waits_builds_it_if_the_first_is_killed() -> None:
    first = process(1)
    while not list(cache_folder().glob(".small.*.partial")):
        time.sleep(0.01)
    second = process(0)
    first.kill()
    first.communicate()
    assert second.communicate()[1].endswith("Building it.\n")
    assert is_whole(FORM.directory)


def test_remove(cache: Path) -> None:
    other = PreparedModel("other", "0" * 16)
    prepare(FORM, build, "")
    prepare(other, build, "")
    (cache / f".small.{'a' * 32}.partial/sub").mkdir(parents=True)
    remove(FORM)
    assert prepared.prepared() == [other]
    assert not list(cache.glob("small*"))
    assert not list(cache.glob("*.partial"))
    remove(FORM)


def test_clear_removes_what_killed_processes_left(cache: Path) -> None:
    prepare(FORM, build, "")
    for name in ("small", "other", "small.other"):
        (cache / f".{name}.{'a' * 32}.partial/sub").mkdir(parents=True)
    with prepared._locked("small"):
        prepared._clear_partials("small")
    assert sorted(name for name, _ in prepared._partials()) == ["other", "small.other"]
    prepared.clear()
    assert prepared._partials() == []
    assert is_whole(FORM.directory)


def test_a_removal_that_is_interrupted_leaves_nothing_half_there(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(FORM, build, "")

    def stops(path: Path) -> None:
        assert not FORM.directory.exists()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(prepared.shutil, "rmtree", stops)
        with pytest.raises(KeyboardInterrupt):
            remove(FORM)
    assert prepared.prepared() == []
    prepare(FORM, build, "")
    assert is_whole(FORM.directory)


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(UsageError, match="Set XDG_CACHE_HOME"):
        prepare(FORM, build, "")
    assert prepared.prepared() == []


def test_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def fills(target: Path) -> None:
        build(target)
        raise OSError(28, os.strerror(28))

    with pytest.raises(StoppedError, match="the disk is full"):
        prepare(FORM, fills, "")
    assert not FORM.directory.exists()


@pytest.mark.parametrize("value", ["", "relative"])
def test_without_a_valid_variable_the_cache_is_in_the_home_directory(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", value)
    monkeypatch.setenv("HOME", "/home/me")
    assert cache_folder() == Path("/home/me/.cache/m3index/models")
