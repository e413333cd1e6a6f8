"""Which transport reads which source: the one place that knows all of them."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from weightstore import __version__
from weightstore.transfer.connections import Connections
from weightstore.transfer.file import FileTransport

if TYPE_CHECKING:
    from weightstore.config import Config
    from weightstore.source import Source
    from weightstore.transfer.bucket import BucketTransport
    from weightstore.transfer.http import HttpTransport
    from weightstore.transfer.hub import HubTransport
    from weightstore.transfer.registry import Registry, RegistryTransport
    from weightstore.transfer.transport import Transport


class Transports:
    """The transports of one client, made when first used: importing the network costs 0.1 s that a hit never pays."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._http: HttpTransport | None = None
        self._hub: HubTransport | None = None
        self._registry: RegistryTransport | None = None
        self._buckets: BucketTransport | None = None
        self._lock = threading.Lock()
        self.connections = Connections(config.max_connections)

    def transport_for(self, source: Source) -> Transport:
        if source.scheme == "file":
            return FileTransport()
        if source.scheme in {"s3", "gs", "az"}:
            return self.buckets()
        with self._lock:
            if self._http is None:
                from weightstore.transfer.http import HttpTransport  # start-up: a file needs no network

                self._http = HttpTransport(
                    connect_timeout_s=self._config.connect_timeout_s,
                    read_timeout_s=self._config.read_timeout_s,
                    pool_size=self._config.max_connections,
                    user_agent=f"weightstore/{__version__}",
                    ca_bundle=str(self._config.ca_bundle) if self._config.ca_bundle else None,
                )
            if source.scheme == "oci":
                if self._registry is None:
                    from weightstore.transfer.registry import Registry, RegistryTransport  # start-up: likewise

                    self._registry = RegistryTransport(Registry(self._http, docker_config=docker_config()))
                return self._registry
            if source.scheme != "hf":
                return self._http
            if self._hub is None:
                from weightstore.transfer.hub import HubTransport  # start-up: likewise

                self._hub = HubTransport(
                    self._http, endpoint=self._config.hub_endpoint.url, token=self._config.hub_token
                )
            return self._hub

    def hub(self, source: Source) -> HubTransport:
        """Return what asks the Hub that a source is on."""
        self.transport_for(source)
        if self._hub is None:
            raise AssertionError
        return self._hub

    def buckets(self) -> BucketTransport:
        """Return what asks buckets."""
        with self._lock:
            if self._buckets is None:
                from weightstore.transfer.bucket import BucketTransport  # start-up: likewise

                self._buckets = BucketTransport(
                    connect_timeout_s=self._config.connect_timeout_s, ca_bundle=self._config.ca_bundle
                )
            return self._buckets

    def registry(self, source: Source) -> Registry:
        """Return what asks the OCI registry that an ``oci`` source is in."""
        self.transport_for(source)
        if self._registry is None:
            raise AssertionError
        return self._registry.registry

    def interrupt(self) -> None:
        """End all reads from the network that are under way."""
        with self._lock:
            if self._http is not None:
                self._http.interrupt()

    def close(self) -> None:
        """Close the connections that are kept for the next file."""
        with self._lock:
            if self._http is not None:
                self._http.close()


def docker_config() -> Path:
    """Return the file in which ``docker login`` keeps credentials, which other tools read as well."""
    return Path(os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")) / "config.json"
