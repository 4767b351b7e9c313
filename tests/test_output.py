"""Files that a run leaves: regular ones appear whole, all others are written to and stay what they are."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from m3index.corpus.quarantine import Quarantine
from m3index.errors import StoppedError, UsageError
from m3index.output import OutputFile, output, write_output
from m3index.types import Place, Rejected


def bad(line: int = 1) -> Rejected:
    return Rejected(Place("c.jsonl", line), "reason", f"raw {line}")


def half_written(path: Path) -> None:
    with output(path) as writable:
        writable.write_text("half")
        raise RuntimeError


def test_a_regular_file_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with output(path) as writable:
        writable.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    with pytest.raises(RuntimeError):
        half_written(path)
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["file"]


def test_two_writers_do_not_meet(tmp_path: Path) -> None:
    one, two = OutputFile(tmp_path / "file"), OutputFile(tmp_path / "file")
    assert one.writable != two.writable


@pytest.mark.parametrize("dangling", [False, True])
def test_a_symbolic_link_stays_and_its_target_is_written(tmp_path: Path, dangling: bool) -> None:
    (tmp_path / "real").mkdir()
    target, link = tmp_path / "real" / "file", tmp_path / "link"
    if not dangling:
        target.write_text("old")
    link.symlink_to(target)
    write_output(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert os.listdir(tmp_path / "real") == ["file"]


def test_a_device_stays_a_device(tmp_path: Path) -> None:
    """A node made here: no test touches the real /dev/null."""
    node = tmp_path / "null"
    try:
        os.mknod(node, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        node.write_text("tried")
    except PermissionError:
        pytest.skip("device nodes cannot be made here")
    write_output(node, "text")
    with Quarantine(node) as quarantine:
        quarantine.add(bad())
    assert stat.S_ISCHR(node.stat().st_mode)
    assert os.listdir(tmp_path) == ["null"]


def test_a_fifo_is_written_to(tmp_path: Path) -> None:
    fifo, received = tmp_path / "fifo", []
    os.mkfifo(fifo)
    with pytest.raises(UsageError, match="fifo cannot be written: nothing reads from it"):
        write_output(fifo, "text")
    descriptor = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    reader = threading.Thread(target=lambda: received.append(Path(fifo).read_text()))
    reader.start()
    write_output(fifo, "text")
    os.close(descriptor)
    reader.join(10)
    assert stat.S_ISFIFO(fifo.stat().st_mode)


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoppedError, match="/dev/full cannot be written: No space left"):
        write_output("/dev/full", "text")
    with pytest.raises(StoppedError, match="No space left"), Quarantine("/dev/full") as quarantine:
        quarantine.add(bad())


def test_the_end_of_a_run_on_a_full_disk_does_not_hide_what_ended_it() -> None:
    def run() -> None:
        with Quarantine("/dev/full") as quarantine:
            with pytest.raises(StoppedError):
                quarantine.add(bad())
            raise RuntimeError("the cause")

    with pytest.raises(RuntimeError, match="the cause"):
        run()


def test_what_cannot_be_written(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "no" / "such" / "file"):
        with pytest.raises(UsageError, match="cannot be written"):
            write_output(path, "text")


def test_two_runs_keep_their_bad_rows(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text("of an earlier run\n")
    with Quarantine(path) as first:
        first.add(bad(1))
        with Quarantine(path) as second:
            second.add(bad(2))
    lines = path.read_text().splitlines()
    assert ['"line": 2' in lines[0], '"line": 1' in lines[1], len(lines)] == [True, True, 2]
    assert os.listdir(tmp_path) == ["q.jsonl"]
