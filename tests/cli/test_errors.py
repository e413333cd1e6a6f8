"""Whatever goes wrong is one message: without a traceback, and without a password or token."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from tests.servers import behaviours as does

SECRETS = ("s3cret", "t0ken")
STATUSES = (400, 401, 403, 404, 407, 410, 416, 500)


@pytest.fixture
def check(site, spawn):
    """Run a command line in a process of its own; it must fail, in words."""

    def fail(*arguments, **environ):
        process = spawn(*arguments, env={**os.environ, "WEIGHTSTORE_RETRIES": "0", **environ})
        stdout, stderr = process.communicate(timeout=30)
        told = stdout + stderr
        assert process.returncode not in {0, 1}, told
        assert "Traceback" not in told
        assert not any(secret in told for secret in SECRETS), told
        assert "rror" in stderr
        return told

    return fail


def _with_secrets(url):
    return url.replace("http://", "http://me:s3cret@", 1) + "?token=t0ken"


@pytest.mark.parametrize("status", STATUSES)
def test_a_refusal_is_told_without_credentials(site, check, status):
    check("prefetch", _with_secrets(site.server.serve("/a.bin", b"x", does.status(status))), "--json")


@pytest.mark.parametrize(
    "behaviour",
    [
        does.garbage_status_line(),
        does.reset(after=3),
        does.truncate(after=3),
        does.gzip_encoding(),
        does.redirect("ftp://me:s3cret@example.org/?token=t0ken"),
        does.redirect("http://me:s3cret@127.0.0.1:9/?token=t0ken"),
        does.redirect("http://me:s3cret@[bad/?token=t0ken"),
    ],
    ids=lambda behaviour: behaviour.name,
)
def test_a_bad_answer_is_told_without_credentials(site, check, behaviour):
    check("prefetch", _with_secrets(site.server.serve("/a.bin", b"0123456789", behaviour)))


@pytest.mark.parametrize(
    "command",
    [
        ["path", "URL"],
        ["path", "--json", "URL"],
        ["path", "--fetch", "--offline", "URL"],
        ["path", "--sha256", "zz", "URL"],
        ["prefetch", "--offline", "URL"],
        ["prefetch", "--sha256", "0" * 64, "URL#sha256=11111111"],
        ["prefetch", "URL#md5=0"],
        ["prefetch", "URL#sha256=" + "0" * 64],
        ["prefetch", "--locked", "URL"],
        ["lock", "--offline", "URL"],
        ["lock", "--check", "URL"],
        ["lock", "-o", "URL", "small"],
        ["rm", "-y", "URL"],
        ["rm", "-y", "--json", "URL"],
        ["show", "URL"],
        ["search", "URL"],
        ["verify", "URL"],
        ["gc", "--keep", "URL"],
        ["init", "URL"],
        ["ls", "--home", "URL"],
        ["prefetch", "https://me:s3cret@host:port/?token=t0ken"],
        ["prefetch", "https://me:s3cret@[host/?token=t0ken"],
        ["prefetch", "s3://me:s3cret@bucket/?token=t0ken"],
        ["prefetch", "https://me:s3cret@host/a b?token=t0ken"],
    ],
    ids=lambda command: " ".join(command)[:40],
)
def test_no_command_repeats_credentials(site, check, command):
    url = _with_secrets(site.server.serve("/a.bin", b"0123456789"))
    check(*(one.replace("URL", url) for one in command))


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["path", "./" + "a" * 5000], "no such file"),
        (["rm", "-y", "0" * 64], "is not in"),
        (["rm", "-y", "00000000"], "is not in"),
        (["demo", "--keep", "/proc/1/x"], "/proc/1/x"),
        (["init", ""], "'DIR': It is empty"),
        (["init", "/proc/x"], "/proc/x"),
        (["ls", "--home", ""], "'--home': It is empty"),
        (["lock", "small", "-o", "/nonexistent/x.lock"], "/nonexistent/x.lock: there is no directory"),
        (["lock", "small", "-o", "/"], "Is a directory"),
        (["path", "resnet50\nx"], "no catalog knows"),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, list) else "",
)
def test_strange_input_is_answered_in_words(check, command, message):
    assert message in check(*command)


def test_a_lockfile_that_cannot_be_written_is_no_matter_of_the_store(check):
    told = check("lock", "small", "-o", "/proc/x.lock")
    assert "/proc/x.lock: cannot be written" in told
    assert "WEIGHTSTORE_HOME" not in told


@pytest.mark.parametrize("stream", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("command", ["ls", "doctor", "prefetch other", "verify", "config", "path small", "rm small"])
def test_closed_streams_are_no_trouble(run, command, stream):
    run("prefetch", "small")
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m weightstore {command} {stream}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_a_full_disk_under_the_output_is_one_message(run):
    run("prefetch", "small")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "weightstore", "path", "small"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == "error: what was to be printed could not be written: No space left on device\n"


@pytest.mark.parametrize("variable", ["HOME", "STATE", "LAYERS", "MIRRORS", "CATALOGS", "CONFIG", "CA_BUNDLE"])
@pytest.mark.parametrize("value", ["ftp://me:s3cret@host/?token=t0ken", "https://me:s3cret@[host/?token=t0ken"])
def test_no_setting_is_repeated_with_credentials(check, variable, value):
    check("path", "small", **{f"WEIGHTSTORE_{variable}": value})


def test_a_proxy_that_does_not_answer_is_told_without_its_password(check):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        proxy = f"http://me:s3cret@127.0.0.1:{taken.getsockname()[1]}"
        check("prefetch", "http://example.org/a.bin?token=t0ken", http_proxy=proxy, no_proxy="")
