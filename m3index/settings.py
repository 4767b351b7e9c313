"""Where a value comes from: flag > M3INDEX_* environment variable > profile in m3index.toml > default.

The file holds the names of the command line's options, with `_` or `-`:

    uri = "http://milvus:19530"
    collection = "docs"
    encoder = "teacher"

    [fields]
    lang = "str"

    [search]
    weights = "dense=0.7,sparse=0.3"

    [profile.laptop]
    uri = "m3index.db"

Top-level names hold for every command, a table named like a command for that command, `[profile.NAME]`
(same shape) over both when `--profile NAME` is given. Secrets come from the environment only.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from m3index.errors import UsageError
from m3index.schema import check_field

FILE_NAME = "m3index.toml"
SECRETS = frozenset({"token", "password", "serve_token"})


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A parsed m3index.toml. `common` and `commands` hold option names with `_`."""

    path: Path | None = None
    common: Mapping[str, Any] = field(default_factory=dict)
    commands: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    fields: Mapping[str, str] = field(default_factory=dict)

    def defaults(self, options: Mapping[str, Collection[str]]) -> dict[str, dict[str, Any]]:
        """The default values of each command, for the options that it has.

        options: the names of each command's options. Raises UsageError for a name that no command
        has, so that a misspelt one is not silently without effect.
        """
        everywhere = {name for names in options.values() for name in names}
        for name in self.common:
            if name not in everywhere:
                raise UsageError(f"{self.path}: no command has an option {name!r}.")
        declared = [f"{name}:{kind}" for name, kind in self.fields.items()]
        defaults: dict[str, dict[str, Any]] = {}
        for command, names in options.items():
            own = self.commands.get(command, {})
            for name in own:
                if name not in names:
                    raise UsageError(f"{self.path}: [{command}] has no option {name!r}.")
            values = {name: value for name, value in self.common.items() if name in names} | dict(own)
            if declared and "field" in names:
                values.setdefault("field", declared)
            defaults[command] = values
        return defaults


def find() -> Path | None:
    """The file in use: M3INDEX_CONFIG, ./m3index.toml, or the user's configuration directory's."""
    named = os.environ.get("M3INDEX_CONFIG")
    if named:
        return Path(named)
    home = Path(os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")) / "m3index" / FILE_NAME
    return next((path for path in (Path(FILE_NAME), home) if path.is_file()), None)


def read(path: Path | None, profile: str | None, commands: Collection[str]) -> ConfigFile:
    """Reads the file. Raises UsageError where it is missing, no TOML, or holds what it may not."""
    if path is None:
        if profile:
            raise UsageError(f"--profile {profile}: there is no {FILE_NAME}; name one with --config.")
        return ConfigFile()
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise UsageError(f"No configuration file {path}.") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path}: {error}") from None
    profiles = document.pop("profile", {})
    if not isinstance(profiles, dict) or not all(isinstance(p, dict) for p in profiles.values()):
        raise UsageError(f"{path}: a profile is a table: [profile.NAME].")
    for layer in profiles.values():
        _merge(path, [layer], commands)  # a bad one is told of before it is asked for
    layers = [document]
    if profile is not None:
        if profile not in profiles:
            known = ", ".join(sorted(profiles)) or "none"
            raise UsageError(f"{path} has no [profile.{profile}]; there are: {known}.")
        layers.append(profiles[profile])
    return _merge(path, layers, commands)


def _merge(path: Path, layers: list[dict[str, Any]], commands: Collection[str]) -> ConfigFile:
    """Later layers win: also what they say to all commands over what earlier ones say to one."""
    common: dict[str, Any] = {}
    own: dict[str, dict[str, Any]] = {}
    fields: dict[str, str] = {}
    for layer in layers:
        for key, value in sorted(layer.items(), key=lambda item: isinstance(item[1], dict)):
            name = key.replace("-", "_")
            if name == "fields":
                if not isinstance(value, dict):
                    raise UsageError(f'{path}: [fields] is a table: lang = "str".')
                for column, kind in value.items():
                    check_field(column, str(kind))
                    fields[column] = kind
            elif isinstance(value, dict):
                if key not in commands:
                    raise UsageError(f"{path}: [{key}] is no command, nor [fields] or [profile.NAME].")
                table = {k.replace("-", "_"): v for k, v in value.items()}
                _refuse_secrets(path, table)
                own.setdefault(key, {}).update(table)
            else:
                _refuse_secrets(path, {name: value})
                common[name] = value
                for table in own.values():
                    table.pop(name, None)
    return ConfigFile(path, common, own, fields)


def _refuse_secrets(path: Path, values: Mapping[str, Any]) -> None:
    for name in values:
        if name in SECRETS:
            raise UsageError(f"{path}: {name!r} does not belong in a file; set M3INDEX_{name.upper()}.")


def write_table(path: Path, table: str, values: Mapping[str, Any]) -> None:
    """Sets these names in `[table]` of the file; its other lines and comments stay as they are.

    Raises UsageError where the file cannot be read as TOML or written.
    """
    try:
        import tomlkit
        import tomlkit.exceptions
    except ImportError:
        raise UsageError("Writing the configuration needs tomlkit: pip install 'm3index[eval]'.") from None
    try:
        document = tomlkit.parse(path.read_text("utf-8")) if path.exists() else tomlkit.document()
        section = document.setdefault(table, tomlkit.table())
        for name, value in values.items():
            section[name] = value
        partial = path.with_name(path.name + ".partial")
        partial.write_text(tomlkit.dumps(document), "utf-8")
        partial.replace(path)
    except (OSError, UnicodeDecodeError, tomlkit.exceptions.TOMLKitError) as error:
        raise UsageError(f"{path} could not be changed: {error}") from None
