"""torch.hub under the hook: the same arguments, results and files, and nothing that was not verified."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import io
import os
import stat
import threading
import zipfile
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torch.hub
import torch.utils.model_zoo
from torch.hub import download_url_to_file, load_state_dict_from_url

import weightstore
from tests.interop.conftest import Checkpoint, Place, saved
from weightstore.errors import DigestMismatch, NotPresent, TransferError


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return list(left) == list(right) and all(torch.equal(left[name], right[name]) for name in left)


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.marker),)


# -- what comes back, and what lies there -----------------------------------------------------------------------------


def test_a_function_bound_before_is_served_and_the_file_is_there(place: Place, net: Checkpoint) -> None:
    with weightstore.enabled():
        state = load_state_dict_from_url(net.url, progress=False)

    assert same(state, net.state)
    assert (place.checkpoints / net.name).read_bytes() == net.data
    assert (place.store / "blobs" / "sha256" / net.digest).exists()


def test_it_is_downloaded_once_for_all_callers(place: Place, net: Checkpoint) -> None:
    with weightstore.enabled():
        load_state_dict_from_url(net.url, progress=False)
        torch.utils.model_zoo.load_url(net.url, model_dir=str(place.torch_home / "other"), progress=False)
        download_url_to_file(net.url, str(place.torch_home / "third.pth"), progress=False)

    assert place.bodies(net) == 1
    assert (place.torch_home / "other" / net.name).read_bytes() == net.data
    assert (place.torch_home / "third.pth").read_bytes() == net.data


def test_everything_is_as_before_when_it_is_off(place: Place, net: Checkpoint) -> None:
    code = torch.hub.load_state_dict_from_url.__code__
    with weightstore.enabled():
        assert torch.hub.load_state_dict_from_url.__code__ is not code
    assert torch.hub.load_state_dict_from_url.__code__ is code

    load_state_dict_from_url(net.url, progress=False)

    assert not place.store.exists()
    assert not (place.checkpoints / net.name).is_symlink()


def test_the_signatures_stay() -> None:
    before = [inspect.signature(one) for one in (load_state_dict_from_url, download_url_to_file)]
    with weightstore.enabled():
        assert [inspect.signature(one) for one in (load_state_dict_from_url, download_url_to_file)] == before


def test_file_name_and_model_dir_are_used(place: Place, net: Checkpoint, tmp_path: Path) -> None:
    with weightstore.enabled():
        load_state_dict_from_url(net.url, str(tmp_path / "mine"), progress=False, file_name="a name.bin")

    assert (tmp_path / "mine" / "a name.bin").read_bytes() == net.data
    assert not place.checkpoints.exists()


def test_map_location_is_used(net: Checkpoint) -> None:
    with weightstore.enabled():
        state = load_state_dict_from_url(net.url, map_location="meta", progress=False)

    assert {value.device.type for value in state.values()} == {"meta"}


def test_what_is_changed_in_memory_changes_no_blob(place: Place, net: Checkpoint) -> None:
    with weightstore.enabled():
        for _ in range(2):
            state = load_state_dict_from_url(net.url, progress=False)
            state["weight"].zero_()

    assert (place.store / "blobs" / "sha256" / net.digest).read_bytes() == net.data


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_a_downloaded_file_has_the_permissions_of_the_umask(net: Checkpoint, tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        with weightstore.enabled():
            download_url_to_file(net.url, str(tmp_path / "file.pth"), progress=False)
        with weightstore.enabled(link="copy"):
            load_state_dict_from_url(net.url, str(tmp_path), progress=False)
    finally:
        os.umask(before)

    for name in ("file.pth", net.name):
        found = os.lstat(tmp_path / name)
        assert stat.S_ISREG(found.st_mode)
        assert found.st_mode & 0o777 == 0o666 & ~mask


def test_what_was_downloaded_may_be_written_to(place: Place, net: Checkpoint, tmp_path: Path) -> None:
    with weightstore.enabled():
        download_url_to_file(net.url, str(tmp_path / "file.pth"), progress=False)
    (tmp_path / "file.pth").write_bytes(b"mine")

    assert (place.store / "blobs" / "sha256" / net.digest).read_bytes() == net.data


def test_others_who_share_the_cache_get_a_file_that_they_can_read(place: Place, net: Checkpoint) -> None:
    place.checkpoints.mkdir(parents=True)
    place.checkpoints.chmod(0o777)
    with weightstore.enabled():
        load_state_dict_from_url(net.url, progress=False)

    assert not (place.checkpoints / net.name).is_symlink()


def test_a_cache_that_cannot_be_written_is_done_without(
    place: Place, net: Checkpoint, caplog: pytest.LogCaptureFixture
) -> None:
    place.checkpoints.mkdir(parents=True)
    (place.checkpoints / net.name).mkdir()  # root may write anywhere, but not over a directory
    with weightstore.enabled(), pytest.raises(weightstore.WeightStoreError, match="is not a file"):
        load_state_dict_from_url(net.url, progress=False)
    (place.checkpoints / net.name).rmdir()
    os.symlink(place.torch_home / "nowhere" / "x", place.checkpoints / net.name)
    with weightstore.enabled():
        assert same(load_state_dict_from_url(net.url, progress=False), net.state)
    assert not caplog.records


def test_progress_says_what_torch_hub_says(place: Place, net: Checkpoint, capsys: pytest.CaptureFixture[str]) -> None:
    with weightstore.enabled():
        load_state_dict_from_url(net.url)
        first = capsys.readouterr().out
        load_state_dict_from_url(net.url)

    assert first == f'Downloading: "{net.url}" to {place.checkpoints / net.name}\n'
    assert capsys.readouterr().out == ""


def test_the_old_zip_format_is_loaded(place: Place) -> None:
    state = {"weight": torch.ones(3)}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("inner.pth", saved(state, legacy=True))
    url = place.server.serve("/old.zip", file.getvalue())
    with weightstore.enabled(), pytest.warns(FutureWarning, match="old format"):
        loaded = load_state_dict_from_url(url, progress=False)

    assert same(loaded, state)


def test_the_legacy_format_is_loaded(place: Place) -> None:
    old = place.serve({"weight": torch.ones(3)}, legacy=True)
    with weightstore.enabled():
        assert same(load_state_dict_from_url(old.url, progress=False), old.state)


def test_a_file_source_works(tmp_path: Path) -> None:
    (tmp_path / "net.pth").write_bytes(saved({"weight": torch.ones(2)}))
    with weightstore.enabled():
        state = load_state_dict_from_url((tmp_path / "net.pth").as_uri(), progress=False)
    assert torch.equal(state["weight"], torch.ones(2))


# -- what is verified -------------------------------------------------------------------------------------------------


def test_a_malicious_file_in_the_cache_is_put_aside_and_told(
    place: Place, net: Checkpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place.checkpoints.mkdir(parents=True)
    wrong = saved({"weight": Evil(tmp_path / "ran")})
    (place.checkpoints / net.name).write_bytes(wrong)
    with weightstore.enabled():
        state = load_state_dict_from_url(net.url, progress=False)

    assert same(state, net.state)
    assert not (tmp_path / "ran").exists()
    (aside,) = place.checkpoints.glob("*.wrong-*")
    assert aside.read_bytes() == wrong
    assert (place.checkpoints / net.name).read_bytes() == net.data
    (told,) = caplog.messages
    assert "It was not loaded" in told
    assert net.name in told


def test_the_same_file_runs_without_the_hook(place: Place, net: Checkpoint, tmp_path: Path) -> None:
    """The attack is real: it is what torch.hub does by itself."""
    place.checkpoints.mkdir(parents=True)
    (place.checkpoints / net.name).write_bytes(saved({"weight": Evil(tmp_path / "ran")}))

    load_state_dict_from_url(net.url, progress=False, check_hash=True)

    assert (tmp_path / "ran").exists()


def test_a_malicious_file_that_nothing_is_known_of_does_not_run(place: Place, tmp_path: Path) -> None:
    place.checkpoints.mkdir(parents=True)
    (place.checkpoints / "unknown.pth").write_bytes(saved({"weight": Evil(tmp_path / "ran")}))
    with weightstore.enabled(), pytest.raises(Exception, match=r"(?i)weights_only"):
        load_state_dict_from_url("http://127.0.0.1:9/unknown.pth", progress=False)

    assert not (tmp_path / "ran").exists()


def test_a_caller_may_still_ask_for_a_pickle(place: Place, tmp_path: Path) -> None:
    url = place.server.serve("/whole.pth", saved({"weight": Evil(tmp_path / "ran")}))
    with weightstore.enabled():
        load_state_dict_from_url(url, progress=False, weights_only=False)

    assert (tmp_path / "ran").exists()


def test_a_right_file_in_the_cache_is_used_where_it_lies(place: Place, net: Checkpoint) -> None:
    place.checkpoints.mkdir(parents=True)
    (place.checkpoints / net.name).write_bytes(net.data)
    with weightstore.enabled(offline=True):
        assert same(load_state_dict_from_url(net.url, progress=False), net.state)

    assert not place.store.exists()
    assert not (place.checkpoints / net.name).is_symlink()


def test_a_file_without_a_pin_is_recorded_when_it_is_first_found(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    net = place.serve({"weight": torch.ones(2)}, pinned=False)
    place.checkpoints.mkdir(parents=True)
    cached = place.checkpoints / net.name
    cached.write_bytes(saved({"weight": torch.zeros(2)}))
    with weightstore.enabled():
        first = load_state_dict_from_url(net.url, progress=False)
        cached.write_bytes(saved({"weight": torch.full((2,), 7.0)}))
        second = load_state_dict_from_url(net.url, progress=False)

    assert torch.equal(first["weight"], torch.zeros(2))
    assert same(second, net.state)
    assert len(list(place.checkpoints.glob("*.wrong-*"))) == 1
    assert "is expected" in caplog.text


def test_a_file_that_differs_from_the_stores_record_is_put_aside(place: Place) -> None:
    net = place.serve({"weight": torch.ones(2)}, pinned=False)
    with weightstore.enabled(link="copy"):
        load_state_dict_from_url(net.url, progress=False)
        (place.checkpoints / net.name).write_bytes(saved({"weight": torch.zeros(2)}))
        assert same(load_state_dict_from_url(net.url, progress=False), net.state)

    assert place.bodies(net) == 1
    assert (place.checkpoints / net.name).read_bytes() == net.data


def test_a_server_that_serves_other_bytes_is_refused(place: Place) -> None:
    url = place.server.serve("/net-deadbeef.pth", saved({"weight": torch.ones(2)}))
    with weightstore.enabled(), pytest.raises(DigestMismatch):
        load_state_dict_from_url(url, progress=False)

    assert not (place.checkpoints / "net-deadbeef.pth").exists()


def test_check_hash_is_compared_as_torch_hub_does(place: Place, tmp_path: Path) -> None:
    net = place.serve({"weight": torch.ones(2)}, pinned=False)
    right, wrong = net.digest[:4], "0" if net.digest[0] != "0" else "1"
    with weightstore.enabled():
        load_state_dict_from_url(net.url, file_name=f"a-{right}.pth", check_hash=True, progress=False)
        with pytest.raises(RuntimeError, match=f'invalid hash value \\(expected "{wrong}"'):
            load_state_dict_from_url(net.url, file_name=f"b-{wrong}.pth", check_hash=True, progress=False)
        with pytest.raises(RuntimeError, match="invalid hash value"):
            download_url_to_file(net.url, str(tmp_path / "c.pth"), hash_prefix=wrong, progress=False)


def test_a_locked_digest_counts_over_digits_in_the_name(place: Place, net: Checkpoint, tmp_path: Path) -> None:
    other = saved({"weight": torch.full((2,), 3.0)})
    url = place.server.serve("/net-deadbeef.pth", other)
    digest = weightstore.Digest(hashlib.sha256(other).hexdigest())
    lockfile = tmp_path / "weights.lock"
    entry = weightstore.Locked("net", weightstore.Source(url), digest, len(other))
    weightstore.Lockfile((entry,)).write(lockfile)
    with weightstore.enabled(locked=lockfile):
        state = load_state_dict_from_url(url, progress=False)
        checked = load_state_dict_from_url(url, progress=False, check_hash=True)
        with pytest.raises(RuntimeError, match="invalid hash value"):
            load_state_dict_from_url(url, progress=False, check_hash=True, file_name="other-deadbeef.pth")

    assert torch.equal(state["weight"], torch.full((2,), 3.0))
    assert torch.equal(checked["weight"], torch.full((2,), 3.0))
    assert (place.store / "blobs" / "sha256" / digest.hex).exists()


def test_two_urls_of_one_name_are_not_taken_for_each_other(
    place: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = ({"weight": torch.full((2,), value)} for value in (1.0, 2.0))
    urls = [
        place.server.serve(f"/{folder}/net.pth", saved(state))
        for folder, state in zip("ab", (first, second), strict=True)
    ]
    for link in ("symlink", "copy"):
        with weightstore.enabled(link=link, record=tmp_path / f"{link}.lock"):  # type: ignore[arg-type]
            loaded = [load_state_dict_from_url(url, progress=False) for url in (*urls, *urls)]
        assert all(same(*pair) for pair in zip(loaded, (first, second) * 2, strict=True))
        locked = weightstore.Lockfile.read(tmp_path / f"{link}.lock").entries
        assert len({entry.digest for entry in locked}) == 2
        place.state.joinpath("receipts").unlink(missing_ok=True)
    assert caplog.records


def test_offline_the_file_of_another_url_is_not_used(place: Place) -> None:
    url = place.server.serve("/a/net.pth", saved({"weight": torch.ones(2)}))
    with weightstore.enabled():
        load_state_dict_from_url(url, progress=False)
    with weightstore.enabled(offline=True), pytest.raises(NotPresent, match="another URL"):
        load_state_dict_from_url(place.server.url("/b/net.pth"), progress=False)


def test_a_file_that_was_found_for_one_url_is_not_taken_for_another(place: Place) -> None:
    first = place.server.url("/a/net.pth")  # which nobody serves: only the file is there
    second = place.server.serve("/b/net.pth", saved({"weight": torch.full((2,), 2.0)}))
    place.checkpoints.mkdir(parents=True)
    (place.checkpoints / "net.pth").write_bytes(saved({"weight": torch.full((2,), 1.0)}))
    with weightstore.enabled():
        found = load_state_dict_from_url(first, progress=False)
        fetched = load_state_dict_from_url(second, progress=False)

    assert torch.equal(found["weight"], torch.full((2,), 1.0))
    assert torch.equal(fetched["weight"], torch.full((2,), 2.0))


def test_a_damaged_record_of_what_was_found_is_told(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    url = "http://127.0.0.1:9/net.pth"
    place.checkpoints.mkdir(parents=True)
    (place.checkpoints / "net.pth").write_bytes(saved({"weight": torch.ones(2)}))
    with weightstore.enabled():
        load_state_dict_from_url(url, progress=False)
    (record,) = (place.state / "found").iterdir()
    record.write_text("nonsense")
    with weightstore.enabled():
        load_state_dict_from_url(url, progress=False)

    assert "damaged ref" in caplog.text


def test_a_download_replaces_whatever_was_there(place: Place, net: Checkpoint, tmp_path: Path) -> None:
    other = place.serve({"weight": torch.zeros(7)}, pinned=False, name="other")
    destination = tmp_path / "file.pth"
    destination.touch()  # as NamedTemporaryFile does
    with weightstore.enabled():
        for checkpoint in (net, other, net, other):
            download_url_to_file(checkpoint.url, str(destination), progress=False)
            assert destination.read_bytes() == checkpoint.data
    assert [path.name for path in tmp_path.glob("file*")] == ["file.pth"]


def test_a_download_leaves_no_link_to_the_blob(place: Place, net: Checkpoint, tmp_path: Path) -> None:
    with weightstore.enabled(link="symlink"):
        load_state_dict_from_url(net.url, str(tmp_path), progress=False)
        assert (tmp_path / net.name).is_symlink()
        download_url_to_file(net.url, str(tmp_path / net.name), progress=False)
    assert not (tmp_path / net.name).is_symlink()


@pytest.mark.parametrize("digits", ["00000000", "0000"])
def test_what_fails_its_check_is_put_nowhere(place: Place, tmp_path: Path, digits: str) -> None:
    net = place.serve({"weight": torch.ones(2)}, pinned=False)
    working = tmp_path / "working.pth"
    working.write_bytes(b"works")
    with weightstore.enabled():
        with pytest.raises(RuntimeError, match="invalid hash value"):
            download_url_to_file(net.url, str(working), hash_prefix=digits, progress=False)
        with pytest.raises(RuntimeError, match="invalid hash value"):
            load_state_dict_from_url(net.url, file_name=f"x-{digits}.pth", check_hash=True, progress=False)

    assert working.read_bytes() == b"works"
    assert not (place.checkpoints / f"x-{digits}.pth").exists()


def test_digits_in_a_given_file_name_are_a_pin(place: Place, net: Checkpoint) -> None:
    unpinned = place.server.serve("/current.pth", net.data)
    place.checkpoints.mkdir(parents=True)
    name = f"mine-{net.digest[:8]}.pth"
    (place.checkpoints / name).write_bytes(saved({"weight": torch.zeros(1)}))
    with weightstore.enabled():
        assert same(load_state_dict_from_url(unpinned, file_name=name, progress=False), net.state)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://127.0.0.1:9/my net-deadbeef.pth", None),
        ("http://127.0.0.1:9/a|b-deadbeef.pth", None),
        ("http://127.0.0.1:9/?id=3", "q-deadbeef.pth"),
        ("ftp://127.0.0.1:9/net-deadbeef.pth", None),
    ],
)
def test_the_attack_fails_by_whatever_url(place: Place, tmp_path: Path, url: str, name: str | None) -> None:
    place.checkpoints.mkdir(parents=True)
    cached = place.checkpoints / (name or url.rpartition("/")[2])
    cached.write_bytes(saved({"weight": Evil(tmp_path / "ran")}))
    with weightstore.enabled(offline=True), pytest.raises(URLError):
        load_state_dict_from_url(url, file_name=name, progress=False)
    assert not (tmp_path / "ran").exists()
    assert not cached.exists()


def test_a_compressed_archive_is_loaded(place: Place) -> None:
    state = {"weight": torch.arange(4.0)}
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(saved(state))) as before, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as after:
        for member in before.infolist():
            after.writestr(member.filename, before.read(member), zipfile.ZIP_DEFLATED)
    url = place.server.serve("/small.pth", file.getvalue())
    with weightstore.enabled():
        assert same(load_state_dict_from_url(url, progress=False), state)


def test_a_file_that_others_may_write_to_is_loaded_as_it_was_hashed(place: Place, net: Checkpoint) -> None:
    place.checkpoints.mkdir(parents=True)
    cached = place.checkpoints / net.name
    cached.write_bytes(net.data)
    cached.chmod(0o666)
    with weightstore.enabled(offline=True):
        assert same(load_state_dict_from_url(net.url, progress=False), net.state)


# -- offline, errors, and what is left alone --------------------------------------------------------------------------


def test_offline_what_is_missing_says_what_to_run(place: Place) -> None:
    with weightstore.enabled(offline=True), pytest.raises(URLError) as caught:
        load_state_dict_from_url("https://example.org/net-12345678.pth", progress=False)

    assert isinstance(caught.value, NotPresent)
    assert "weightstore prefetch 'https://example.org/net-12345678.pth'" in str(caught.value)
    assert str(place.store) in str(caught.value.reason)


def test_a_failed_download_is_an_url_error_too(place: Place) -> None:
    url = place.server.url("/absent.pth")
    with weightstore.enabled(), pytest.raises(URLError) as caught:
        load_state_dict_from_url(url, progress=False)

    assert isinstance(caught.value, TransferError)
    assert "404" in str(caught.value)


def test_what_is_no_weights_goes_its_way(place: Place, tmp_path: Path) -> None:
    url = place.server.serve("/archive.zip", b"PK")
    with weightstore.enabled():
        download_url_to_file(url, str(tmp_path / "archive.zip"), progress=False)

    assert (tmp_path / "archive.zip").read_bytes() == b"PK"
    assert not place.store.exists()


def test_offline_what_is_no_weights_is_forbidden_beyond_this_machine(tmp_path: Path) -> None:
    with weightstore.enabled(offline=True), pytest.raises(URLError, match="offline mode forbids"):
        download_url_to_file("https://user:secret@example.org/archive.zip", str(tmp_path / "x"), progress=False)


def test_a_function_of_another_signature_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def load_state_dict_from_url(url: str, *, model_dir: str = "", novelty: bool = False) -> str:
        return url

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", load_state_dict_from_url)
    with weightstore.enabled():
        assert torch.hub.load_state_dict_from_url("x") == "x"  # type: ignore[comparison-overlap]

    assert "torch.hub.load_state_dict_from_url is left alone: it has no parameter" in caplog.text


def test_a_mock_is_left_alone(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda: "mocked")
    with weightstore.enabled():
        assert torch.hub.download_url_to_file() == "mocked"  # type: ignore[call-arg]
    assert "is left alone" in caplog.text


# -- on and off -------------------------------------------------------------------------------------------------------


def test_nested_settings_return_to_the_outer_one(place: Place, net: Checkpoint) -> None:
    weightstore.enable(offline=True)
    with weightstore.enabled(offline=False):
        load_state_dict_from_url(net.url, progress=False)
    missing = place.serve({"weight": torch.zeros(9)})

    with pytest.raises(NotPresent):
        load_state_dict_from_url(missing.url, progress=False)
    weightstore.disable()
    load_state_dict_from_url(missing.url, progress=False)

    assert place.bodies(missing) == 1


def test_a_module_that_is_loaded_again_is_reached(place: Place, net: Checkpoint) -> None:
    done = place.python(
        "import importlib, sys, weightstore, torch.hub; weightstore.enable()\n"
        "importlib.reload(torch.hub)\n"
        "torch.hub.load_state_dict_from_url(sys.argv[1], progress=False)",
        net.url,
    )
    assert done.returncode == 0, done.stderr
    assert (place.store / "blobs" / "sha256" / net.digest).exists()


def test_it_is_never_off_while_somebody_has_it_on(place: Place, net: Checkpoint) -> None:
    weightstore.enable()
    codes: set[str] = set()
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            codes.add(load_state_dict_from_url.__code__.co_filename)

    watcher = threading.Thread(target=look)
    watcher.start()
    for _ in range(20):
        with weightstore.enabled(offline=True):
            pass
    over.set()
    watcher.join()
    weightstore.disable()

    assert codes == {"<weightstore for torch.hub.load_state_dict_from_url>"}


def test_settings_that_overlap_end_by_themselves() -> None:
    first, second = weightstore.enabled(), weightstore.enabled(offline=True)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert load_state_dict_from_url.__code__.co_filename.startswith("<weightstore")
    second.__exit__(None, None, None)
    assert not load_state_dict_from_url.__code__.co_filename.startswith("<weightstore")


def test_descriptors_are_not_left_open(place: Place, net: Checkpoint) -> None:
    with weightstore.enabled():
        load_state_dict_from_url(net.url, progress=False)
        before = len(os.listdir("/proc/self/fd"))
        for name in (None, "other.pth", "a\0b"):
            for _ in range(5):
                with contextlib.suppress(ValueError):
                    load_state_dict_from_url(net.url, progress=False, file_name=name)
                with pytest.raises(RuntimeError, match="invalid hash value"):
                    download_url_to_file(net.url, str(place.state / "x.pth"), hash_prefix="0000", progress=False)
        assert len(os.listdir("/proc/self/fd")) == before


def test_turning_it_off_twice_does_nothing() -> None:
    weightstore.disable()
    weightstore.disable()
    assert not torch.hub.load_state_dict_from_url.__code__.co_filename.startswith("<weightstore")


def test_a_wrong_lockfile_leaves_the_hook_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "weights.lock").write_text("nonsense")
    with pytest.raises(weightstore.WeightStoreError):
        weightstore.enable(locked=tmp_path / "weights.lock")
    assert not torch.hub.load_state_dict_from_url.__code__.co_filename.startswith("<weightstore")


def test_a_module_imported_later_is_reached(place: Place, net: Checkpoint) -> None:
    done = place.python(
        "import weightstore, sys; weightstore.enable(); assert 'torch' not in sys.modules\n"
        "from torch.hub import load_state_dict_from_url as load\n"
        "print(sorted(load(sys.argv[1], progress=False)))",
        net.url,
    )

    assert done.returncode == 0, done.stderr
    assert "['bias', 'weight']" in done.stdout
    assert (place.store / "blobs" / "sha256" / net.digest).exists()
