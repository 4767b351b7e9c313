"""Known weaknesses of what is pinned, by pip-audit: ends with 1 on a finding.

Where no advisory service answers, it prints one line and ends with 0, so that `make lint` goes on without a
network; with AUDIT=required in the environment that is a failure too. The files name every package with its
version, so that pip-audit installs nothing.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import urllib.request
from itertools import zip_longest
from pathlib import Path
from typing import Any

SERVICE = "https://pypi.org/pypi/{}/{}/json"
"""Where pip-audit asks by default. Mirrors of PyPI often have the files only."""


class NoAnswerError(Exception):
    """Of the advisory service."""


def main(files: list[str]) -> int:
    versions: dict[str, list[str]] = {}
    for file in files:
        for name, version in re.findall(
            r"^([\w.-]+)==([^ ;\\\s]+)", Path(file).read_text("utf-8"), re.MULTILINE
        ):
            known = versions.setdefault(re.sub(r"[-_.]+", "-", name).lower(), [])
            if version not in known:
                known.append(version)
    try:
        ask(*next((name, known[0]) for name, known in versions.items()))
        # pip-audit takes a name once; a lock has two versions where they depend on the Python
        rounds = zip_longest(*([(name, version) for version in known] for name, known in versions.items()))
        packages = [package for pins in rounds for package in audited([pin for pin in pins if pin])]
    except NoAnswerError as error:
        required = os.environ.get("AUDIT") == "required"
        print(f"pip-audit: {'failed' if required else 'skipped'}: no advisory service answers: {error}")
        return 1 if required else 0
    found = [(package, weakness) for package in packages for weakness in package.get("vulns", ())]
    for package, weakness in found:
        mended = ", ".join(weakness["fix_versions"]) or "no version yet"
        print(f"{package['name']} {package['version']}: {weakness['id']}, mended in {mended}")
    unknown = [package["name"] for package in packages if "skip_reason" in package]
    if unknown:
        print(f"pip-audit: not known to the advisory service: {', '.join(unknown)}")
    print(f"pip-audit: {len(found)} found in {len(packages) - len(unknown)} packages")
    return 1 if found else 0


def ask(name: str, version: str) -> None:
    """One question, so that a mirror without advisories is not asked for every package."""
    address = SERVICE.format(name, version)
    try:
        urllib.request.urlopen(address, timeout=10).close()  # noqa: S310  (https, above)
    except OSError as error:
        raise NoAnswerError(f"{address}: {error}") from error


def audited(pins: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """What pip-audit says of each package."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("".join(f"{name}=={version}\n" for name, version in pins))
        file.flush()
        command = [str(Path(sys.executable).parent / "pip-audit"), "--disable-pip", "--no-deps"]
        command += ["--format=json", "--progress-spinner=off", "--requirement", file.name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        said: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except ValueError:
        raise NoAnswerError((done.stderr.strip().splitlines() or ["nothing was said"])[-1]) from None
    return said


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
