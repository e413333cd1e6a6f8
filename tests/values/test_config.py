"""Settings: where they come from, which wins, and what is said of those that cannot be used."""

import contextlib
import itertools
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from weightstore.config import (
    CONFIG_LIMIT,
    SETTINGS,
    Config,
    config_files,
    parse_duration,
    parse_size,
    variable_of,
)
from weightstore.errors import InvalidConfig
from weightstore.hub import HubToken
from weightstore.source import Source

# Every setting: a text for the environment, a TOML value, and what both mean.
EVERY_SETTING: dict[str, tuple[str, str, object]] = {
    "home": ("/data/store", '"/data/store"', Path("/data/store")),
    "state": ("/data/state", '"/data/state"', Path("/data/state")),
    "layers": ("/sw/weights:/project", '["/sw/weights", "/project"]', (Path("/sw/weights"), Path("/project"))),
    "mirrors": (
        "https://mirror/w /sw/mirror",
        '["https://mirror/w", "/sw/mirror"]',
        (Source("https://mirror/w"), Source("file:///sw/mirror")),
    ),
    "order": ("mirrors,origin", '["mirrors", "origin"]', ("mirrors", "origin")),
    "offline": ("1", "true", True),
    "trust": ("pinned", '"pinned"', "pinned"),
    "locks": ("off", "false", False),
    "max_connections": ("7", "7", 7),
    "connections_per_file": ("3", "3", 3),
    "jobs": ("2", "2", 2),
    "connect_timeout_s": ("1.5", "1.5", 1.5),
    "read_timeout_s": ("2m", '"2m"', 120.0),
    "retries": ("0", "0", 0),
    "stall_s": ("9", "9", 9.0),
    "max_size": ("20GB", '"20GB"', 20 * 10**9),
    "catalogs": ("/a.json:/b.json", '["/a.json", "/b.json"]', (Path("/a.json"), Path("/b.json"))),
    "allowed_signers": ("/a/signers", '"/a/signers"', Path("/a/signers")),
    "locked": ("/a.lock:/b.lock", '["/a.lock", "/b.lock"]', (Path("/a.lock"), Path("/b.lock"))),
    "link": ("copy", '"copy"', "copy"),
    "ca_bundle": ("/etc/ca.pem", '"/etc/ca.pem"', Path("/etc/ca.pem")),
    "hub_endpoint": ("https://hub.example/hf/", '"https://hub.example/hf"', Source("https://hub.example/hf")),
}
BY_SETTING = pytest.mark.parametrize("name", EVERY_SETTING)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The paths of the user's and the site's configuration file. Neither exists yet."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "user"))
    monkeypatch.setenv("XDG_CONFIG_DIRS", str(tmp_path / "site"))
    user, site = config_files({})
    for path in (user, site):
        path.parent.mkdir(parents=True)
    return user, site


def load(
    environ: Mapping[str, str] | None = None, *, toml: str | bytes | None = None, at: Path | None = None
) -> Config:
    """The configuration of an environment; with ``toml``, that of a file at ``at``, which alone is read."""
    environ = dict(environ or {})
    if toml is not None:
        assert at is not None
        path = at / "settings.toml"
        path.write_bytes(toml if isinstance(toml, bytes) else toml.encode())
        environ["WEIGHTSTORE_CONFIG"] = str(path)
    return Config.from_environ({"WEIGHTSTORE_CONFIG": os.devnull} | environ)


# -- every setting, from every place ----------------------------------------------------------------------------------


def test_every_setting_is_tried_here() -> None:
    assert set(EVERY_SETTING) == set(SETTINGS) == {item.name for item in fields(Config)} - {"origins", "hub_token"}


@BY_SETTING
def test_setting_is_taken_from_the_environment(name: str) -> None:
    text, _, expected = EVERY_SETTING[name]

    config = load({variable_of(name): text})

    assert getattr(config, name) == expected
    assert config.origins == {name: variable_of(name)}
    assert variable_of(name) == f"WEIGHTSTORE_{name.upper()}"


@BY_SETTING
def test_setting_is_taken_from_a_file(name: str, tmp_path: Path) -> None:
    _, toml, expected = EVERY_SETTING[name]

    config = load(toml=f"{name} = {toml}\n", at=tmp_path)

    assert getattr(config, name) == expected
    assert config.origins == {name: str(tmp_path / "settings.toml")}


@BY_SETTING
def test_setting_may_stand_in_a_file_as_it_stands_in_the_environment(name: str, tmp_path: Path) -> None:
    text, _, expected = EVERY_SETTING[name]

    assert getattr(load(toml=f'{name} = "{text}"\n', at=tmp_path), name) == expected


@BY_SETTING
def test_setting_differs_from_its_default(name: str) -> None:
    assert getattr(load(), name) != EVERY_SETTING[name][2]


@BY_SETTING
def test_empty_variable_is_no_setting(name: str) -> None:
    config = load({variable_of(name): ""})

    assert config == load()
    assert config.origins == {}


def test_defaults_need_no_environment_and_no_file(files: tuple[Path, Path], tmp_path: Path) -> None:
    config = Config.from_environ({})

    assert config == Config(home=config.home, state=config.state)
    assert config.origins == {}
    assert config.home != config.state
    assert (config.trust, config.offline, config.locks, config.max_size) == ("first-use", False, True, None)
    assert config.order == ("layers", "mirrors", "origin")


def test_default_directories_are_the_users_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    config = load()

    assert (config.home, config.state) == (tmp_path / "cache" / "weightstore", tmp_path / "state" / "weightstore")


def test_process_environment_is_what_load_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEIGHTSTORE_JOBS", "9")

    assert Config.load().jobs == 9


def test_platformdirs_stays_unimported_where_the_environment_says_it_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "platformdirs", None)  # importing it would raise

    config = load({"WEIGHTSTORE_HOME": "/store", "WEIGHTSTORE_STATE": "/state"})

    assert config.home == Path("/store")


# -- precedence -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "places", [set(one) for n in range(4) for one in itertools.combinations(("env", "user", "site"), n)]
)
def test_environment_wins_over_the_user_over_the_site_over_the_default(
    files: tuple[Path, Path], places: set[str]
) -> None:
    user, site = files
    environ = {"WEIGHTSTORE_JOBS": "11"} if "env" in places else {}
    if "user" in places:
        user.write_text("jobs = 12\n", "utf-8")
    if "site" in places:
        site.write_text("jobs = 13\n", "utf-8")

    config = Config.from_environ(environ)

    strongest = next((place for place in ("env", "user", "site") if place in places), "default")
    assert config.jobs == {"env": 11, "user": 12, "site": 13, "default": 4}[strongest]
    expected = {"env": {"jobs": "WEIGHTSTORE_JOBS"}, "user": {"jobs": str(user)}, "site": {"jobs": str(site)}}
    assert config.origins == expected.get(strongest, {})


def test_places_add_up_setting_by_setting(files: tuple[Path, Path]) -> None:
    user, site = files
    site.write_text('jobs = 13\ntrust = "pinned"\nretries = 1\n', "utf-8")
    user.write_text("jobs = 12\nretries = 2\n", "utf-8")

    config = Config.from_environ({"WEIGHTSTORE_RETRIES": "3"})

    assert (config.jobs, config.trust, config.retries) == (12, "pinned", 3)
    assert config.origins == {"jobs": str(user), "trust": str(site), "retries": "WEIGHTSTORE_RETRIES"}


def test_named_file_stands_in_for_the_users_and_the_sites(files: tuple[Path, Path], tmp_path: Path) -> None:
    for path in files:
        path.write_text("jobs = 12\n", "utf-8")

    assert load(toml="retries = 1\n", at=tmp_path).jobs == 4
    assert Config.from_environ({"WEIGHTSTORE_CONFIG": ""}).jobs == 12


def test_named_file_may_lie_in_the_home_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))

    assert config_files({"WEIGHTSTORE_CONFIG": "~/my.toml"}) == [tmp_path / "my.toml"]


def test_named_file_in_no_home_directory_is_refused_with_its_variable() -> None:
    with pytest.raises(InvalidConfig, match=r"^WEIGHTSTORE_CONFIG: ~nobody-of-this-name/c: there is no such home"):
        Config.from_environ({"WEIGHTSTORE_CONFIG": "~nobody-of-this-name/c"})


def test_file_below_a_file_is_as_good_as_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    assert Config.from_environ({"WEIGHTSTORE_CONFIG": str(tmp_path / "file" / "config.toml")}).origins == {}


def test_some_settings_may_be_replaced_and_their_origins_with_them() -> None:
    config = load({"WEIGHTSTORE_JOBS": "9", "WEIGHTSTORE_OFFLINE": "1"})

    other = config.but(jobs=1, trust="pinned")

    assert (other.jobs, other.trust, other.offline) == (1, "pinned", True)
    assert other.origins == {"offline": "WEIGHTSTORE_OFFLINE"}
    assert config.jobs == 9


def test_replaced_setting_is_checked_and_the_variable_not_blamed() -> None:
    with pytest.raises(InvalidConfig, match=r"^jobs is at least 1$"):
        load({"WEIGHTSTORE_JOBS": "9"}).but(jobs=0)


# -- certificates -----------------------------------------------------------------------------------------------------


def test_openssls_own_variable_names_the_certificates() -> None:
    config = load({"SSL_CERT_FILE": "/etc/site-ca.pem"})

    assert config.ca_bundle == Path("/etc/site-ca.pem")
    assert config.origins == {"ca_bundle": "SSL_CERT_FILE"}


def test_our_own_setting_wins_over_openssls_variable(tmp_path: Path) -> None:
    environ = {"SSL_CERT_FILE": "/etc/site-ca.pem"}

    assert load(environ | {"WEIGHTSTORE_CA_BUNDLE": "/a.pem"}).ca_bundle == Path("/a.pem")
    assert load(environ, toml='ca_bundle = "/b.pem"\n', at=tmp_path).ca_bundle == Path("/b.pem")
    assert load({"SSL_CERT_FILE": ""}).ca_bundle is None


# -- the Hub ----------------------------------------------------------------------------------------------------------


def test_hugging_faces_own_variable_names_the_endpoint() -> None:
    config = load({"HF_ENDPOINT": "https://hub.example/"})

    assert config.hub_endpoint == Source("https://hub.example")
    assert config.origins == {"hub_endpoint": "HF_ENDPOINT"}
    assert load({}).hub_endpoint == Source("https://huggingface.co")
    assert load({"HF_ENDPOINT": ""}).hub_endpoint == Source("https://huggingface.co")


def test_our_own_setting_wins_over_hugging_faces_variable(tmp_path: Path) -> None:
    environ = {"HF_ENDPOINT": "https://hub.example"}

    assert load(environ | {"WEIGHTSTORE_HUB_ENDPOINT": "http://a:80"}).hub_endpoint == Source("http://a:80")
    toml = 'hub_endpoint = "https://b"\n'
    assert load(environ, toml=toml, at=tmp_path).hub_endpoint == Source("https://b")


@pytest.mark.parametrize("text", ["hub.example", "./hub", "file:///hub", "hf://a/b/c", "https://h/?a=b", "https://h#x"])
def test_what_is_no_endpoint_is_refused(text: str) -> None:
    with pytest.raises(InvalidConfig, match=r"^HF_ENDPOINT: hub_endpoint: "):
        load({"HF_ENDPOINT": text})


def test_an_endpoint_with_credentials_is_refused_and_not_shown() -> None:
    with pytest.raises(InvalidConfig, match="without credentials") as caught:
        load({"HF_ENDPOINT": "https://me:s3cret@hub.example"})
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("environ", "place"),
    [
        ({}, "~/.cache/huggingface/token"),
        ({"XDG_CACHE_HOME": "/c"}, "/c/huggingface/token"),
        ({"XDG_CACHE_HOME": "/c", "HF_HOME": "/h"}, "/h/token"),
        ({"HF_HOME": "~/hf"}, "~/hf/token"),
        ({"HF_HOME": "$SCRATCH/${WHO}", "SCRATCH": "/s", "WHO": "me"}, "/s/me/token"),
        ({"HF_HOME": "/h", "HF_TOKEN_PATH": "/run/token"}, "/run/token"),
        ({"HF_TOKEN": " \n"}, "~/.cache/huggingface/token"),
    ],
)
def test_the_file_of_the_hubs_token_is_where_hugging_face_has_it(environ: dict[str, str], place: str) -> None:
    path = os.path.expanduser(place)
    assert load(environ).hub_token == HubToken(path, file=Path(path))
    judged = subprocess.run(
        [sys.executable, "-c", "from huggingface_hub import constants; print(constants.HF_TOKEN_PATH)"],
        env={"HOME": os.environ["HOME"], **environ},
        capture_output=True,
        text=True,
        check=True,
    )
    assert judged.stdout.strip() == path


def test_the_hubs_token_comes_from_the_environment_first() -> None:
    older = {"HUGGING_FACE_HUB_TOKEN": "hf_old"}

    assert load(older).hub_token == HubToken("HUGGING_FACE_HUB_TOKEN", text="hf_old")
    assert load(older | {"HF_TOKEN": "hf_new"}).hub_token == HubToken("HF_TOKEN", text="hf_new")


@pytest.mark.parametrize("value", ["1", "true", "YES", "on"])
def test_no_token_is_sent_where_hugging_face_would_send_none(value: str) -> None:
    assert load({"HF_TOKEN": "hf_x", "HF_HUB_DISABLE_IMPLICIT_TOKEN": value}).hub_token is None
    assert load({"HF_TOKEN": "hf_x", "HF_HUB_DISABLE_IMPLICIT_TOKEN": "0"}).hub_token is not None


def test_the_hubs_token_is_in_no_text_of_the_configuration() -> None:
    assert "s3cret" not in repr(load({"HF_TOKEN": "s3cret"}))


# -- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["1", "true", "TRUE", "yes", "On", " yes "])
def test_flag_is_set(text: str) -> None:
    assert load({"WEIGHTSTORE_OFFLINE": text}).offline is True


@pytest.mark.parametrize("text", ["0", "false", "No", "OFF"])
def test_flag_is_not_set(text: str) -> None:
    assert load({"WEIGHTSTORE_LOCKS": text}).locks is False


def test_relative_path_is_taken_from_the_current_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")

    config = load({"WEIGHTSTORE_HOME": "store", "WEIGHTSTORE_LAYERS": ":~/layer::/sw:"})

    assert config.home == tmp_path / "store"
    assert config.layers == (Path("/home/me/layer"), Path("/sw"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://a/x", ["https://a/x"]),
        ("https://a/x https://b:8443/y", ["https://a/x", "https://b:8443/y"]),
        ("https://a/x,https://b/y", ["https://a/x", "https://b/y"]),
        (" https://a/x,  /data\t/more ", ["https://a/x", "file:///data", "file:///more"]),
        ("https://a/x,1/y", ["https://a/x,1/y"]),
        ("https://user:a,b@host/x", ["https://host/x"]),
    ],
)
def test_mirrors_are_parted_by_blanks_or_by_commas_before_a_url(text: str, expected: list[str]) -> None:
    assert [mirror.display for mirror in load({"WEIGHTSTORE_MIRRORS": text}).mirrors] == expected


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1:7002/site",
        "weights.example.org/site",
        "mirror:8000",
        "localhost/site",
        "[::1]:8000/site",
        "ada:s3cret@weights.example.org/site",
        "oci//ada:s3cret@weights.example.org/site",
        "https:/ada:s3cret@weights.example.org/site",
        "oci:ada:s3cret@weights/site",
        "https://a/x,/sw/weights",
        "https://a/x,127.0.0.1:7002/site",
        "/sw/weights,weights.example.org/site",
    ],
)
def test_mirror_that_looks_like_an_address_and_has_no_scheme_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(InvalidConfig, match=r"WEIGHTSTORE_MIRRORS: mirrors: .*scheme") as caught:
        load({"WEIGHTSTORE_MIRRORS": text})
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("text", ["none", "NONE"])
@pytest.mark.parametrize("name", ["mirrors", "layers", "catalogs", "locked"])
def test_none_in_a_variable_is_an_empty_list_over_that_of_a_file(name: str, text: str, tmp_path: Path) -> None:
    config = load({variable_of(name): text}, toml=f'{name} = ["/sw/x"]\n', at=tmp_path)

    assert getattr(config, name) == ()
    assert config.origins[name] == variable_of(name)


def test_signers_may_stand_in_a_table_of_trust(tmp_path: Path) -> None:
    config = load(toml='offline = true\n[trust]\nallowed_signers = "/etc/signers"\n', at=tmp_path)

    assert (config.allowed_signers, config.trust, config.offline) == (Path("/etc/signers"), "first-use", True)


@pytest.mark.parametrize(
    "toml",
    [
        '[trust]\nallowed_signers = "/a"\npolicy = "pinned"\n',
        "[trust]\n",
        'allowed_signers = "/a"\n[trust]\nallowed_signers = "/b"\n',
    ],
)
def test_another_table_of_trust_is_told_what_to_write(toml: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r'trust = "pinned" and allowed_signers = "…" as settings of their own'):
        load(toml=toml, at=tmp_path)


@pytest.mark.parametrize("name", ["mirror", "v1.0/mirror", "data.d/mirror", "a:b/c", "site/weights.example.org/x"])
def test_names_of_directories_are_no_addresses(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)

    assert [mirror.path for mirror in load({"WEIGHTSTORE_MIRRORS": name}).mirrors] == [tmp_path / name]


def test_mirror_without_a_scheme_is_a_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)

    assert [mirror.path for mirror in load({"WEIGHTSTORE_MIRRORS": "mirror"}).mirrors] == [tmp_path / "mirror"]


def test_mirrors_in_a_file_may_contain_blanks(tmp_path: Path) -> None:
    config = load(toml='mirrors = ["/a b,c", "https://h/x,y"]\n', at=tmp_path)

    assert [mirror.display for mirror in config.mirrors] == ["file:///a%20b,c", "https://h/x,y"]


def test_user_may_go_back_to_a_default_that_the_site_has_changed(files: tuple[Path, Path]) -> None:
    user, site = files
    site.write_text('trust = "pinned"\n', "utf-8")
    user.write_text('trust = "first-use"\n', "utf-8")

    assert Config.from_environ({}).trust == "first-use"


@pytest.mark.parametrize("text", ["none", "NONE"])
def test_size_without_a_limit(text: str, tmp_path: Path) -> None:
    assert load({"WEIGHTSTORE_MAX_SIZE": text}, toml="max_size = 5\n", at=tmp_path).max_size is None


def test_empty_lists_in_a_file_are_lists(tmp_path: Path) -> None:
    config = load(toml="layers = []\nmirrors = []\n", at=tmp_path)

    assert (config.layers, config.mirrors) == ((), ())


# -- values that cannot be used ---------------------------------------------------------------------------------------

WRONG = [
    ("home", "~nobody-of-this-name/x"),
    ("layers", "/a:~nobody-of-this-name/x"),
    ("mirrors", "ftp://bucket"),
    ("mirrors", "https://"),
    ("mirrors", "https://host/x#sha256=deadbeef"),
    ("mirrors", "https://host/x#sha256=1"),
    ("order", "origin,somewhere"),
    ("order", "origin,origin"),
    ("order", ","),
    ("offline", "maybe"),
    ("offline", "2"),
    ("trust", "everything"),
    ("trust", "PINNED"),
    ("locks", "sometimes"),
    ("max_connections", "0"),
    ("max_connections", "-1"),
    ("max_connections", "1000001"),
    ("max_connections", "9" * 5000),
    ("connections_per_file", "0"),
    ("connections_per_file", "many"),
    ("jobs", "0"),
    ("jobs", "1.5"),
    ("connect_timeout_s", "0"),
    ("connect_timeout_s", "soon"),
    ("read_timeout_s", "0s"),
    ("read_timeout_s", "-1"),
    ("stall_s", "0"),
    ("stall_s", "nan"),
    ("retries", "-1"),
    ("max_size", "-5"),
    ("max_size", "big"),
    ("catalogs", "~nobody-of-this-name/x"),
    ("ca_bundle", "~nobody-of-this-name/x"),
]
WRONG_TOML = [
    ("home", "1"),
    ("home", '""'),
    ("home", '"a\\u0000b"'),
    ("home", '["/a"]'),
    ("state", "true"),
    ("layers", "1"),
    ("layers", "[1]"),
    ("layers", '["/a", ["/b"]]'),
    ("layers", '[""]'),
    ("mirrors", "{}"),
    ("mirrors", "[1]"),
    ("order", "[]"),
    ("order", '["origin", 1]'),
    ("offline", "[]"),
    ("trust", "true"),
    ("jobs", "true"),
    ("jobs", "1.0"),
    ("jobs", "0"),
    ("jobs", "[1]"),
    ("stall_s", "true"),
    ("stall_s", "inf"),
    ("stall_s", "0"),
    ("stall_s", "2024-01-31"),
    ("max_size", "true"),
    ("max_size", "1.5"),
    ("max_size", "-1"),
    ("max_size", "[]"),
    ("ca_bundle", "{}"),
]


@pytest.mark.parametrize(("name", "text"), WRONG, ids=[f"{name}={text:.20}" for name, text in WRONG])
def test_wrong_variable_is_named(name: str, text: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        load({variable_of(name): text})
    assert str(caught.value).startswith(f"{variable_of(name)}: {name}")


@pytest.mark.parametrize(("name", "toml"), WRONG_TOML)
def test_wrong_value_in_a_file_is_named_with_the_file(name: str, toml: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig) as caught:
        load(toml=f"{name} = {toml}\n", at=tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'settings.toml'}: {name}")


@pytest.mark.parametrize("key", ["job", "Jobs", "origins", "WEIGHTSTORE_JOBS", "weightstore", "", "__init__"])
def test_unknown_setting_is_refused_with_its_file(key: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=f"settings.toml: no setting is called '{key}'. All settings: weightstore"):
        load(toml=f'"{key}" = 1\n', at=tmp_path)


def test_unknown_variable_of_ours_is_left_alone() -> None:
    assert load({"WEIGHTSTORE_COMPLETE": "bash_source"}) == load()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"jobs = ", "not TOML"),
        (b"jobs = 1\njobs = 2\n", "not TOML"),
        (b'home = "\xff"', "not TOML"),
        (b"jobs = " + b"9" * 5000, "not TOML"),
        (b"layers = " + b"[" * 100_000, "not TOML"),
        (b"#" * (CONFIG_LIMIT + 1), f"larger than {CONFIG_LIMIT} bytes"),
    ],
    ids=["cut", "twice", "latin-1", "huge", "deep", "large"],
)
def test_damaged_file_is_named(data: bytes, reason: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig) as caught:
        load(toml=data, at=tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'settings.toml'}: {reason}")


def test_largest_file_is_read(tmp_path: Path) -> None:
    assert load(toml=b"jobs = 2\n".ljust(CONFIG_LIMIT, b"\n"), at=tmp_path).jobs == 2


def test_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="Is a directory") as caught:
        Config.from_environ({"WEIGHTSTORE_CONFIG": str(tmp_path)})
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    "toml",
    [
        '["https://u:s3cret@h/x", 1]',
        '{a = "https://u:s3cret@h/x"}',
        '["https://u:s3cret@h:port/x"]',
        '["ftp://u:s3cret@h"]',
    ],
)
def test_wrong_mirror_is_refused_without_its_credentials(toml: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"settings\.toml: mirrors: ") as caught:
        load(toml=f"mirrors = {toml}\n", at=tmp_path)
    assert "s3cret" not in str(caught.value)


@given(st.sampled_from(sorted(SETTINGS)), st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
@example("mirrors", "~")
@example("home", "~\x7f")
@example("stall_s", "1e400")
@example("max_size", "infk")
def test_any_text_is_a_setting_or_invalid_with_its_variable(name: str, text: str) -> None:
    said = f"{variable_of(name)}: {name}"
    try:
        load({"WEIGHTSTORE_HOME": "/store", "WEIGHTSTORE_STATE": "/state", variable_of(name): text})
    except InvalidConfig as error:
        said = str(error)
    assert said.startswith(f"{variable_of(name)}: {name}")


@given(
    st.sampled_from(sorted(SETTINGS)),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
        max_leaves=4,
    ),
)
@example("mirrors", ["\ud800"])
@example("layers", ["\0"])
def test_reader_of_a_setting_takes_any_value_or_says_that_it_is_wrong(name: str, value: Any) -> None:
    with contextlib.suppress(InvalidConfig, ValueError):
        SETTINGS[name](value)


# -- sizes and durations ----------------------------------------------------------------------------------------------

UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


@given(st.integers(0, 2**53))
def test_size_is_read_as_it_is_written(size: int) -> None:
    assert parse_size(str(size)) == size


@given(
    st.integers(0, 9999), st.sampled_from(sorted(UNITS)), st.booleans(), st.booleans(), st.sampled_from(["", " ", "  "])
)
def test_size_has_a_unit_in_any_case(number: int, unit: str, upper: bool, byte: bool, blank: str) -> None:
    text = f"{number}{blank}{unit}{'b' if byte else ''}"

    assert parse_size(text.upper() if upper else text) == number * UNITS[unit]


@pytest.mark.parametrize(
    ("text", "size"),
    [("1.5GiB", 3 * 2**29), ("20MB", 20_000_000), (" 0 ", 0), ("0.5k", 500), ("1e3", 1000), ("2.0", 2), ("0.9", 0)],
)
def test_size_may_be_a_fraction_of_a_unit(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        "b",
        "MB",
        "-1",
        "-5MB",
        "1MM",
        "1kim",
        "1ik",
        "1bb",
        "nan",
        "inf",
        "infk",
        "1e400",
        "1,5",
        "one",
        "1x",
        "1 k k",
    ],
)
def test_text_that_is_no_size_is_quoted(text: str) -> None:
    with pytest.raises(InvalidConfig, match="Write it like 20MB") as caught:
        parse_size(text)
    assert repr(text) in str(caught.value)


@given(st.text() | st.from_regex(r"[0-9.]{0,5}\s?[kmgti]{0,3}b?", fullmatch=True))
@example("-0.5")
def test_any_text_is_a_size_or_invalid(text: str) -> None:
    with contextlib.suppress(InvalidConfig):
        assert parse_size(text) >= 0


@given(st.floats(0, 9.9e9))
def test_duration_is_read_as_it_is_written(seconds: float) -> None:
    assert parse_duration(str(seconds)) == seconds
    assert parse_duration(f"{seconds}s") == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("15m", 900),
        ("24h", 86400),
        ("7d", 604800),
        ("1.5h", 5400),
        (" 2M ", 120),
        ("1 h", 3600),
    ],
)
def test_duration_has_a_unit(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "s", "-1", "-1s", "nan", "inf", "infs", "1e10", "1w", "1hh", "soon", "1h30m", "200000d"]
)
def test_text_that_is_no_duration_is_quoted(text: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        parse_duration(text)
    assert repr(text) in str(caught.value)


@given(st.text() | st.from_regex(r"[0-9.]{0,5}\s?[smhd]{0,2}", fullmatch=True))
def test_any_text_is_a_duration_or_invalid(text: str) -> None:
    with contextlib.suppress(InvalidConfig):
        assert 0 <= parse_duration(text) < 1e10
