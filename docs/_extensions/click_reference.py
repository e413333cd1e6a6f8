"""The reference of the command line, generated from click when the documentation is built: it cannot disagree.

``{commands}`` stands for one section per command: usage, what it does, its example, arguments and options.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import click
from sphinx.util.docutils import SphinxDirective

from weightstore.cli import cli

if TYPE_CHECKING:
    from collections.abc import Iterator

    from docutils import nodes
    from sphinx.application import Sphinx


class Commands(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        context = click.Context(cli, info_name="weightstore", **cli.context_settings)
        lines = [*_section("weightstore", cli, context)]
        for name in cli.list_commands(context):
            command = cli.get_command(context, name)
            if command is None:
                raise self.error(f"weightstore lists a command {name} that it does not have")
            inner = click.Context(command, info_name=name, parent=context)
            lines += _section(f"weightstore {name}", command, inner)
            if isinstance(command, click.Group):
                for part in command.list_commands(inner):
                    one = command.commands[part]
                    below = click.Context(one, info_name=part, parent=inner)
                    lines += _section(f"weightstore {name} {part}", one, below)
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)


def _section(title: str, command: click.Command, context: click.Context) -> Iterator[str]:
    yield f"## {title}"
    yield ""
    yield from _help(command.help or "")
    if example := getattr(command, "example", ""):
        yield from ["```console", *(f"$ {line}" for line in inspect.cleandoc(example).split("\n")), "```", ""]
    yield from ["```text", " ".join([title, *command.collect_usage_pieces(context)]), "```", ""]
    yield from _options(command, context)


def _help(text: str) -> Iterator[str]:
    """Turn a command's help into Markdown: paragraphs stay, blocks marked by a backspace are shown as they are."""
    for paragraph in inspect.cleandoc(text).split("\f")[0].split("\n\n"):
        first, *rest = paragraph.split("\n")
        if first.strip() == "\b":
            yield from _verbatim(rest)
        else:
            yield _escaped(paragraph)
        yield ""


def _verbatim(lines: list[str]) -> Iterator[str]:
    if lines and lines[0].endswith(":") and not lines[0].startswith(" "):
        yield f"{_escaped(lines[0])}"
        yield ""
        lines = lines[1:]
    yield from ["```text", *inspect.cleandoc("\n".join(["", *lines])).split("\n"), "```"]


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    """One row for each option, as ``--help`` says it."""
    records = [
        record
        for parameter in command.get_params(context)
        if (record := parameter.get_help_record(context)) is not None and record[1]
    ]
    if not records:
        return
    yield from ["| option | means |", "| --- | --- |"]
    for names, meaning in records:
        yield f"| `{_cell(names)}` | {_escaped(_cell(meaning))} |"
    yield ""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _escaped(text: str) -> str:
    """Keep what Markdown would take for markup: globs, placeholders."""
    for sign in "*_<>[]$":
        text = text.replace(sign, f"\\{sign}")
    return text


def setup(app: Sphinx) -> dict[str, object]:
    app.add_directive("commands", Commands)
    return {"parallel_read_safe": True, "version": "1"}
