"""docker-compose.yml: pinned, bounded, healthy, and open to this machine alone."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml
from terminal import REPOSITORY

FILE = REPOSITORY / "docker-compose.yml"
COMPOSE: dict[str, Any] = yaml.safe_load(FILE.read_text("utf-8"))
SERVICES = COMPOSE["services"]


def test_milvus_with_etcd_and_an_object_store() -> None:
    assert set(SERVICES) == {"etcd", "minio", "milvus"}
    assert set(SERVICES["milvus"]["depends_on"]) == {"etcd", "minio"}
    assert all(d["condition"] == "service_healthy" for d in SERVICES["milvus"]["depends_on"].values())


@pytest.mark.parametrize("name", SERVICES)
def test_each_service(name: str) -> None:
    service = SERVICES[name]
    tag = service["image"].partition(":")[2]
    assert re.search(r"v?\d", tag), "an image without a version"
    assert "latest" not in tag
    assert service["healthcheck"]["test"]
    assert service["healthcheck"]["retries"]
    assert service["mem_limit"]
    assert service["restart"] == "unless-stopped"
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:"), "open to the network"
    for volume in service["volumes"]:
        assert volume.split(":")[0] in COMPOSE["volumes"]


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
        [*command, "-f", str(FILE), "config", "--quiet"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
