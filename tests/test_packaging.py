"""Dependencies are pinned with hashes and listed with licences, and the version is that of the package."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from terminal import REPOSITORY

import m3index

LOCKS = sorted((REPOSITORY / "requirements").glob("*.txt"))
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
ACTION = re.compile(r"uses: [\w.-]+/[\w./-]+@(\S+)(?: +# (\S+))?$", re.MULTILINE)


def pins(path: Path) -> dict[str, set[str]]:
    """The versions of each package; there are two if they depend on the Python version."""
    found: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)==([^ ;\\\s]+)", path.read_text("utf-8"), re.MULTILINE):
        found.setdefault(canonicalize_name(name), set()).add(version)
    return found


CONSTRAINTS = pins(REPOSITORY / "constraints.txt")


def test_the_locks_exist() -> None:
    assert {path.name for path in LOCKS} == {"dev.txt", "docs.txt", "fuzz.txt", "image.txt", "tools.txt"}
    assert all(len(versions) == 1 for versions in CONSTRAINTS.values())


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_a_lock_has_a_hash_for_every_package_and_the_versions_of_the_constraints(lock: Path) -> None:
    entries = [entry for entry in re.split(r"\n(?=\S)", lock.read_text("utf-8")) if not entry.startswith("#")]
    assert entries
    for entry in entries:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry.splitlines()[0]
    for name, versions in pins(lock).items():
        assert versions == CONSTRAINTS.get(name, versions), f"{name}: make lock"
    assert "torch" not in pins(lock), "there are many builds of it: see requirements/README.md"
    assert not any(name.startswith("nvidia") for name in pins(lock)), "requirements/uv.toml: torch's version?"


@pytest.mark.parametrize(("lock", "extras"), [("dev.txt", ("dev",)), ("image.txt", ("offline", "serve"))])
def test_a_lock_has_the_requirements_of_the_project(lock: str, extras: tuple[str, ...]) -> None:
    locked = pins(REPOSITORY / "requirements" / lock)
    asked = [Requirement(text) for text in PROJECT["dependencies"]]
    asked += [Requirement(text) for extra in extras for text in PROJECT["optional-dependencies"][extra]]
    for need in asked:
        name = canonicalize_name(need.name)
        if name in ("torch", "m3index"):
            continue
        assert name in locked, f"{name}: make lock"
        assert all(need.specifier.contains(version) for version in locked[name]), f"{name}: make lock"


def test_torch_is_locked_as_it_is_pinned() -> None:
    told = tomllib.loads((REPOSITORY / "requirements" / "uv.toml").read_text("utf-8"))["dependency-metadata"]
    assert [(entry["name"], {entry["version"]}) for entry in told] == [("torch", CONSTRAINTS["torch"])]


def test_licences_match_the_pinned_versions() -> None:
    page = (REPOSITORY / "docs" / "licences.md").read_text("utf-8")
    rows = re.findall(r"^\| ([\w.-]+) \| ([\w.]+) \| ([^|]+) \|", page, re.MULTILINE)
    listed = {name: version for name, version, _ in rows if name != "package"}
    assert {canonicalize_name(Requirement(text).name) for text in PROJECT["dependencies"]} <= set(listed)
    for name, version in listed.items():
        assert {version} == CONSTRAINTS[name], f"{name}: make licences"
    unknown = [name for name, _, licence in rows if licence.strip().upper() in ("UNKNOWN", "", "LICENSE")]
    assert not unknown


def test_the_version_is_that_of_the_installed_package() -> None:
    assert m3index.__version__ == metadata.version("m3index")
    with pytest.raises(AttributeError, match="no attribute 'other'"):
        m3index.other  # noqa: B018


def test_an_uninstalled_source_tree_has_a_version(tmp_path: Path) -> None:
    (tmp_path / "m3index").symlink_to(REPOSITORY / "m3index")
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import m3index; print(m3index.__version__)"
    command = [sys.executable, "-I", "-S", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    pyproject = (REPOSITORY / "pyproject.toml").read_text("utf-8")
    assert f'fallback-version = "{done.stdout.strip()}"' in pyproject


def test_actions_are_pinned_by_commit() -> None:
    workflows = sorted((REPOSITORY / ".github" / "workflows").glob("*.yml"))
    assert workflows
    for path in workflows:
        text = path.read_text("utf-8")
        used = ACTION.findall(text)
        assert len(used) == text.count("uses:")
        for commit, version in used:
            assert re.fullmatch(r"[0-9a-f]{40}", commit)
            assert re.fullmatch(r"v\d+\.\d+\.\d+", version), "say which version it is"
        for job in yaml.safe_load(text)["jobs"].values():
            assert job["timeout-minutes"] <= 120
