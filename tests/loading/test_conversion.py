"""Converted checkpoints hold the same tensors, and are loaded in the place of what they were made from."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch

from tests.loading.conftest import Save, same
from tests.loading.test_state_dict import everything
from weightstore.client import Client
from weightstore.config import Config
from weightstore.digest import Digest
from weightstore.errors import InvalidInput
from weightstore.loading.conversion import convert
from weightstore.loading.opening import open_wanted
from weightstore.loading.state_dict import load_state_dict
from weightstore.records import Derived
from weightstore.store.derived import list_derived, read_derived, write_derived
from weightstore.store.gc import plan_removals, take_inventory


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return Client(Config(home=tmp_path / "store", state=tmp_path / "state"))


def model() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 2).double())


def fetched(client: Client, path: Path) -> str:
    """Bring a file into the store, and give the name by which the store knows it."""
    url = f"file://{path}"
    client.path(url)
    return url


def opened_name(client: Client, name: str) -> str:
    with open_wanted(client.wanted(name), client=client) as opened:
        return opened.path.name


@pytest.mark.parametrize("legacy", [False, True])
def test_a_conversion_is_what_the_safetensors_library_reads(save: Save, client: Client, *, legacy: bool) -> None:
    state = model().state_dict()
    (made,) = convert(fetched(client, save(state, legacy=legacy)), client=client)

    loaded = safetensors.torch.load_file(made.path)
    assert loaded.keys() == state.keys()
    assert all(same(loaded[name], state[name]) for name in state)
    with safetensors.safe_open(made.path, framework="pt") as file:
        assert file.metadata()["format"] == "pt"
        assert file.metadata()["weightstore.source"] == str(made.source)
    assert hashlib.sha256(made.path.read_bytes()).hexdigest() == made.digest.hex


def test_every_element_type_and_stride_survives(save: Save, client: Client) -> None:
    state = everything()
    for name in ("first half", "second half"):
        state[name] = state[name].clone()
    (made,) = convert(fetched(client, save(state)), client=client)
    loaded = safetensors.torch.load_file(made.path)
    for name, tensor in state.items():
        expected = tensor.detach().contiguous().reshape(-1)
        assert torch.equal(loaded[name].reshape(-1).view(torch.uint8), expected.view(torch.uint8)), name


def test_a_conversion_is_loaded_in_the_place_of_its_source(save: Save, client: Client) -> None:
    net = model()
    name = fetched(client, save(net.state_dict()))
    before = load_state_dict(name, client=client)

    (made,) = convert(name, client=client)

    assert opened_name(client, name) == made.digest.hex
    after = load_state_dict(name, client=client)
    assert list(after) == list(before)
    assert all(same(after[key], before[key]) for key in before)
    assert after._metadata == before._metadata  # type: ignore[attr-defined]
    assert client.path(name).name == made.source.hex, "a path still leads to the file that was asked for"


def test_the_source_need_not_be_there_any_more(save: Save, client: Client) -> None:
    name = fetched(client, save(model().state_dict()))
    convert(name, client=client)
    client.path(name).unlink()
    assert len(load_state_dict(name, client=client)) == 9


def test_the_same_tensors_give_the_same_file_everywhere(save: Save, tmp_path: Path) -> None:
    path = save(model().state_dict())
    digests = set()
    for seed in ("1", "2"):
        code = (
            "import sys; from pathlib import Path; from weightstore.client import Client; "
            "from weightstore.config import Config; from weightstore.loading.conversion import convert; "
            "home = Path(sys.argv[1]); client = Client(Config(home=home / 'store', state=home / 'state')); "
            "print(convert('file://' + sys.argv[2], client=client)[0].digest)"
        )
        environ = os.environ | {"PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / seed), str(path)],
            capture_output=True,
            text=True,
            check=True,
            env=environ,
        )
        digests.add(done.stdout)
    assert len(digests) == 1


def test_converting_twice_makes_one_file(save: Save, client: Client) -> None:
    name = fetched(client, save(model().state_dict()))
    first, second = (convert(name, client=client)[0] for _ in range(2))
    assert first.is_new
    assert second == replace(first, is_new=False)


def test_converting_needs_no_torch_where_tensors_lie_in_one_piece(save: Save, tmp_path: Path) -> None:
    path = save(model().state_dict())
    code = (
        "import sys\n"
        "class Blocker:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in {'torch', 'numpy', 'safetensors'}: raise ImportError(name)\n"
        "sys.meta_path.insert(0, Blocker())\n"
        "from weightstore.cli import main; main()"
    )
    environ = os.environ | {
        "WEIGHTSTORE_HOME": str(tmp_path / "other"),
        "WEIGHTSTORE_STATE": str(tmp_path / "other-state"),
    }
    done = subprocess.run(
        [sys.executable, "-c", code, "convert", str(path)], capture_output=True, text=True, check=False, env=environ
    )
    assert done.returncode == 0, done.stderr
    assert "9 tensors" in done.stderr


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: {"model": {"a": torch.zeros(2)}, "epoch": 1}, "holds more than tensors by name"),
        (
            lambda: {"a": torch.quantize_per_tensor(torch.rand(4), 0.1, 3, torch.quint8)},
            "types that safetensors does not have",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:.*quantiz.*:UserWarning", "ignore:TypedStorage:UserWarning")
def test_what_the_format_cannot_hold_is_refused(
    save: Save, client: Client, make: Callable[[], object], reason: str
) -> None:
    with pytest.raises(InvalidInput, match=reason):
        convert(fetched(client, save(make())), client=client)


def test_tied_weights_are_refused_by_name(save: Save, client: Client) -> None:
    weight = torch.rand(3, 3)
    with pytest.raises(InvalidInput, match="encoder and decoder share memory"):
        convert(fetched(client, save({"encoder": weight, "decoder": weight})), client=client)


def test_a_safetensors_file_is_converted_already(tmp_path: Path, client: Client) -> None:
    path = tmp_path / "a.safetensors"
    safetensors.torch.save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(InvalidInput, match="is a safetensors file already"):
        convert(fetched(client, path), client=client)


class TestTrust:
    """In a shared store anybody may claim that one blob was made from another."""

    def other(self, client: Client, tmp_path: Path) -> Client:
        """Another user of the same store."""
        return Client(Config(home=client.config.home, state=tmp_path / "other-state"))

    def test_another_users_conversion_is_used_once_it_was_compared(
        self, save: Save, client: Client, tmp_path: Path
    ) -> None:
        name = fetched(client, save(model().state_dict()))
        (made,) = convert(name, client=client)
        other = self.other(client, tmp_path)

        assert other.vouched.derived_of(made.source) is None
        assert opened_name(other, name) == made.digest.hex
        assert other.vouched.derived_of(made.source) == made.digest
        client.path(name).unlink()
        assert opened_name(other, name) == made.digest.hex

    def test_another_users_lie_is_never_loaded(self, save: Save, client: Client, tmp_path: Path) -> None:
        name = fetched(client, save({"a": torch.zeros(3)}))
        source = Digest(client.path(name).name)
        evil = tmp_path / "evil.safetensors"
        safetensors.torch.save_file({"a": torch.ones(3)}, evil)
        digest = Digest(client.path(f"file://{evil}").name)
        claim = Derived(source, digest, evil.stat().st_size, "safetensors", datetime.now(UTC))
        write_derived(client.obtainer.writable(), claim)

        other = self.other(client, tmp_path)
        assert load_state_dict(name, client=other)["a"].sum() == 0
        assert other.vouched.derived_of(source) is None

    @pytest.mark.parametrize("content", [b"no checkpoint at all", b""])
    def test_a_claim_about_no_checkpoint_is_passed_over(
        self, save: Save, client: Client, tmp_path: Path, content: bytes
    ) -> None:
        name = fetched(client, save({"a": torch.zeros(3)}))
        junk = tmp_path / "junk.bin"
        junk.write_bytes(content)
        digest = Digest(client.path(f"file://{junk}").name)
        claim = Derived(Digest(client.path(name).name), digest, len(content), "safetensors", datetime.now(UTC))
        write_derived(client.obtainer.writable(), claim)
        assert load_state_dict(name, client=client)["a"].sum() == 0

    def test_a_damaged_record_is_passed_over(self, save: Save, client: Client, tmp_path: Path) -> None:
        name = fetched(client, save({"a": torch.zeros(3)}))
        (made,) = convert(name, client=client)
        layout = client.obtainer.writable()
        layout.derived_record(made.source, "safetensors").write_bytes(b"{}")
        assert read_derived(layout, made.source, "safetensors") is None
        assert list(list_derived(layout)) == []
        assert load_state_dict(name, client=self.other(client, tmp_path))["a"].sum() == 0

    def test_a_damaged_conversion_is_passed_over_and_made_again(self, save: Save, client: Client) -> None:
        name = fetched(client, save({"a": torch.zeros(3)}))
        (made,) = convert(name, client=client)
        made.path.chmod(0o644)
        made.path.write_bytes(b"x" * made.size)

        assert load_state_dict(name, client=client)["a"].sum() == 0
        (again,) = convert(name, client=client)
        assert again.is_new
        assert again.digest == made.digest


def test_gc_keeps_a_conversion_as_long_as_its_source_is_named(save: Save, client: Client) -> None:
    name = fetched(client, save({"a": torch.zeros(3)}))
    (made,) = convert(name, client=client)
    layout = client.obtainer.writable()

    def removed() -> set[str]:
        inventory = replace(take_inventory(layout, client.receipts), now=4e9)
        return {one.file.path.name for one in plan_removals(inventory, grace_s=60) if one.file.kind == "blob"}

    assert removed() == set()
    for ref in layout.refs.iterdir():
        ref.unlink()
    assert removed() == {made.source.hex, made.digest.hex}


def test_ls_says_what_a_conversion_was_made_from(save: Save, client: Client) -> None:
    name = fetched(client, save({"a": torch.zeros(3)}))
    (made,) = convert(name, client=client)
    stored = {one.digest: one for one in client.stored()}
    assert stored[made.digest].made_from == made.source
    assert stored[made.source].made_from is None
    assert stored[made.digest].refs == stored[made.source].refs


def test_an_ordered_dict_stays_in_order(save: Save, client: Client) -> None:
    state = OrderedDict(z=torch.zeros(1, dtype=torch.uint8), a=torch.zeros(2), m=torch.zeros(3, dtype=torch.float64))
    name = fetched(client, save(state))
    convert(name, client=client)
    assert list(load_state_dict(name, client=client)) == ["z", "a", "m"]
