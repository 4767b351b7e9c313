"""Options of the command line only: output, metrics and confirmation."""

from __future__ import annotations

from m3index.options import FileName, Flag, Group, group, option


@group
class Quiet(Group):
    """How much a command prints."""

    panel = "Output"

    quiet: bool = option(
        Flag(),
        "Print only warnings and errors.",
        default=False,
        flags=("--quiet", "-q"),
        variable=True,
        harmless=True,
    )


@group
class Output(Quiet):
    """What a command prints."""

    panel = "Output"

    json: bool = option(
        Flag(), "Print only JSON Lines on standard output.", default=False, variable=True, harmless=True
    )


@group
class CorpusOutput(Output):
    """What a command that reads a corpus prints."""

    panel = "Output"

    verbose: bool = option(
        Flag(),
        "List the files and folders that are not read, with the reason.",
        default=False,
        flags=("--verbose", "-v"),
    )


@group
class MetricsFile(Group):
    """What a run writes for monitoring."""

    panel = "Output"

    metrics_file: str | None = option(
        FileName(),
        "File for the outcome in the Prometheus textfile format.",
        default=None,
        shown="none",
        variable=True,
    )


@group
class Confirmation(Group):
    """Whether a command asks before it removes something."""

    panel = "Run"

    yes: bool = option(
        Flag(), "Do not ask for confirmation.", default=False, flags=("--yes", "-y"), file=False
    )


@group
class DryRun(Group):
    """The dry run of commands whose library function has no such option."""

    panel = "Run"

    dry_run: bool = option(
        Flag(), "Report what would be done without writing anything.", default=False, file=False
    )
