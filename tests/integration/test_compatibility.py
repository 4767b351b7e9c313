"""docs/compatibility.md lists each skip with its reason, and CI runs each server in the table."""

from __future__ import annotations

import re

import yaml
from integration.engines import LACKS
from terminal import REPOSITORY

PAGE = (REPOSITORY / "docs" / "compatibility.md").read_text("utf-8")


def test_every_skip_is_listed_and_nothing_else() -> None:
    listed = PAGE.split("## What the suite skips")[1]
    rows = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \|$", listed, re.MULTILINE)[1:]
    assert set(rows) == {
        (engine, feature, reason) for engine, lacks in LACKS.items() for feature, reason in lacks.items()
    }


def test_ci_runs_the_servers_of_the_table() -> None:
    workflow = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "ci.yml").read_text("utf-8"))
    versions = workflow["jobs"]["milvus"]["strategy"]["matrix"]["milvus"]
    assert versions == re.findall(r"^\| Milvus [\d.]+ \((v[\d.]+)\) standalone", PAGE, re.MULTILINE)
