"""State dicts come out as torch would load them, and no unpickler runs."""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from tests.loading.conftest import Save, same
from tests.servers.hostile import HostileServer
from weightstore.client import Client
from weightstore.config import Config
from weightstore.errors import (
    DigestMismatch,
    InvalidCheckpoint,
    InvalidInput,
    MissingDependency,
    SourceNotFound,
    UnsafeCheckpoint,
)
from weightstore.loading.opening import open_weights
from weightstore.loading.requirement import check_version
from weightstore.loading.state_dict import Loading, load_state_dict
from weightstore.records import Wanted
from weightstore.source import parse_source


def everything() -> OrderedDict[str, torch.Tensor]:
    """A state dict with a tensor of every kind that may stand in one."""
    base = torch.arange(24.0)
    state: OrderedDict[str, torch.Tensor] = OrderedDict()
    for dtype in (
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int32,
        torch.int16,
        torch.int8,
        torch.uint8,
        torch.bool,
        torch.complex64,
    ):
        state[str(dtype)] = torch.arange(-3, 9).reshape(3, 4).to(dtype)
    state["nan"] = torch.tensor([float("nan"), -0.0, float("inf")])
    state["scalar"] = torch.tensor(7)
    state["empty"] = torch.empty(0, 5)
    state["first half"], state["second half"] = base[:12], base[12:]
    state["transposed"] = torch.arange(6.0).reshape(2, 3).t()
    state["channels last"] = torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last)
    state["expanded"] = torch.ones(1, 3).expand(4, 3)
    state["parameter"] = torch.nn.Parameter(torch.rand(3))
    state["frozen"] = torch.nn.Parameter(torch.rand(3), requires_grad=False)
    state["wants grad"] = torch.rand(3).requires_grad_()
    return state


@pytest.mark.parametrize("mmap", [True, False, "auto"])
@pytest.mark.parametrize("legacy", [False, True])
def test_a_state_dict_comes_out_as_torch_loads_it(save: Save, client: Client, *, mmap: Any, legacy: bool) -> None:
    path = save(everything(), legacy=legacy)

    state = load_state_dict(path, mmap=mmap, client=client)

    expected = torch.load(path, weights_only=True)
    assert list(state) == list(expected)
    assert [name for name in state if not same(state[name], expected[name])] == []
    shared = state["first half"].untyped_storage().data_ptr() == state["second half"].untyped_storage().data_ptr()
    assert shared, "tensors that share memory in the file share it when loaded"


def test_no_unpickler_takes_part_in_loading_a_state_dict(
    save: Save, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(everything())
    for owner in (torch, pickle):
        monkeypatch.setattr(owner, "load", lambda *_, **__: pytest.fail("unpickled"))
    monkeypatch.setattr(pickle, "Unpickler", lambda *_, **__: pytest.fail("unpickled"))

    assert len(load_state_dict(path, client=client)) == len(everything())


def test_a_models_state_dict_keeps_its_versions(save: Save, client: Client) -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    state = load_state_dict(save(model.state_dict()), client=client)
    assert state._metadata == model.state_dict()._metadata  # type: ignore[attr-defined]
    assert state._metadata["1"] == {"version": 2}  # type: ignore[attr-defined]


@pytest.mark.parametrize("mmap", [True, False])
def test_safetensors_come_out_as_their_library_loads_them(tmp_path: Path, client: Client, *, mmap: bool) -> None:
    state = {name: value.detach().clone().contiguous() for name, value in everything().items()}
    path = tmp_path / "weights.safetensors"
    # A name of odd length makes every later tensor lie across words.
    safetensors.torch.save_file({**state, "odd": torch.ones(3, dtype=torch.uint8)}, path, metadata={"by": "hand"})

    loaded = load_state_dict(path, mmap=mmap, client=client)

    expected = safetensors.torch.load_file(path)
    assert loaded.keys() == expected.keys()
    assert [name for name in loaded if not same(loaded[name], expected[name])] == []
    assert all(tensor.data_ptr() % tensor.element_size() == 0 for tensor in loaded.values())


def test_writing_to_a_mapped_tensor_changes_neither_the_file_nor_what_is_loaded_next(
    save: Save, client: Client
) -> None:
    path = save({"a": torch.zeros(1000)})
    before = hashlib.sha256(path.read_bytes()).hexdigest()

    load_state_dict(path, mmap=True, client=client)["a"].fill_(1)

    assert hashlib.sha256(path.read_bytes()).hexdigest() == before
    assert load_state_dict(path, mmap=True, client=client)["a"].sum() == 0


def test_a_mapped_state_dict_outlives_its_file(save: Save, client: Client) -> None:
    path = save({"a": torch.arange(1000.0)})
    state = load_state_dict(path, mmap=True, client=client)
    path.unlink()
    assert torch.equal(state["a"], torch.arange(1000.0))


def test_where_nothing_can_be_mapped_the_file_is_read(
    save: Save, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = mmap.mmap

    def refuse(fileno: int, length: int, **kwargs: Any) -> mmap.mmap:
        if fileno >= 0:
            raise OSError(errno.ENODEV, "No such device")
        return real(fileno, length, **kwargs)

    path = save(everything())
    monkeypatch.setattr(mmap, "mmap", refuse)
    state = load_state_dict(path, mmap=True, client=client)
    assert all(same(state[name], value) for name, value in torch.load(path, weights_only=True).items())


def test_saving_one_mapped_tensor_saves_its_bytes_and_not_the_files(save: Save, client: Client) -> None:
    state = load_state_dict(save({"a": torch.rand(100_000), "b": torch.rand(10)}), mmap=True, client=client)
    assert save({"b": state["b"]}, "b.pth").stat().st_size < 5000


class TestKeys:
    def test_only_the_tensors_that_match_are_read(
        self, save: Save, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = save({"backbone.a": torch.rand(1000), "backbone.b": torch.rand(500), "head.a": torch.rand(1_000_000)})
        read: list[int] = []
        preadv = os.preadv
        monkeypatch.setattr(os, "preadv", lambda *args: (read.append(preadv(*args)), read[-1])[1])

        state = load_state_dict(path, keys="backbone.*", mmap=False, client=client)

        assert list(state) == ["backbone.a", "backbone.b"]
        assert sum(read) == 1500 * 4

    def test_several_globs_may_be_given(self, save: Save, client: Client) -> None:
        path = save({"a.x": torch.rand(1), "b.x": torch.rand(1), "c.x": torch.rand(1)})
        assert list(load_state_dict(path, keys=["a.*", "c.*"], client=client)) == ["a.x", "c.x"]

    def test_a_glob_that_matches_nothing_is_an_error(self, save: Save, client: Client) -> None:
        with pytest.raises(InvalidInput, match=r"no tensor is named like nose\.\*"):
            load_state_dict(save({"a": torch.rand(1)}), keys="nose.*", client=client)

    def test_keys_of_a_checkpoint_that_torch_loads_are_chosen_too(self, save: Save, client: Client) -> None:
        path = save({"model": {"a": torch.rand(1)}, "epoch": 3})
        assert list(load_state_dict(path, keys="ep*", client=client)) == ["epoch"]


class TestOtherShapes:
    def test_a_training_checkpoint_comes_as_torch_gives_it(self, save: Save, client: Client) -> None:
        model = torch.nn.Linear(3, 2)
        optimizer = torch.optim.AdamW(model.parameters())
        model(torch.rand(1, 3)).sum().backward()
        optimizer.step()
        path = save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3})

        loaded = load_state_dict(path, client=client)

        assert loaded["epoch"] == 3
        assert torch.equal(loaded["model"]["weight"], model.weight)
        assert loaded["optimizer"]["param_groups"] == optimizer.state_dict()["param_groups"]

    @pytest.mark.filterwarnings("ignore:.*quantiz.*:UserWarning", "ignore:TypedStorage:UserWarning")
    def test_quantized_tensors_go_through_torch(self, save: Save, client: Client) -> None:
        tensor = torch.quantize_per_tensor(torch.rand(4), 0.1, 3, torch.quint8)
        assert torch.equal(load_state_dict(save({"a": tensor}), client=client)["a"].dequantize(), tensor.dequantize())

    @pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
    def test_a_torchscript_archive_is_refused(self, tmp_path: Path, client: Client) -> None:
        path = tmp_path / "model.pt"
        torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.rand(1, 2)), path)
        with pytest.raises(InvalidCheckpoint, match="TorchScript archive, which holds a program"):
            load_state_dict(path, client=client)

    def test_something_else_is_no_checkpoint(self, tmp_path: Path, client: Client) -> None:
        path = tmp_path / "page.html"
        path.write_text("<html>Not found</html>")
        with pytest.raises(InvalidCheckpoint, match="is not a checkpoint that can be read"):
            load_state_dict(path, client=client)

    @pytest.mark.parametrize("kept", [0.2, 0.6, 0.99])
    @pytest.mark.parametrize("legacy", [False, True])
    def test_a_truncated_file_is_no_checkpoint(self, save: Save, client: Client, kept: float, *, legacy: bool) -> None:
        path = save({"a": torch.rand(10_000)}, legacy=legacy)
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * kept)])
        with pytest.raises(InvalidCheckpoint):
            load_state_dict(path, client=client)


class TestLocations:
    def test_tensors_go_to_a_device(self, save: Save, client: Client) -> None:
        path = save({"a": torch.rand(3)})
        assert load_state_dict(path, device="meta", client=client)["a"].is_meta
        assert load_state_dict(path, map_location=torch.device("meta"), client=client)["a"].is_meta

    def test_a_function_decides_as_in_torch_load(self, save: Save, client: Client) -> None:
        seen = []
        path = save({"a": torch.rand(3)})
        state = load_state_dict(path, map_location=lambda storage, tag: seen.append(tag) or storage, client=client)
        assert seen == ["cpu"]
        assert state["a"].shape == (3,)

    def test_device_and_map_location_together_are_refused(self, save: Save, client: Client) -> None:
        with pytest.raises(InvalidInput, match="give one of them"):
            load_state_dict(save({}), device="cpu", map_location="cpu", client=client)


class Payload:
    """Runs a command when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


class Harmless:
    def __init__(self) -> None:
        self.weight = torch.rand(3)


class TestMalice:
    @pytest.mark.parametrize("legacy", [False, True])
    @pytest.mark.parametrize("nested", [False, True])
    def test_a_payload_never_runs_and_is_named(
        self, save: Save, client: Client, tmp_path: Path, *, legacy: bool, nested: bool
    ) -> None:
        marker = tmp_path / "ran"
        payload: Any = Payload(marker)
        path = save({"a": torch.rand(3), "x": [{"y": payload}] if nested else payload}, legacy=legacy)

        with pytest.raises(UnsafeCheckpoint, match=r"would call (posix|os)\.mkdir.*trust=\"pickle\"") as caught:
            load_state_dict(path, client=client)

        assert caught.value.exit_code == 11
        assert not marker.exists()

    def test_trusting_it_runs_it(self, save: Save, client: Client, tmp_path: Path) -> None:
        marker = tmp_path / "ran"
        load_state_dict(save({"x": Payload(marker)}), trust="pickle", client=client)
        assert marker.is_dir()

    def test_an_object_is_refused_unless_trusted(self, save: Save, client: Client) -> None:
        path = save(Harmless())
        with pytest.raises(UnsafeCheckpoint, match="Harmless"):
            load_state_dict(path, client=client)
        assert isinstance(load_state_dict(path, trust="pickle", client=client), Harmless)

    def test_a_bare_pickle_is_never_loaded(self, tmp_path: Path, client: Client) -> None:
        marker = tmp_path / "ran"
        path = tmp_path / "weights.pkl"
        path.write_bytes(pickle.dumps(Payload(marker)))
        with pytest.raises((InvalidCheckpoint, UnsafeCheckpoint)):
            load_state_dict(path, client=client)
        assert not marker.exists()

    def test_what_was_verified_is_loaded_though_the_name_is_swapped(self, save: Save, tmp_path: Path) -> None:
        client = Client(Config(home=tmp_path / "store", state=tmp_path / "state"))
        good, evil = save({"a": torch.zeros(3)}, "good.pth"), save({"a": torch.ones(3)}, "evil.pth")
        blob = client.path(str(good))
        opened = next(iter(open_weights(f"file://{good}#sha256={blob.name}", client=client)))
        wanted = next(_blobs(client, str(good)))

        os.replace(evil, blob)  # after verification, before loading
        os.replace(save({"a": torch.ones(3)}, "evil.pth"), good)

        with opened, wanted:
            assert Loading().load(opened)["a"].sum() == 0
            assert Loading().load(wanted)["a"].sum() == 0

    def test_a_link_swapped_during_open_cannot_pass_for_what_is_pinned(self, save: Save, client: Client) -> None:
        good, evil = save({"a": torch.zeros(3)}, "good.pth"), save({"a": torch.ones(3)}, "evil.pth")
        digest = hashlib.sha256(good.read_bytes()).hexdigest()
        link = good.with_name("link.pth")
        link.symlink_to(good)
        assert load_state_dict(f"{link}#sha256={digest}", client=client)["a"].sum() == 0

        link.unlink()
        link.symlink_to(evil)

        with pytest.raises(DigestMismatch):
            load_state_dict(f"{link}#sha256={digest}", client=client)


def _blobs(client: Client, name: str) -> Any:
    from weightstore.loading.opening import open_wanted

    source, pin = parse_source(name)
    yield open_wanted(Wanted(name, source, pin), client=client)


class TestSources:
    def test_a_local_file_is_read_where_it_lies(self, save: Save, client: Client) -> None:
        load_state_dict(save({"a": torch.rand(3)}), client=client)
        assert not client.config.home.exists()

    def test_a_relative_path_object_is_a_path_and_no_name(
        self, save: Save, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = save({"a": torch.rand(3)}, "resnet50")
        monkeypatch.chdir(path.parent)
        assert list(load_state_dict(Path("resnet50"), client=client)) == ["a"]

    def test_a_pin_in_a_local_files_name_is_kept_to(self, save: Save, client: Client) -> None:
        path = save({"a": torch.rand(3)})
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        right, wrong = path.with_name(f"a-{digest[:8]}.pth"), path.with_name("a-0123abcd.pth")
        right.write_bytes(path.read_bytes())
        wrong.write_bytes(path.read_bytes())
        assert list(load_state_dict(right, client=client)) == ["a"]
        with pytest.raises(DigestMismatch):
            load_state_dict(wrong, client=client)

    def test_a_pinned_local_file_is_hashed_once(
        self, save: Save, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = save({"a": torch.rand(3)})
        pinned = f"{path}#sha256={hashlib.sha256(path.read_bytes()).hexdigest()}"
        load_state_dict(pinned, client=client)
        monkeypatch.setattr("weightstore.store.blobs.hash_descriptor", lambda *_, **__: pytest.fail("hashed once more"))
        load_state_dict(pinned, client=client)

    def test_a_file_that_is_not_there_is_not_found(self, tmp_path: Path, client: Client) -> None:
        with pytest.raises(SourceNotFound, match="no such file"):
            load_state_dict(tmp_path / "nothing.pth", client=client)

    def test_a_url_is_fetched_verified_and_kept(self, save: Save, tmp_path: Path) -> None:
        client = Client(Config(home=tmp_path / "store", state=tmp_path / "state"))
        data = save({"a": torch.arange(3)}).read_bytes()
        with HostileServer() as server:
            url = server.serve("/a.pth", data)
            assert load_state_dict(url, client=client)["a"].tolist() == [0, 1, 2]
        assert load_state_dict(url, client=client)["a"].tolist() == [0, 1, 2]
        with pytest.raises(DigestMismatch), HostileServer() as server:
            load_state_dict(f"{server.serve('/b.pth', data)}#sha256={'0' * 64}", client=client)


@pytest.mark.parametrize("version", ["2.6.0", "2.14.1+cu130", "3.0.0a0"])
def test_torch_from_2_6_on_will_do(version: str) -> None:
    check_version(version)


@pytest.mark.parametrize("version", ["2.5.1", "1.13.0+cpu", "nightly"])
def test_older_torch_is_refused_with_the_reason(version: str) -> None:
    with pytest.raises(
        MissingDependency, match=r"unpickler can be made to run code.*torch>=2\.6.*weightstore\[torch\]"
    ):
        check_version(version)
