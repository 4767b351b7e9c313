"""The manifests of deploy/ and the guide: YAML that is well formed, commands and options that exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer.main
import yaml

from m3index.cli import app

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "scale.md"
FILES = [*sorted((ROOT / "deploy").iterdir()), GUIDE]
COMMAND = re.compile(r"m3index (?:shards|models|encode|load|export|ingest|bench) [^#`\n|]*")


def commands(path: Path) -> list[list[str]]:
    text = path.read_text("utf-8").replace("\\\n", " ")
    if path.suffix == ".yaml":
        text = re.sub(r"\n +(?=--)", " ", text)
    return [shlex.split(re.split(r"  +", found)[0]) for found in COMMAND.findall(text)]


@pytest.mark.parametrize("path", [p for p in FILES if p.suffix == ".yaml"], ids=lambda p: p.name)
def test_manifests_are_yaml(path: Path) -> None:
    for one in yaml.safe_load_all(path.read_text("utf-8")):
        assert isinstance(one, dict)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_commands_and_options_exist(path: Path) -> None:
    found = commands(path)
    if path.suffix in (".slurm",) or path.name in ("rayjob.yaml", "encode-job.yaml", "scale.md"):
        assert found
    for _, *words in found:
        command = typer.main.get_command(app)
        while hasattr(command, "commands"):  # the app, and its groups
            command = command.commands[words.pop(0)]
        options = {flag for parameter in command.params for flag in parameter.opts}
        for word in words:
            if word.startswith("-"):
                assert word in options, f"{path.name}: m3index {command.name} has no {word}"
