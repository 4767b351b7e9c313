"""A week of the operator: the crontab of docs/cron.md, run as cron runs it, over changes, faults and a dead
store. What cron mails, what the log says, and what Prometheus sees."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from servers import free_port, start_lite_server, stop
from terminal import REPOSITORY, write_jsonl

pytestmark = pytest.mark.integration

LINE = re.compile(r"(\S+ \S+ \S+ \S+ \S+)\s+(.+)")
METRIC = re.compile(r'(\w+)\{collection="docs",command="sync"\} (\S+)')


@dataclass
class Night:
    """mail: what the command wrote to its terminal, which it has not. log: the new lines of the log."""

    code: int
    mail: str
    log: list[dict[str, Any]]
    metrics: dict[str, float]

    @property
    def summary(self) -> dict[str, Any]:
        return self.log[-1]

    @property
    def success(self) -> float:
        """When the last successful run ended, as Prometheus sees it."""
        return self.metrics["last_success_timestamp_seconds"]


@dataclass
class Host:
    """A machine with cron, m3index installed, and an account without settings."""

    folder: Path
    uri: str
    model: Path

    def __post_init__(self) -> None:
        program = self.folder / "m3index"
        paths = os.pathsep.join(sys.path)
        program.write_text(f'#!/bin/sh\nPYTHONPATH={paths} exec {sys.executable} -m m3index "$@"\n')
        program.chmod(0o755)
        (self.folder / "home").mkdir()
        documented = (REPOSITORY / "docs" / "cron.md").read_text()
        crontab = re.search(r"```crontab\n(.*?)```", documented, re.DOTALL)
        assert crontab is not None
        *variables, entry = crontab[1].strip().splitlines()
        self.variables = dict(line.split("=", 1) for line in variables)
        scheduled = LINE.fullmatch(entry)
        assert scheduled is not None
        self.command = scheduled[2]
        for here, place in {
            "/opt/m3index/bin/m3index": program,
            "/data/corpus.jsonl": self.corpus,
            "/var/lib/node_exporter/m3index.prom": self.metrics,
            "/var/log/m3index.jsonl": self.log,
        }.items():
            assert here in self.command, here
            self.command = self.command.replace(here, str(place))
        assert "%" not in self.command, "cron takes it for the end of the command"

    @property
    def corpus(self) -> Path:
        return self.folder / "corpus.jsonl"

    @property
    def metrics(self) -> Path:
        return self.folder / "m3index.prom"

    @property
    def log(self) -> Path:
        return self.folder / "m3index.jsonl"

    def night(self) -> Night:
        """Runs the line as cron does: sh, a bare environment, no terminal, no standard input."""
        before = len(self.log.read_text().splitlines()) if self.log.exists() else 0
        home = str(self.folder / "home")
        account = {"HOME": home, "LOGNAME": "m3index", "SHELL": "/bin/sh", "PATH": "/usr/bin:/bin"}
        settings = self.variables | {
            "M3INDEX_URI": self.uri, "M3INDEX_ENCODER": str(self.model), "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        done = subprocess.run(
            ["/bin/sh", "-c", self.command],
            env=account | settings,
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        log = [json.loads(line) for line in self.log.read_text().splitlines()[before:]]
        found = METRIC.findall(self.metrics.read_text())
        metrics = {name.removeprefix("m3index_"): float(value) for name, value in found}
        return Night(done.returncode, done.stdout + done.stderr, log, metrics)


def documents(count: int, **changes: Any) -> list[dict[str, Any]]:
    return [{"id": f"d{i}", "text": f"le renard brun saute {i}", **changes} for i in range(count)]


def test_seven_nights(tmp_path: Path, dense_model: Path) -> None:
    port = free_port()
    server = start_lite_server(tmp_path / "data", port)
    try:
        host = Host(tmp_path, f"http://127.0.0.1:{port}", dense_model)

        write_jsonl(host.corpus, documents(60))
        first = host.night()
        assert (first.code, first.mail) == (0, "")
        assert [line["type"] for line in first.log] == ["summary"]
        assert (first.summary["added"], first.summary["count_ok"]) == (60, True)
        assert first.metrics["store_count"] == 60

        rows = documents(60)
        write_jsonl(
            host.corpus, [{**rows[0], "text": "un autre texte"}, *rows[2:], {"id": "new", "text": "neuf"}]
        )
        second = host.night()
        assert (second.code, second.mail) == (0, "")
        changed = [second.summary[name] for name in ("added", "updated", "deleted", "unchanged")]
        assert changed == [1, 1, 1, 58]
        assert second.success > first.success

        write_jsonl(host.corpus, [{"id": "d0", "text": ""}, *rows[2:], {"id": "new", "text": "neuf"}])
        third = host.night()
        [state] = (tmp_path / "home/.local/state/m3index/quarantine").glob("docs-default-*.jsonl")
        assert third.code == 3
        assert third.mail.splitlines() == [
            f"quarantined {host.corpus}:1: no text: 'text' is empty",
            f"warning: 1 bad row is in {state}. Correct it there and ingest the file.",
        ]
        assert third.summary["quarantine"] == str(state)
        assert json.loads(state.read_text())["id"] == "d0"
        success = third.success
        assert success > second.success

        write_jsonl(host.corpus, [{"id": row["id"], "body": row["text"]} for row in rows])
        fourth = host.night()
        assert fourth.code == fourth.metrics["exit"] == 17
        assert "warning: Nothing that was read can be indexed." in fourth.mail
        assert fourth.success == success, "IndexIsOld will fire"
        assert fourth.metrics["store_count"] == 60

        write_jsonl(host.corpus, rows[2:20])
        fifth = host.night()
        assert fifth.code == 14
        assert fifth.mail == (
            "warning: 42 documents are missing from the corpus but are kept: one run may remove at most 10 "
            "of 60 documents. To remove them, pass --max-delete 42.\n"
        )
        assert fifth.metrics["deletes_withheld"] == 42
        assert fifth.success == success

        stop(server)
        write_jsonl(host.corpus, [*rows[2:], {"id": "new", "text": "neuf"}])
        sixth = host.night()
        assert sixth.code == 20
        assert sixth.mail.startswith(f"error: {host.uri} did not answer")
        assert len(sixth.mail.splitlines()) == 1
        assert [line["type"] for line in sixth.log] == ["error", "summary"]
        assert sixth.summary["collection"] == "docs"
        assert (sixth.metrics["exit"], sixth.success) == (20, success)

        server = start_lite_server(tmp_path / "data", port)
        seventh = host.night()
        assert (seventh.code, seventh.mail) == (0, "")
        assert seventh.summary["store_count"] == 59
        assert seventh.summary["deleted"] == 1
        assert seventh.success > success

        log = [json.loads(line) for line in host.log.read_text().splitlines()]
        assert len({line["run"] for line in log}) == 7
        times = [line["time"] for line in log]
        assert times == sorted(times)
        assert [line["exit"] for line in log if line["type"] == "summary"] == [0, 0, 3, 17, 14, 20, 0]
    finally:
        stop(server)


def test_a_folder_that_is_not_writable_is_enough(tmp_path: Path, dense_model: Path) -> None:
    """As in the systemd unit and the Kubernetes job, whose corpus is mounted read-only."""
    if os.getuid() == 0 and not _can_unshare():
        pytest.skip("needs another user, or mounts of its own")
    data = tmp_path / "data"
    data.mkdir()
    write_jsonl(data / "corpus.jsonl", [*documents(3), {"id": "bad"}])
    model, paths = dense_model, os.pathsep.join(sys.path)
    run = (
        f"cd {data} && {sys.executable} -m m3index sync corpus.jsonl -c docs -e {model} "
        f"--uri {tmp_path}/x.db --json --retry-lock 30m"
    )
    mounts = f"mount --bind {data} {data} && mount -o remount,ro,bind {data}"
    command = ["unshare", "-m", "sh", "-c", f"{mounts} && {run}"]
    if os.getuid() != 0:
        data.chmod(0o555)
        command = ["sh", "-c", run]
    done = subprocess.run(
        command,
        env={"PATH": "/usr/sbin:/usr/bin:/bin", "PYTHONPATH": paths, "XDG_STATE_HOME": str(data / "state")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    assert "Bad rows are not kept; name a file for them with --quarantine." in done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["added"] == 3


def _can_unshare() -> bool:
    try:
        return subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False
