"""``verify``, ``gc``, ``rm`` and ``lock``."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import termios
import time
import tomllib

import pytest

from weightstore.store.layout import open_layout


def _damage(path):
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    path.chmod(0o444)


def test_verify_of_good_blobs_is_exit_code_0(site, run):
    run("prefetch", "toys/*")
    assert "2 good, 0 bad" in run("verify").stderr


def test_verify_puts_damage_in_quarantine_and_exits_with_5(site, run):
    run("prefetch", "toys/*")
    _damage(site.blob("B"))
    result = run("verify", code=5)
    assert "Small_Weights.B" in result.stdout
    assert site.digest("B") in result.stdout
    assert "verify --repair" in result.stderr
    assert not site.blob("B").exists()
    assert len(list((site.home / "quarantine").glob("*.json"))) == 1
    assert "1 blob, 52.0 kB: 1 good, 0 bad, 1 missing" in run("verify").stderr


def test_repair_fetches_again_what_was_put_aside_earlier(site, run):
    run("prefetch", "toys/*")
    _damage(site.blob("B"))
    run("verify", code=5)
    report = json.loads(run("verify", "--json").stdout)
    assert (report["damaged"], report["missing"]) == (0, 1)
    assert "verify --repair" in run("verify").stderr
    result = run("verify", "--repair")
    assert "repaired   Small_Weights.B" in result.stdout
    assert "1 blob, 52.0 kB: 1 good, 1 repaired, 0 bad" in result.stderr
    assert site.blob("B").read_bytes() == site.data("B")
    assert "2 good, 0 bad\n" in run("verify", "--repair").stderr


def test_repair_of_a_name_looks_into_the_quarantine(site, run):
    run("prefetch", "toys/*")
    for member in "BC":
        _damage(site.blob(member))
    run("verify", code=5)
    assert "1 missing" in run("verify", "small").stderr
    run("verify", "--repair", "small")
    assert site.blob("B").exists()
    assert not site.blob("C").exists()


def test_what_a_hit_put_aside_is_repaired_too(site, run):
    run("prefetch", "small")
    _damage(site.blob("B"))
    run("path", "small", code=4)
    run("verify", "--repair")
    assert site.blob("B").read_bytes() == site.data("B")


def test_what_lies_in_quarantine_and_cannot_be_repaired_is_counted(site, run):
    run("prefetch", "small")
    _damage(site.blob("B"))
    run("verify", code=5)
    site.server.serve(site.url("B").removeprefix(site.server.url("")), b"changed upstream")
    report = json.loads(run("verify", "--repair", "--json", code=5).stdout)
    assert (report["damaged"], report["missing"]) == (0, 1)
    assert not any(blob["repaired"] for blob in report["blobs"])


def test_what_a_layer_has_is_not_missing(site, run, tmp_path, monkeypatch):
    run("prefetch", "small", "--home", tmp_path / "layer")
    run("prefetch", "small")
    _damage(site.blob("B"))
    run("verify", code=5)
    monkeypatch.setenv("WEIGHTSTORE_LAYERS", str(tmp_path / "layer"))
    assert "missing" not in run("verify").stderr


def test_verify_repairs_from_the_recorded_source(site, run):
    run("prefetch", "toys/*")
    _damage(site.blob("B"))
    report = json.loads(run("verify", "--repair", "--json").stdout)
    assert report["damaged"] == 0
    repaired = [one for one in report["blobs"] if one["repaired"]]
    assert [one["digest"] for one in repaired] == [f"sha256:{site.digest('B')}"]
    assert site.blob("B").read_bytes() == site.data("B")


def test_a_repair_that_gets_other_bytes_is_no_repair(site, run):
    run("prefetch", "small")
    _damage(site.blob("B"))
    site.server.serve(site.url("B").removeprefix(site.server.url("")), b"changed upstream")
    run("verify", "--repair", code=5)
    assert not site.blob("B").exists()


def test_a_damaged_blob_without_a_source_cannot_be_repaired(site, run, tmp_path):
    (tmp_path / "x.bin").write_bytes(b"nobody knows where this is from")
    path = run("path", "--fetch", "./x.bin").stdout.strip()
    for ref in (site.home / "refs").iterdir():
        ref.unlink()
    os.chmod(path, 0o644)
    with open(path, "ab") as file:
        file.write(b"!")
    assert "no source is recorded" in run("verify", "--repair", code=5).stderr


def test_verify_of_names_looks_at_those_alone(site, run):
    run("prefetch", "toys/*")
    _damage(site.blob("C"))
    assert "1 blob, 51.0 kB: 1 good, 0 bad" in run("verify", "small").stderr
    assert site.blob("C").exists()
    run("verify", "Small_Weights.A", code=4)


def test_verify_checks_layers_when_asked_and_changes_nothing_there(site, run, tmp_path, monkeypatch):
    layer = tmp_path / "layer"
    run("prefetch", "other", "--home", layer)
    monkeypatch.setenv("WEIGHTSTORE_LAYERS", str(layer))
    blob = layer / "blobs" / "sha256" / site.digest("C")
    _damage(blob)
    run("verify")
    run("verify", "--layers", code=5)
    assert blob.exists()


def test_gc_removes_exactly_what_the_dry_run_prints(site, run):
    run("prefetch", "toys/*")
    for ref in (site.home / "refs").iterdir():
        ref.unlink()
    planned = json.loads(run("gc", "--dry-run", "--grace", "0s", "--json").stdout)
    assert planned["dry_run"] is True
    assert {one["digest"] for one in planned["removals"]} == {f"sha256:{site.digest(one)}" for one in "BC"}
    assert site.blob("B").exists()
    done = json.loads(run("gc", "--grace", "0s", "--json").stdout)
    assert [one["path"] for one in done["removals"]] == [one["path"] for one in planned["removals"]]
    assert all(one["removed"] for one in done["removals"])
    assert not site.blob("B").exists()


def test_gc_leaves_what_is_named_recent_or_locked(site, run):
    run("lock", "small")
    run("prefetch", "other")
    assert "0 files" in run("gc", "--grace", "0s").stderr
    for ref in (site.home / "refs").iterdir():
        ref.unlink()
    assert "0 files" in run("gc").stderr
    run("gc", "--grace", "0s", "--keep", "weights.lock")
    assert site.blob("B").exists()
    assert not site.blob("C").exists()


def test_gc_beyond_a_size_removes_the_least_recently_used(site, run):
    run("prefetch", "toys/*")
    later = time.time() + 60
    os.utime(site.blob("B"), (later, later))
    result = run("gc", "--grace", "0s", "--max-size", "60kB")
    assert "least recently used" in result.stdout
    assert site.blob("B").exists()
    assert not site.blob("C").exists()


def test_gc_without_a_store_has_nothing_to_do(run):
    assert "there is no store" in run("gc").stderr
    run("gc", "--keep", "absent.lock", code=8)


def test_rm_removes_the_blob_and_keeps_the_memory_of_its_digest(site, run):
    run("prefetch", "small")
    result = run("rm", "-y", "small")
    assert result.stderr == f"removed small  sha256:{site.digest('B')}  51.0 kB\n"
    assert not site.blob("B").exists()
    assert len(list((site.home / "refs").iterdir())) == 1


def test_rm_forgets_when_told_to_also_without_a_blob(site, run):
    url = site.server.serve("/unpinned.bin", b"first")
    run("prefetch", url)
    run("rm", "-y", url)
    site.server.serve("/unpinned.bin", b"second")
    assert "rm --forget" in run("prefetch", url, code=5).stderr
    result = run("rm", "-y", "--forget", url, "--json")
    (removed,) = json.loads(result.stdout)["removed"]
    assert removed["forgotten"] == [url]
    assert removed["removed"] is False
    assert result.stderr == f"forgotten {url}\n"
    run("prefetch", url)


def test_rm_takes_the_beginning_of_a_digest(site, run):
    run("prefetch", "toys/*")
    run("rm", "-y", site.digest("B")[:10])
    run("rm", "-y", f"sha256:{site.digest('C')}")
    assert not site.blob("B").exists()
    assert not site.blob("C").exists()


def test_rm_of_what_is_not_there(site, run, tmp_path, monkeypatch):
    assert "there is no store" in run("rm", "small", code=4).stderr
    run("init")
    told = run("rm", "-y", "small", code=4).stderr
    assert f"small is not in {site.home}" in told
    assert "offline" not in told
    run("rm", "-y", "no-such-name", code=3)
    assert "weightstore ls" in run("rm", "-y", "resnet50", code=4).stderr
    run("rm", "-y", "0" * 64, code=4)


def test_rm_of_one_blob_by_two_names_removes_it_once(site, run):
    run("prefetch", "small")
    assert run("rm", "-y", "small", "Small_Weights.B").stderr.count("removed") == 1


def test_rm_by_one_source_keeps_what_another_leads_to(site, run):
    first, second = (site.server.serve(f"/{name}.bin", b"same" * 5000) for name in ("first", "second"))
    run("prefetch", first, second)
    (one,) = json.loads(run("ls", "--json").stdout)["blobs"]
    (done,) = json.loads(run("rm", "-y", first, "--json").stdout)["removed"]
    assert (done["removed"], done["forgotten"], done["also_known_as"]) == (False, [first], [second])
    run("path", second, "--offline")
    run("path", first, "--offline", code=4)
    told = run("rm", "-y", first, code=4).stderr
    assert f"{first} is not in" in told
    run("prefetch", first)
    told = run("rm", "-y", first).stderr
    assert f"kept {one['digest']}: also known as {second}" in told
    assert f"weightstore rm {one['digest']}" in told
    assert "removed" in run("rm", "-y", second).stderr
    assert json.loads(run("ls", "--json").stdout)["blobs"] == []


@pytest.mark.parametrize("how", ["both", "digest"])
def test_rm_by_all_sources_or_by_the_digest_removes_a_blob(site, run, how):
    urls = [site.server.serve(f"/{name}.bin", b"same" * 5000) for name in ("first", "second")]
    run("prefetch", *urls)
    (one,) = json.loads(run("ls", "--json").stdout)["blobs"]
    told = run("rm", "-y", *(urls if how == "both" else [one["digest"]])).stderr
    assert told.startswith("removed")
    assert "kept" not in told
    assert json.loads(run("ls", "--json").stdout)["blobs"] == []
    assert len(list((site.home / "refs").iterdir())) == 2


@pytest.mark.parametrize("answer", [b"n\n", b"\x04", b"\x03"])
def test_rm_removes_nothing_unless_told_to(site, run, spawn, answer):
    run("prefetch", "small")
    leader, follower = pty.openpty()
    process = spawn("rm", "small", stdin=follower, stderr=follower, start_new_session=True, preexec_fn=_own_terminal)
    os.close(follower)
    asked = b""
    while b"Remove?" not in asked:
        asked += os.read(leader, 1024)
    deadline = time.monotonic() + 20
    while process.poll() is None and time.monotonic() < deadline:
        # Again, as people do: a signal just before Python reads from a terminal waits for the read.
        os.write(leader, answer)
        time.sleep(0.5)
    assert process.wait(timeout=1) == 1
    told = os.read(leader, 4096).decode()
    os.close(leader)
    process.communicate()
    assert "nothing removed" in told
    assert site.blob("B").exists()


def _own_terminal():
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def test_rm_leaves_layers_alone(site, run, tmp_path, monkeypatch):
    layer = tmp_path / "layer"
    run("prefetch", "other", "--home", layer)
    run("init")
    monkeypatch.setenv("WEIGHTSTORE_LAYERS", str(layer))
    assert "read-only layer" in run("rm", "-y", "other", code=8).stderr
    assert (layer / "blobs" / "sha256" / site.digest("C")).exists()


def test_rm_never_follows_a_link_out_of_the_store(site, run, tmp_path):
    run("prefetch", "small")
    precious = tmp_path / "precious"
    precious.write_bytes(site.data("B"))
    site.blob("B").unlink()
    site.blob("B").symlink_to(precious)
    run("rm", "-y", site.digest("B"))
    assert precious.exists()
    assert not site.blob("B").is_symlink()


def test_lock_writes_full_digests_and_sizes(site, run, tmp_path):
    result = run("lock", "small", site.url("C"))
    assert "weights.lock: written, 2 entries, 103.0 kB" in result.stderr
    locked = tomllib.loads((tmp_path / "weights.lock").read_text())["weights"]
    assert {entry["name"]: entry["digest"] for entry in locked} == {
        "toys/Small_Weights.B": f"sha256:{site.digest('B')}",
        site.url("C"): f"sha256:{site.digest('C')}",
    }
    assert "unchanged" in run("lock", "small").stderr


def test_lock_merges_and_updates_only_when_told_to(site, run, tmp_path):
    run("lock", "small", "-o", "one.lock")
    text = (tmp_path / "one.lock").read_text()
    (tmp_path / "one.lock").write_text(text.replace(site.digest("B"), "0" * 64))
    assert "--update" in run("lock", "small", "-o", "one.lock", code=5).stderr
    run("lock", "-o", "one.lock", "--update")
    assert (tmp_path / "one.lock").read_text() == text


def test_lock_that_fails_to_fetch_writes_nothing(site, run, tmp_path):
    assert "was not written" in run("lock", "small", "--offline", code=4).stderr
    assert not (tmp_path / "weights.lock").exists()
    run("lock", code=2)


def test_lock_check_finds_drift_and_what_is_not_locked(site, run, tmp_path):
    run("lock", "small", "--json")
    assert "agrees" in run("lock", "--check").stderr
    assert "agrees" in run("lock", "--check", "small").stderr
    assert "other" in run("lock", "--check", "other", code=5).stderr.lower()
    site.catalog.write_text(site.catalog.read_text().replace(site.digest("B")[:8], "0" * 8))
    run("lock", "--check", code=5)
    run("lock", "--check", "-o", "absent.lock", code=8)


@pytest.mark.parametrize("command", ["verify", "gc", "ls"])
def test_something_that_is_not_a_store_is_refused(site, run, command):
    site.home.mkdir()
    (site.home / "store.json").write_text('{"layout": 99, "sharing": "private"}')
    assert "layout 99" in run(command, code=8).stderr
    assert (site.home / "store.json").exists()


def test_a_store_in_use_keeps_its_layout(site, run):
    run("prefetch", "small")
    assert open_layout(site.home) is not None
