"""Checks docker-compose.yml: pinned images, limits, health checks, local ports and the nightly job."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from terminal import REPOSITORY

FILE = REPOSITORY / "docker-compose.yml"
COMPOSE: dict[str, Any] = yaml.safe_load(FILE.read_text("utf-8"))
SERVICES = COMPOSE["services"]


def test_milvus_with_etcd_and_an_object_store() -> None:
    assert {name for name, service in SERVICES.items() if "profiles" not in service} == {
        "etcd",
        "minio",
        "milvus",
    }
    assert set(SERVICES["milvus"]["depends_on"]) == {"etcd", "minio"}
    assert all(d["condition"] == "service_healthy" for d in SERVICES["milvus"]["depends_on"].values())


@pytest.mark.parametrize("name", SERVICES)
def test_each_service(name: str) -> None:
    service = SERVICES[name]
    tag = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", service["image"]).partition(":")[2]
    assert re.search(r"v?\d", tag), "an image without a version"
    assert "latest" not in tag
    assert service["healthcheck"]["test"]
    assert service["healthcheck"]["retries"]
    assert service["mem_limit"]
    assert service["restart"] == "unless-stopped"
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:"), "open to the network"
    for volume in service["volumes"]:
        source = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", volume).split(":")[0]
        assert source in COMPOSE["volumes"] or volume.endswith(":ro")


def test_the_version_of_milvus_is_one_that_is_supported() -> None:
    default = re.fullmatch(
        r"milvusdb/milvus:\$\{MILVUS_VERSION:-v(\d+)\.(\d+)\.\d+\}", SERVICES["milvus"]["image"]
    )
    assert default is not None
    assert (int(default[1]), int(default[2])) in {(2, 6), (3, 0)}


def test_the_readme_uses_it() -> None:
    readme = (REPOSITORY / "README.md").read_text("utf-8")
    assert "docker compose up --detach --wait" in readme
    assert "http://127.0.0.1:19530" in readme


def test_the_nightly_job_is_in_a_profile_and_unprivileged() -> None:
    nightly = SERVICES["nightly"]
    assert nightly["profiles"] == ["cron"]
    assert nightly["user"] not in ("0", "root")
    assert nightly["cap_drop"] == ["ALL"]
    assert nightly["security_opt"] == ["no-new-privileges:true"]
    assert nightly["depends_on"] == {"milvus": {"condition": "service_healthy"}}
    dockerfile = (REPOSITORY / "Dockerfile").read_text("utf-8")
    assert f"/usr/local/bin/{nightly['entrypoint'][0]}" in dockerfile
    assert f"\nUSER {nightly['user']}\n" in dockerfile


def gnu_date() -> bool:
    return subprocess.run(["date", "-d", "tomorrow 03:15"], capture_output=True, check=False).returncode == 0


@pytest.fixture
def nightly(tmp_path: Path) -> list[str]:
    """deploy/nightly.sh with a separate directory instead of /tmp and an m3index that records its calls."""
    if not gnu_date():
        pytest.skip("needs GNU date")
    script = (REPOSITORY / "deploy" / "nightly.sh").read_text("utf-8")
    assert script.count("/tmp/") == 2
    (tmp_path / "nightly.sh").write_text(script.replace("/tmp/", f"{tmp_path}/"), "utf-8")
    program = tmp_path / "m3index"
    program.write_text(
        "#!/bin/sh\n"
        "trap 'echo terminated >> \"$LOG\"; exit 143' TERM\n"
        'echo "$*" >> "$LOG"\n'
        '[ -z "$LONG" ] || while :; do sleep 0.05; done\n'
        'exit "$CODE"\n',
        "utf-8",
    )
    program.chmod(0o755)
    return ["sh", str(tmp_path / "nightly.sh"), "/corpus/a b.jsonl", "--json"]


def begin(command: list[str], folder: Path, **variables: str) -> subprocess.Popen[str]:
    log = folder / "log"
    log.unlink(missing_ok=True)
    environment = {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "LOG": str(log),
        "CODE": "0",
        "LONG": "",
        "TZ": "UTC",
    }
    process = subprocess.Popen(
        command, env=environment | variables, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 20
    while not log.exists() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 143


@pytest.mark.parametrize(("code", "failed"), [("0", False), ("3", False), ("14", True)])
def test_the_nightly_job_runs_immediately_and_reports_the_outcome(
    nightly: list[str], tmp_path: Path, code: str, failed: bool
) -> None:
    process = begin(nightly, tmp_path, CODE=code, NIGHTLY_AT="04:30")
    assert process.stderr is not None
    line = process.stderr.readline()
    assert re.fullmatch(
        rf"m3index sync ended with {code}; the next run is at [0-9-]{{10}} 04:30 UTC\n", line
    ), line
    assert (tmp_path / "nightly.failed").exists() == failed
    assert (tmp_path / "log").read_text("utf-8") == "sync /corpus/a b.jsonl --json\n"
    end(process)


def test_the_nightly_job_passes_a_signal_on_to_the_run(nightly: list[str], tmp_path: Path) -> None:
    process = begin(nightly, tmp_path, LONG="yes")
    end(process)
    assert (tmp_path / "log").read_text("utf-8").endswith("terminated\n")


def test_the_nightly_job_refuses_an_invalid_time(nightly: list[str], tmp_path: Path) -> None:
    process = begin(nightly, tmp_path, NIGHTLY_AT="teatime")
    process.communicate(timeout=20)
    assert process.returncode == 2
    assert not (tmp_path / "log").exists()


def compose_command() -> list[str] | None:
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]):
            known = subprocess.run([*command, "version"], capture_output=True, check=False)
            if known.returncode == 0:
                return command
    return None


def test_docker_compose_reads_it() -> None:
    command = compose_command()
    if command is None:
        pytest.skip("docker compose is not installed")
    done = subprocess.run(
        [*command, "-f", str(FILE), "--profile", "cron", "config", "--quiet"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
