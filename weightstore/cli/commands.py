"""The list of commands. It is a static table, so that ``--help`` costs no more than click itself.

Whatever a command raises becomes one message and an exit code here, and nowhere else.
"""

from __future__ import annotations

import errno
import importlib
from typing import Any

import click

from weightstore.cli.options import shared_options, write_example

EXIT_CODES = (
    (0, "done"),
    (1, "a question answered with no, or a defect of weightstore"),
    (2, "a wrong argument or setting"),
    (3, "no such weights name"),
    (4, "not in any store, and not fetched"),
    (5, "bytes are not what they should be"),
    (6, "a source could not be read"),
    (7, "no space"),
    (8, "the store cannot be used"),
    (9, "a source without a pin, refused"),
    (10, "an optional package is missing"),
    (11, "a checkpoint that would run code, refused"),
    (130, "interrupted; the next run resumes"),
)
SECTIONS: dict[str, dict[str, str]] = {
    "Get weights": {
        "prefetch": "Fetch weights by name, glob, URL or lockfile.",
        "path": "Print the path of verified weights.",
        "lock": "Pin weights in a lockfile.",
        "check": "Prove that a lockfile's weights are here.",
        "scan": "Find the weights that code asks for.",
        "convert": "Make safetensors files, which load faster.",
    },
    "Look": {
        "search": "Find weights by metric, size, task or licence.",
        "show": "Show everything known of weights.",
        "inspect": "List the tensors of a checkpoint, without downloading it.",
        "ls": "List what is stored.",
        "why": "Explain where a name leads.",
    },
    "Other libraries": {
        "run": "Run a program whose libraries use the store.",
        "autoload": "The same for a whole Python environment.",
        "view": "Show the store to other libraries, in their layout.",
        "adopt": "Bring the caches of other libraries into the store.",
    },
    "Across machines": {
        "mirror": "Keep a mirror of weights, and fetch from one.",
        "bundle": "Carry weights over an air gap.",
        "have": "List what is here, for the other side.",
        "serve": "Serve the store over HTTP, read only.",
    },
    "Look after the store": {
        "verify": "Hash every blob again, and repair.",
        "gc": "Remove what nothing names any more.",
        "rm": "Remove weights from the store.",
    },
    "Set up": {
        "init": "Create a store, alone or for a group.",
        "doctor": "Check the store, layers, mirrors and network.",
        "config": "Show each setting and where it comes from.",
        "completion": "Print the shell completion script.",
        "demo": "See it all work on real weights.",
    },
}
_EXAMPLE = """
weightstore prefetch resnet50 'ViT_*_Weights.*'
weightstore path resnet50
"""
_DEFECT = (
    "This is a defect of weightstore. Please report it with the lines above, `weightstore --version` and "
    "`weightstore doctor`."
)
# Standard output on a full disk or a lost terminal. Where we write files, these become errors of ours.
_OUTPUT_FAILS = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EBADF}


class Commands(click.Group):
    """A group whose commands are imported when they run."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return [name for section in SECTIONS.values() for name in section]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if not any(cmd_name in section for section in SECTIONS.values()):
            near = [name for name in self.list_commands(ctx) if name.startswith(cmd_name[:3])]
            if near and not ctx.resilient_parsing:
                ctx.fail(f"No such command {cmd_name!r}. Did you mean {' or '.join(near)}?")
            return None
        command = importlib.import_module(f"weightstore.cli.{cmd_name}").command
        return command if isinstance(command, click.Command) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        width = max(len(name) for section in SECTIONS.values() for name in section)
        for title, section in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(f"{name:<{width}}", about) for name, about in section.items()])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        write_example(formatter, _EXAMPLE)
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code), meaning) for code, meaning in EXIT_CODES])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        from click.shell_completion import CompletionItem  # start-up

        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        return [
            CompletionItem(name, help=about)
            for section in SECTIONS.values()
            for name, about in section.items()
            if name.startswith(incomplete)
        ]

    def invoke(self, ctx: click.Context) -> Any:
        from weightstore.cli.settings import Settings  # start-up: --help ends before
        from weightstore.errors import Cancelled, WeightStoreError

        settings = ctx.ensure_object(Settings)
        try:
            return super().invoke(ctx)
        except WeightStoreError as error:
            failure = error
        except KeyboardInterrupt:
            click.echo(err=True)  # closes the terminal's ^C echo
            settings.complain("stopped")
            return ctx.exit(Cancelled.exit_code)
        except (click.exceptions.Exit, click.exceptions.Abort, click.ClickException):
            raise
        except OSError as error:
            if error.errno in _OUTPUT_FAILS and error.filename is None:
                settings.complain(f"what was to be printed could not be written: {error.strerror}")
                return ctx.exit(1)
            if error.errno != errno.EPIPE:
                error.add_note(_DEFECT)
            raise
        except Exception as error:
            error.add_note(_DEFECT)
            raise
        settings.fail(failure)
        return ctx.exit(failure.exit_code)


def _print_version(ctx: click.Context, _: click.Parameter, value: object) -> None:
    if value and not ctx.resilient_parsing:
        from weightstore import __version__

        click.echo(f"weightstore {__version__}")
        ctx.exit()


@click.command(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    options_metavar="[OPTIONS]",
)
@shared_options("home", "offline", "json", "quiet")
@click.option(
    "-V",
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the version and exit.",
)
def cli() -> None:
    """Model weights for PyTorch: downloaded once, verified, shared.

    Needs no torch. Every command has its own --help with an example.
    """
