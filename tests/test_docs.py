"""The documentation says what the code does: every command, every option, every example."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from terminal import REPOSITORY

from m3index.cli import app
from m3index.cli.reference import commands, markdown

COMMANDS = commands()
PAGES = sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md"), *REPOSITORY.glob("examples/*.md")])
SCRIPTS = sorted([*REPOSITORY.glob("examples/*.sh"), *REPOSITORY.glob("examples/crontab*")])
OPTIONS = [(name, option) for name, c in COMMANDS.items() for option in c.params if option.name != "help"]


def identity(pair: tuple[str, Any]) -> str:
    return f"{pair[0]} {pair[1].opts[0]}"


def test_the_reference_is_the_code() -> None:
    written = (REPOSITORY / "docs" / "reference.md").read_text("utf-8")
    assert written == markdown(), "docs/reference.md is not what the commands say: make docs-reference"


def test_every_command_has_a_help_text() -> None:
    for name, command in COMMANDS.items():
        assert command.help, name
        assert f"## m3index {name}\n" in markdown()


@pytest.mark.parametrize("pair", OPTIONS, ids=identity)
def test_every_option_has_a_help_text_with_its_default_and_a_variable(pair: tuple[str, Any]) -> None:
    _, option = pair
    assert option.help
    assert option.help.endswith((".", ")")), "a sentence"
    if option.param_type_name == "argument":
        return
    assert option.envvar
    assert re.fullmatch(r"M3INDEX_[A-Z0-9_]+", option.envvar)
    assert option.required or option.is_flag or option.show_default, "what happens without it?"
    assert option.default not in ("", None) or option.required or isinstance(option.show_default, str)


def test_a_variable_belongs_to_one_option() -> None:
    flags: dict[str, set[str]] = {}
    for _, option in OPTIONS:
        if option.param_type_name == "option":
            flags.setdefault(option.envvar, set()).add(max(option.opts, key=len))
    shared = {variable: names for variable, names in flags.items() if len(names) > 1}
    assert not shared


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """(language, text) of each fenced block; where there is no such thing, the whole file as a script."""
    text = page.read_text("utf-8")
    if page.suffix != ".md":
        yield "sh", text
        return
    for match in re.finditer(r"^```(\S*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        yield match[1], match[2]


def calls(page: Path) -> Iterator[list[str]]:
    """The words of each call of m3index in a page's shell blocks."""
    for language, text in blocks(page):
        if language not in ("sh", "bash", "console", "crontab", "systemd", "ini", ""):
            continue
        for line in text.replace("\\\n", " ").splitlines():
            found = re.search(r"(?:^|[\s/=])m3index (?![-|+>])(.*)", line.split(" # ")[0].lstrip("$ "))
            if found is None or "-->" in line:
                continue
            words = shlex.split(re.split(r"\s(?:\||>>?|2>|&&|\|\||<)\s|;(?:\s|$)", found[1])[0])
            if words and words[0] in {name.split()[0] for name in COMMANDS}:
                yield words


EXAMPLES = [(page.name, words) for page in PAGES + SCRIPTS for words in calls(page)]


def test_there_are_examples() -> None:
    assert {"ingest", "search"} <= {words[0] for name, words in EXAMPLES if name == "README.md"}


@pytest.mark.parametrize(
    "example", EXAMPLES, ids=lambda example: f"{example[0]}: {' '.join(example[1])}"[:90]
)
def test_examples_parse(example: tuple[str, list[str]]) -> None:
    words = example[1]
    group: Any = typer.main.get_command(app)
    while hasattr(group, "commands"):
        assert words, "a command is missing"
        assert words[0] in group.commands
        name, group, words = words[0], group.commands[words[0]], words[1:]
    group.make_context(name, list(words))


def mentions() -> Iterator[tuple[str, str]]:
    """`m3index ...` in backticks: in the pages, and in what the code says to people."""
    for path in [*PAGES, *sorted((REPOSITORY / "m3index").rglob("*.py"))]:
        text = re.sub(r'"\s*\n\s*f?"', "", path.read_text("utf-8"))
        for match in re.finditer(r"`m3index ([a-z][^`]*)`", text):
            yield str(path.relative_to(REPOSITORY)), match[1]


@pytest.mark.parametrize(
    "mention", sorted(set(mentions())), ids=lambda mention: f"{mention[0]}: {mention[1]}"[:90]
)
def test_what_is_recommended_exists(mention: tuple[str, str]) -> None:
    words = mention[1].split()
    name = next((n for n in (" ".join(words[:2]), words[0]) if n in COMMANDS), None)
    assert name is not None, f"there is no command {words[0]}"
    known = {flag for option in COMMANDS[name].params for flag in option.opts} | {"-h", "--help"}
    used = [word.partition("=")[0].rstrip(".,:;)") for word in words if re.match(r"--?[a-z]", word)]
    assert set(used) <= known


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
            if "://" not in target and not target.startswith("mailto:"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"
