"""``weightstore completion``."""

from __future__ import annotations

import click

from weightstore.cli.options import command_with_example


@command_with_example(
    example="""
weightstore completion bash > ~/.local/share/bash-completion/completions/weightstore
weightstore completion zsh > ~/.zfunc/_weightstore     # with fpath+=~/.zfunc in ~/.zshrc
weightstore completion fish > ~/.config/fish/completions/weightstore.fish
""",
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, *, shell: str) -> None:
    """Print the script that completes commands, options and names of weights in a shell."""
    from click.shell_completion import get_completion_class

    made = get_completion_class(shell)
    if made is None:
        raise click.UsageError(f"click knows no completion for {shell}")
    click.echo(made(ctx.find_root().command, {}, "weightstore", "_WEIGHTSTORE_COMPLETE").source())
