"""Fixtures and rules for all tests: the user's own settings do not leak in, and missing programs are said aloud."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.servers.emulators import BIN
from weightstore.config import Config
from weightstore.store.layout import Layout, create_layout
from weightstore.store.receipts import Receipts


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for mark in item.iter_markers("needs"):
            missing = [program for program in mark.args if not _is_there(program)]
            if missing:
                item.add_marker(pytest.mark.skip(reason=f"needs {', '.join(missing)}"))


def _is_there(program: str) -> bool:
    if program == "root":
        return os.geteuid() == 0
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:{BIN}") is not None


# What cannot be there in CI either: it runs as root, for the tests that need several users.
_MAY_BE_SKIPPED = ("root may ",)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """In CI every program and package is installed, so a test that is skipped is a failure of the set-up."""
    if os.environ.get("CI") and (skipped := _skipped(terminalreporter)):
        terminalreporter.section("skipped in CI, which is an error")
        for line in skipped:
            terminalreporter.write_line(line)


def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter is not None and _skipped(reporter) and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _skipped(reporter: pytest.TerminalReporter) -> list[str]:
    found = []
    for report in reporter.stats.get("skipped", ()):
        reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
        if not reason.removeprefix("Skipped: ").startswith(_MAY_BE_SKIPPED):
            found.append(f"{report.nodeid}: {reason}")
    return found


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Take the user's settings, proxies and caches out of the way."""
    for name in list(os.environ):
        if (
            name.startswith(("WEIGHTSTORE_", "HF_", "HUGGING", "AWS_", "AZURE_", "GOOGLE_", "GCE_"))
            or name.lower().endswith("_proxy")
            or name in {"SSL_CERT_FILE", "NETRC"}
        ):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A new private store."""
    return create_layout(tmp_path / "store")


@pytest.fixture
def receipts(tmp_path: Path) -> Receipts:
    return Receipts(tmp_path / "state")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Settings of a user with a store and a state directory of their own, who does not wait long."""
    return Config(home=tmp_path / "store", state=tmp_path / "state", read_timeout_s=5, connect_timeout_s=5)
