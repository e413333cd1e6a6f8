"""The options that commands share, and the kinds of values that they take. Imports nothing but click."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from pathlib import Path

_F = TypeVar("_F", bound=Callable[..., Any])


def _remember(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    """Keep a shared option's value in the settings: it may stand before or after the command."""
    if ctx.resilient_parsing or param.name is None:
        return
    from weightstore.cli.settings import Settings  # start-up: --help ends before

    settings = ctx.ensure_object(Settings)
    if value == "":  # as of a variable that is not set: the usual store is hardly meant
        raise click.BadParameter("It is empty.", ctx, param)
    if value:
        setattr(settings, param.name, value)


_SHARED: dict[str, Callable[[_F], _F]] = {
    "home": click.option(
        "--home",
        type=click.Path(file_okay=False),
        metavar="DIR",
        expose_value=False,
        callback=_remember,
        help="Use the store in DIR.",
    ),
    "offline": click.option(
        "--offline", is_flag=True, expose_value=False, callback=_remember, help="Open no network connection."
    ),
    "json": click.option("--json", is_flag=True, expose_value=False, callback=_remember, help="Print one JSON object."),
    "quiet": click.option(
        "-q",
        "--quiet",
        is_flag=True,
        expose_value=False,
        callback=_remember,
        help="Tell nothing but results and errors.",
    ),
}


class _Command(click.Command):
    """A command whose help ends with an example, shown as it stands."""

    def __init__(self, *args: Any, example: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.example = example

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        write_example(formatter, self.example)


class _Group(click.Group):
    """A command of several commands, whose help ends with an example, as theirs do."""

    command_class = _Command

    def __init__(self, *args: Any, example: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.example = example

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        write_example(formatter, self.example)


def write_example(formatter: click.HelpFormatter, example: str) -> None:
    """Write a help page's section of commands to type, without wrapping them."""
    with formatter.section("Example"):
        for line in example.strip().splitlines():
            formatter.write(f"{'':>{formatter.current_indent}}{line}\n")


def command_with_example(*, example: str, **settings: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """Return a decorator that makes a command. ``settings`` are click's."""
    return click.command(cls=_Command, example=example, **settings)


def group_with_example(*, example: str) -> Callable[[Callable[..., Any]], click.Group]:
    """Return a decorator that makes a group; each of its commands has an ``example`` as well."""
    return click.group(cls=_Group, example=example)


def shared_options(*names: str) -> Callable[[_F], _F]:
    """Return a decorator that adds shared options: ``home``, ``offline``, ``json``, ``quiet``."""

    def add(function: _F) -> _F:
        for name in reversed(names):
            function = _SHARED[name](function)
        return function

    return add


class WeightsName(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.5 only
    """A weights name, URL or path. Names complete from the catalogs that are found quickly."""

    name = "name"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:  # noqa: ARG002
        from click.shell_completion import CompletionItem  # start-up

        from weightstore.source import is_path

        if is_path(incomplete):
            return [CompletionItem(incomplete, type="file")]
        from weightstore.cli.settings import Settings

        catalogs = ctx.ensure_object(Settings).client().catalogs.near()
        typed = incomplete.lower()
        names: dict[str, str] = {}
        for catalog in catalogs:
            for builder, enum in catalog.builders.items():
                names.setdefault(builder, catalog.member_name(enum, "DEFAULT") or "")
            for enum in catalog.enums():
                if "." not in incomplete:
                    names.setdefault(f"{enum}.", "")
                elif typed.startswith(f"{enum}.".lower()):
                    names |= {f"{enum}.{member}": "" for member in [*catalog.members(enum), "DEFAULT"]}
        return [CompletionItem(name, help=help_) for name, help_ in names.items() if name.lower().startswith(typed)]


class LocalPath(click.ParamType):  # type: ignore[type-arg]
    """A path on this machine. A URL is refused, and not repeated: it may carry a password. So is nothing at all."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        from pathlib import Path  # start-up

        if not str(value) or "://" in str(value):
            problem = "A path on this machine is needed, not a URL." if str(value) else "It is empty."
            hint = param.get_error_hint(ctx).replace("[", "").replace("]", "") if param is not None else None
            raise click.BadParameter(problem, ctx, param_hint=hint)
        return Path(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:  # noqa: ARG002
        from click.shell_completion import CompletionItem  # start-up

        return [CompletionItem(incomplete, type="file")]


class Bytes(click.ParamType):  # type: ignore[type-arg]
    """A number of bytes, ``20MB`` or ``1.5GiB``."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        from weightstore.config import parse_size  # start-up
        from weightstore.errors import InvalidConfig

        try:
            return value if isinstance(value, int) else parse_size(str(value))
        except InvalidConfig as error:
            self.fail(str(error), param, ctx)


class Seconds(click.ParamType):  # type: ignore[type-arg]
    """A duration in seconds, ``90s`` or ``24h``."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        from weightstore.config import parse_duration  # start-up
        from weightstore.errors import InvalidConfig

        try:
            return value if isinstance(value, float) else parse_duration(str(value))
        except InvalidConfig as error:
            self.fail(str(error), param, ctx)
