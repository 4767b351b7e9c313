"""The documentation says what the code does: every command, every option, every example."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from documented import parse
from terminal import REPOSITORY

from m3index.cli.apps import all_commands
from m3index.cli.reference import click_commands, markdown
from m3index.errors import Exit
from m3index.options import Option

PAGES = sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md"), *REPOSITORY.glob("examples/*.md")])
SCRIPTS = sorted([*REPOSITORY.glob("examples/*.sh"), *REPOSITORY.glob("examples/crontab*")])
OPTIONS = [(name, option) for name, c in all_commands().items() for option in c.options.values()]
FLAGS = {
    name: {flag for parameter in command.params for flag in parameter.opts} | {"-h", "--help"}
    for name, command in click_commands().items()
}
VARIABLES = {
    "cache", "collection", "db", "device", "encoder", "insecure", "json", "metrics_file", "precision",
    "quiet", "serve_token_file", "server", "tenant", "timeout", "token_file", "uri",
}  # fmt: skip
"""Options that a variable sets: what is the same for every command of a machine or a job."""


def identity(pair: tuple[str, Option]) -> str:
    return f"{pair[0]} {pair[1].flags[0]}"


def test_the_reference_is_the_code() -> None:
    written = (REPOSITORY / "docs" / "reference.md").read_text("utf-8")
    assert written == markdown(), "docs/reference.md is not what the commands say: make docs-reference"


def test_every_command_has_a_help_text() -> None:
    for name, command in all_commands().items():
        assert command.help.endswith((".", ")")), name
        assert f"## m3index {name}\n" in markdown()


@pytest.mark.parametrize("pair", OPTIONS, ids=identity)
def test_every_option_has_a_help_text_with_its_default(pair: tuple[str, Option]) -> None:
    name, option = pair
    assert option.help.endswith((".", ")")), "a sentence"
    assert option.is_required or option.kind.is_flag or option.default_text, "what happens without it?"
    assert option.flags[0] in FLAGS[name]


def test_every_test_that_the_documentation_names_is_there() -> None:
    named = re.findall(
        r"`(tests/[\w/]+\.py)::(\w+)`", (REPOSITORY / "docs" / "security.md").read_text("utf-8")
    )
    assert len(named) > 30
    for path, name in named:
        assert f"def {name}(" in (REPOSITORY / path).read_text("utf-8"), f"{path}::{name}"


def test_every_argument_has_a_help_text() -> None:
    for name, command in click_commands().items():
        for parameter in command.params:
            if parameter.param_type_name == "argument":
                assert parameter.help, f"{name} {parameter.name}"
                assert parameter.help.endswith((".", ")")), f"{name} {parameter.name}"


def test_few_options_have_a_variable() -> None:
    assert {option.name for _, option in OPTIONS if option.variable} == VARIABLES
    parameters = {name: {p.name: p for p in command.params} for name, command in click_commands().items()}
    for name, option in OPTIONS:
        expected = f"M3INDEX_{option.name.upper()}" if option.variable else None
        assert parameters[name][option.name].envvar == expected, f"{name} {option.name}"


def test_a_variable_belongs_to_one_option() -> None:
    flags: dict[str, set[str]] = {}
    for _, option in OPTIONS:
        if option.envvar:
            flags.setdefault(option.envvar, set()).add(max(option.flags, key=len))
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
            if words and words[0] != "$@":  # a function of the shell that stands for the program
                yield words


EXAMPLES = [(page.name, words) for page in PAGES + SCRIPTS for words in calls(page)]


def test_there_are_examples() -> None:
    assert {"ingest", "search"} <= {words[0] for name, words in EXAMPLES if name == "README.md"}


@pytest.mark.parametrize(
    "example", EXAMPLES, ids=lambda example: f"{example[0]}: {' '.join(example[1])}"[:90]
)
def test_examples_parse(example: tuple[str, list[str]]) -> None:
    parse(example[1])


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
    name = next((n for n in (" ".join(words[:2]), words[0]) if n in all_commands()), None)
    assert name is not None, f"there is no command {words[0]}"
    used = [word.partition("=")[0].rstrip(".,:;)") for word in words if re.match(r"--?[a-z]", word)]
    assert set(used) <= FLAGS[name]


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
            if "://" not in target and not target.startswith("mailto:"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_nightly_job_explains_every_exit_code() -> None:
    page = (REPOSITORY / "docs" / "cron.md").read_text(encoding="utf-8")
    table = page.split("## Exit codes")[1].split("\n\n")[1]
    codes = [int(code) for row in table.splitlines()[2:] for code in row.split("|")[1].split(",")]
    assert codes == [code.value for code in Exit]
