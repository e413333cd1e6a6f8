"""``weightstore serve``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from weightstore.cli.options import LocalPath, command_with_example, shared_options

if TYPE_CHECKING:
    from pathlib import Path

    from weightstore.cli.settings import Settings


@command_with_example(
    example="""
weightstore --home /sw/weights serve
weightstore serve --host 0.0.0.0 --token-file token --tls-cert chain.pem --tls-key key.pem
WEIGHTSTORE_MIRRORS=http://127.0.0.1:8000 weightstore prefetch --locked weights.lock
HF_ENDPOINT=http://127.0.0.1:8000 python train.py
""",
)
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Listen on this address.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="Listen on this port; 0 for any."
)
@click.option("--token-file", type=LocalPath(), metavar="FILE", help="Serve only who shows the token in FILE.")
@click.option("--tls-cert", type=LocalPath(), metavar="FILE", help="Serve https with this certificate and its chain.")
@click.option("--tls-key", type=LocalPath(), metavar="FILE", help="The certificate's private key.")
@click.option("--pull-through", is_flag=True, help="Fetch what is missing: from mirrors by digest, from the Hub.")
@click.option("--metrics", is_flag=True, help="Tell Prometheus at /metrics what was served.")
@click.option("--access-log", is_flag=True, help="Print a line for each request.")
@shared_options("home", "quiet")
@click.pass_obj
def command(
    settings: Settings,
    *,
    host: str,
    port: int,
    token_file: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    pull_through: bool,
    metrics: bool,
    access_log: bool,
) -> None:
    """Serve the store and its layers over HTTP, read only.

    As a mirror for weightstore, as the Hub for huggingface_hub, and with a page to look at. What is damaged is not
    served. Ends on Ctrl-C or SIGTERM, when the downloads that run have had some seconds to end.
    """
    if (tls_cert is None) != (tls_key is None):
        raise click.UsageError("--tls-cert and --tls-key go together.")
    try:
        from weightstore.cluster.serving.server import Serving, is_readable_by_all, make_app, read_token, serve
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "aiohttp":
            raise
        from weightstore.errors import MissingDependency

        raise MissingDependency(package="aiohttp", purpose="serving a store", extra="serve") from None
    import asyncio  # start-up: --help ends before

    token = read_token(token_file) if token_file else ""
    serving = Serving(host, port, token, tls_cert, tls_key, metrics, pull_through)
    if serving.shows_token:
        settings.say("warning: over plain HTTP the token can be read on its way. Give --tls-cert and --tls-key")
    if token_file is not None and is_readable_by_all(token_file):
        settings.say(f"warning: every user of this machine can read the token: chmod 600 {token_file}")
    if serving.is_open:
        settings.say(f"warning: everyone who reaches {host} can read this store. Ask for a token with --token-file")
    app = make_app(settings.client(), serving, log=click.echo if access_log else None)
    asyncio.run(serve(app, serving, started=lambda url: settings.say(f"serving {settings.config().home} at {url}")))
