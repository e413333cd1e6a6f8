"""Settings: read once at the edge, from the environment and configuration files, into one frozen value.

Precedence: environment variable, then the user's ``config.toml``, then the site's, then the default.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast
from urllib.parse import urlsplit

from weightstore.errors import InvalidConfig, InvalidSource
from weightstore.hub import ENDPOINT, HubToken
from weightstore.source import Source, is_path, is_source, lacks_scheme

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Trust = Literal["first-use", "pinned"]
Step = Literal["layers", "mirrors", "origin"]
Link = Literal["auto", "reflink", "symlink", "hardlink", "copy"]
LINKS: tuple[Link, ...] = ("auto", "reflink", "symlink", "hardlink", "copy")
STEPS: tuple[Step, ...] = ("layers", "mirrors", "origin")
CONFIG_LIMIT = 1 << 20

_HUB = Source(ENDPOINT)
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")
_BETWEEN_MIRRORS = re.compile(r",?\s+|,(?=\w+://)")
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def parse_size(text: str) -> int:
    """Read a number of bytes: ``1500``, ``20MB``, ``1.5 GiB``. MB is 10⁶ bytes, MiB is 2²⁰."""
    value = text.strip().lower().replace(" ", "").removesuffix("b")
    number = value.rstrip("kmgti")
    unit = value[len(number) :]
    try:
        size = int(float(number) * _UNITS[unit])
    except (ValueError, KeyError, OverflowError):
        size = -1
    if size < 0:
        raise InvalidConfig(f"not a size: {text!r}. Write it like 20MB or 1.5GiB")
    return size


def parse_duration(text: str) -> float:
    """Read a duration in seconds: ``90``, ``90s``, ``15m``, ``24h``, ``7d``."""
    value = text.strip().lower()
    factor = {"s": 1, "m": 60, "h": 3600, "d": 86400}.get(value[-1:], 0)
    try:
        seconds = float(value[:-1] if factor else value) * (factor or 1)
    except ValueError:
        raise InvalidConfig(f"not a duration: {text!r}. Write it like 90s, 15m, 24h or 7d") from None
    if not 0 <= seconds < 1e10:
        raise InvalidConfig(f"not a duration: {text!r}")
    return seconds


@dataclass(frozen=True, slots=True)
class Config:
    """All settings. Sizes are bytes, durations seconds.

    Attributes:
        home: root of the writable store.
        state: this user's private state: receipts.
        layers: stores consulted read-only before the writable one, in order.
        mirrors: stores asked by digest, each a directory or a URL, in order; never trusted.
        order: which kinds of place are asked, in order.
        offline: open no socket.
        trust: ``first-use`` records the digest of an unpinned source when it is first fetched; ``pinned`` refuses it.
        locks: spare duplicate downloads with advisory locks. Correctness never depends on it.
        max_connections: at most so many network connections at once, over all files.
        connections_per_file: at most so many of them for one file.
        jobs: so many files download side by side.
        connect_timeout_s: for a connection to be accepted.
        read_timeout_s: for the next bytes to arrive.
        retries: so many further attempts without progress before a source is given up.
        stall_s: a part that has not grown for so long has lost its owner.
        max_size: refuse larger files; None for no limit.
        catalogs: files of further catalogs.
        locked: lockfiles whose digests count when other libraries ask for the sources that they name.
        allowed_signers: an OpenSSH allowed_signers file: whose signed indexes of mirrors are believed.
        link: how blobs appear where other libraries look for them; ``auto`` is a reflink where the file system can,
            else a symbolic link.
        ca_bundle: certificates to trust instead of the usual ones; REQUESTS_CA_BUNDLE and SSL_CERT_FILE mean the same.
        hub_endpoint: where ``hf://`` sources are asked for; HF_ENDPOINT means the same.
        hub_token: how this user is known there, from Hugging Face's own variables and file; no setting of ours.
    """

    home: Path
    state: Path
    layers: tuple[Path, ...] = ()
    mirrors: tuple[Source, ...] = ()
    order: tuple[Step, ...] = STEPS
    offline: bool = False
    trust: Trust = "first-use"
    locks: bool = True
    max_connections: int = 16
    connections_per_file: int = 16
    jobs: int = 4
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 30.0
    retries: int = 5
    stall_s: float = 60.0
    max_size: int | None = None
    catalogs: tuple[Path, ...] = ()
    locked: tuple[Path, ...] = ()
    allowed_signers: Path | None = None
    link: Link = "auto"
    ca_bundle: Path | None = None
    hub_endpoint: Source = _HUB
    hub_token: HubToken | None = field(default=None, compare=False)
    origins: Mapping[str, str] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        for name in ("max_connections", "connections_per_file", "jobs"):
            if getattr(self, name) < 1:
                raise InvalidConfig(f"{self._place(name)}{name} is at least 1")
        for name in ("connect_timeout_s", "read_timeout_s", "stall_s"):
            if getattr(self, name) <= 0:
                raise InvalidConfig(f"{self._place(name)}{name} is more than 0 seconds")

    def _place(self, name: str) -> str:
        return f"{self.origins[name]}: " if name in self.origins else ""

    @classmethod
    def load(cls) -> Config:
        """Return the settings of this process's environment."""
        return cls.from_environ(os.environ)

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Config:
        """Return the settings for an environment: its variables over the user's file over the site's file.

        Raises:
            InvalidConfig: a value that cannot be used, with the place that it came from.
        """
        values: dict[str, Any] = {}
        origins: dict[str, str] = {}
        for path in reversed(config_files(environ)):
            for name, value in _read_file(path).items():
                values[name] = _convert(name, value, place=str(path))
                origins[name] = str(path)
        for name in SETTINGS:
            variable = variable_of(name)
            if environ.get(variable, "") != "":
                values[name] = _convert(name, environ[variable], place=variable)
                origins[name] = variable
        # requests' own variables, and OpenSSL's, which requests leaves aside and clusters set in their profiles.
        for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
            if "ca_bundle" not in values and environ.get(variable):
                values["ca_bundle"] = _path(environ[variable])
                origins["ca_bundle"] = variable
        if "hub_endpoint" not in values and environ.get("HF_ENDPOINT"):
            values["hub_endpoint"] = _convert("hub_endpoint", environ["HF_ENDPOINT"], place="HF_ENDPOINT")
            origins["hub_endpoint"] = "HF_ENDPOINT"
        if "home" not in values:
            values["home"] = _default_dir("user_cache_path")
        if "state" not in values:
            values["state"] = _default_dir("user_state_path")
        return cls(**values, hub_token=_hub_token(environ), origins=origins)

    def but(self, **changes: Any) -> Config:
        """Return these settings with some replaced."""
        origins = {name: origin for name, origin in self.origins.items() if name not in changes}
        return replace(self, **{"origins": origins, **changes})


def variable_of(name: str) -> str:
    """Return the environment variable of a setting: ``max_size`` is ``WEIGHTSTORE_MAX_SIZE``."""
    return "WEIGHTSTORE_" + name.upper()


def unknown_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables named like ours that mean nothing, each with the nearest that does, or an empty string."""
    known = {variable_of(name) for name in SETTINGS} | {"WEIGHTSTORE_CONFIG", "WEIGHTSTORE_HOOK", "WEIGHTSTORE_SPOOL"}
    unknown = [
        name
        for name in sorted(environ)
        if name.startswith("WEIGHTSTORE_") and name not in known and not name.startswith("WEIGHTSTORE_TEST_")
    ]
    if not unknown:
        return {}
    import difflib  # start-up: only when a name is wrong

    return {name: next(iter(difflib.get_close_matches(name, sorted(known), n=1)), "") for name in unknown}


def _hub_token(environ: Mapping[str, str]) -> HubToken | None:
    """Return how the user is known to the Hub, found where ``huggingface_hub`` finds it. No file is read yet."""
    if environ.get("HF_HUB_DISABLE_IMPLICIT_TOKEN", "").upper() in {"1", "ON", "YES", "TRUE"}:
        return None
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if environ.get(variable, "").strip():
            return HubToken(variable, text=environ[variable])
    cache = environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache")
    home = environ.get("HF_HOME") or os.path.join(cache, "huggingface")
    path = environ.get("HF_TOKEN_PATH") or os.path.join(home, "token")
    path = _VARIABLE.sub(lambda match: environ.get(match[1] or match[2], match[0]), path)
    path = os.path.expanduser(path)
    return HubToken(path, file=Path(path))


def config_files(environ: Mapping[str, str]) -> list[Path]:
    """Return the configuration files that are read, the strongest first. They need not exist."""
    if environ.get("WEIGHTSTORE_CONFIG"):
        try:
            return [_path(environ["WEIGHTSTORE_CONFIG"])]
        except InvalidConfig as error:
            raise InvalidConfig(f"WEIGHTSTORE_CONFIG: {error}") from None
    user, site = _default_dir("user_config_path"), _default_dir("site_config_path")
    return [user / "config.toml", site / "config.toml"]


def _default_dir(function: str) -> Path:
    import platformdirs  # start-up: not needed where the environment says it all

    directory = getattr(platformdirs, function)("weightstore", appauthor=False)
    return cast("Path", directory)


def _read_file(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(CONFIG_LIMIT + 1)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise InvalidConfig(f"{path}: {error.strerror}") from None
    if len(data) > CONFIG_LIMIT:
        raise InvalidConfig(f"{path}: larger than {CONFIG_LIMIT} bytes")
    import tomllib  # start-up: 3 ms, and most machines have no file

    try:
        values = tomllib.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InvalidConfig(f"{path}: not TOML ({error})") from None
    values = _without_tables(values, path)
    for name in values:
        if name not in SETTINGS:
            raise InvalidConfig(f"{path}: no setting is called {name!r}. All settings: weightstore config")
    return values


def _without_tables(values: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return settings with that of ``[trust] allowed_signers``, as some people write it, among them."""
    table = values.get("trust")
    if not isinstance(table, dict):
        return values
    if table.keys() != {"allowed_signers"} or "allowed_signers" in values:
        raise InvalidConfig(
            f'{path}: [trust] holds allowed_signers, once, and nothing else. Write trust = "pinned" and '
            'allowed_signers = "…" as settings of their own, above all tables'
        )
    return {**{name: value for name, value in values.items() if name != "trust"}, **table}


def _convert(name: str, value: object, *, place: str) -> object:
    try:
        return SETTINGS[name](value)
    except (InvalidConfig, InvalidSource, ValueError, TypeError) as error:
        raise InvalidConfig(f"{place}: {name}: {error}") from None


def _path(value: object) -> Path:
    if not isinstance(value, str) or not value or "\0" in value:
        raise InvalidConfig(f"not a path: {value!r}")
    if "://" in value:  # and not shown: it may carry a password
        raise InvalidConfig("a path on this machine is needed, not a URL")
    try:
        path = Path(value).expanduser()
    except RuntimeError:
        raise InvalidConfig(f"{value}: there is no such home directory") from None
    return path if path.is_absolute() else path.absolute()


def _list(value: object, separator: str) -> list[str]:
    if (
        isinstance(value, str) and value.strip().lower() == "none"
    ):  # of variables: an empty one is as one that is not set
        return []
    if isinstance(value, str):
        return [item for item in value.split(separator) if item]
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    raise InvalidConfig("not a list of strings")  # and not shown: a mirror may carry credentials


def _paths(value: object) -> tuple[Path, ...]:
    if isinstance(value, str) and "://" in value:  # its colon would part it
        raise InvalidConfig("paths on this machine are needed, not URLs; a store on the web can be a mirror")
    return tuple(_path(item) for item in _list(value, os.pathsep))


def _mirrors(value: object) -> tuple[Source, ...]:
    # In the environment blanks part them, or commas before another URL: colons and commas stand inside of URLs.
    items = _list(_BETWEEN_MIRRORS.sub(" ", value) if isinstance(value, str) else value, " ")
    for item in items:  # and none is shown: it may carry credentials
        if any(is_path(part) or lacks_scheme(part) for part in item.split(",")[1:]):
            raise InvalidConfig("mirrors are separated by blanks; a comma does it only before a scheme, like https://")
        if lacks_scheme(item):
            raise InvalidConfig("a mirror's address begins with a scheme, like https://; that of a directory with ./")
    return tuple(Source.parse(item if is_source(item) else "./" + item) for item in items)


def _endpoint(value: object) -> Source:
    if not isinstance(value, str):
        raise InvalidConfig("not a URL")
    endpoint = Source.parse(value.rstrip("/"))
    parts = urlsplit(endpoint.url)
    if parts.scheme not in {"https", "http"} or parts.query or parts.username is not None:
        raise InvalidConfig(f"an http(s) URL without credentials and query is needed, like {ENDPOINT}")
    return endpoint


def _order(value: object) -> tuple[Step, ...]:
    items = _list(value, ",")
    if not items or len(set(items)) != len(items) or not set(items) <= set(STEPS):
        raise InvalidConfig(f"an order of {', '.join(STEPS)}, each at most once")
    return tuple(step for item in items for step in STEPS if step == item)


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text in {"1", "true", "yes", "on"}:
        return True
    if text in {"0", "false", "no", "off"}:
        return False
    raise InvalidConfig(f"yes or no, not {value!r}")


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise InvalidConfig(f"not a whole number: {value!r}")
    try:
        number = int(value)
    except ValueError:
        raise InvalidConfig(f"not a whole number: {value!r}") from None
    if not 0 <= number <= 1_000_000:
        raise InvalidConfig(f"out of range: {value!r}")
    return number


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise InvalidConfig(f"not a duration: {value!r}")
    return parse_duration(str(value))


def _size(value: object) -> int | None:
    if isinstance(value, str) and value.lower() == "none":
        return None
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise InvalidConfig(f"not a size: {value!r}")
    return parse_size(str(value))


def _trust(value: object) -> Trust:
    if value == "first-use":
        return "first-use"
    if value == "pinned":
        return "pinned"
    raise InvalidConfig(f'"first-use" or "pinned", not {value!r}')


def _link(value: object) -> Link:
    for link in LINKS:
        if value == link:
            return link
    raise InvalidConfig(f"one of {', '.join(LINKS)}, not {value!r}")


SETTINGS: dict[str, Callable[[object], object]] = {
    "home": _path,
    "state": _path,
    "layers": _paths,
    "mirrors": _mirrors,
    "order": _order,
    "offline": _flag,
    "trust": _trust,
    "locks": _flag,
    "max_connections": _count,
    "connections_per_file": _count,
    "jobs": _count,
    "connect_timeout_s": _seconds,
    "read_timeout_s": _seconds,
    "retries": _count,
    "stall_s": _seconds,
    "max_size": _size,
    "catalogs": _paths,
    "locked": _paths,
    "allowed_signers": _path,
    "link": _link,
    "ca_bundle": _path,
    "hub_endpoint": _endpoint,
}
if set(SETTINGS) != {item.name for item in fields(Config)} - {"origins", "hub_token"}:
    raise AssertionError("every setting has its reader")
