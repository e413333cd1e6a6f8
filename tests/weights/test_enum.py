"""Weights and their enums by themselves: values, members, what is an alias and what is not, extension."""

from __future__ import annotations

import copy
import enum
import functools
import json
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.servers.hostile import HostileServer
from weightstore.client import Client
from weightstore.config import Config
from weightstore.errors import InvalidDigest, InvalidInput
from weightstore.weights.entry import Weights
from weightstore.weights.enum import WeightsEnum, extend
from weightstore.weights.frozen import FrozenDict, FrozenList
from weightstore.weights.meta import ClassificationMeta, DetectionMeta, Meta
from weightstore.weights.transforms import EnumMember, Transforms, untouched


def preset(size: int = 1, **_: Any) -> int:
    return size


FIRST = Weights("https://example.org/a-0123abcd.pth", functools.partial(preset, size=3), {"categories": ["x"]})


class Net_Weights(WeightsEnum):  # noqa: N801
    A = FIRST
    B = Weights("https://example.org/b.pth", preset, {"num_params": 3, "_file_size": 1.5}, digest="ab" * 32)
    SAME_AS_B = Weights("https://example.org/b.pth", preset, {"num_params": 3, "_file_size": 1.5}, digest="ab" * 32)
    DEFAULT = B


class Other_Weights(WeightsEnum):  # noqa: N801
    A = Weights("https://example.org/c.pth", preset, {})


class TestMembers:
    def test_only_the_same_object_is_an_alias(self) -> None:
        assert [member.name for member in Net_Weights] == ["A", "B", "SAME_AS_B"]
        assert Net_Weights.DEFAULT is Net_Weights.B
        assert Net_Weights.SAME_AS_B is not Net_Weights.B
        assert Net_Weights.SAME_AS_B.value == Net_Weights.B.value

    def test_a_member_prints_as_it_is_written(self) -> None:
        assert repr(Net_Weights.A) == str(Net_Weights.A) == f"{Net_Weights.A}" == "Net_Weights.A"
        assert f"{Net_Weights.A:>15}" == "  Net_Weights.A"

    def test_a_member_is_found_by_name_and_by_value(self) -> None:
        assert Net_Weights["A"] is Net_Weights(FIRST) is Net_Weights.A
        with pytest.raises(KeyError):
            Net_Weights["C"]
        with pytest.raises(ValueError, match="is not a valid Net_Weights"):
            Net_Weights(3)

    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_a_member_is_itself_after_copying_and_pickling(self, protocol: int) -> None:
        for member in Net_Weights:
            assert copy.copy(member) is copy.deepcopy(member) is member
            assert pickle.loads(pickle.dumps(member, protocol)) is member
        assert pickle.loads(pickle.dumps(Net_Weights.DEFAULT, protocol)) is Net_Weights.B

    def test_a_pickle_survives_a_change_of_metadata(self, tmp_path: Path) -> None:
        code = "from weightstore import Weights, WeightsEnum\nclass W(WeightsEnum):\n    A = Weights({!r}, int, {})\n"
        (tmp_path / "zoo.py").write_text(code.format("https://example.org/old.pth", {"v": 1}))
        write = "import pickle, zoo; open('p', 'wb').write(pickle.dumps(zoo.W.A))"
        subprocess.run([sys.executable, "-c", write], cwd=tmp_path, check=True)
        (tmp_path / "zoo.py").write_text(code.format("https://example.org/new-and-longer.pth", {"v": 2, "w": [3]}))
        read = "import pickle, zoo; member = pickle.load(open('p', 'rb')); assert member is zoo.W.A; print(member.url)"
        done = subprocess.run([sys.executable, "-c", read], cwd=tmp_path, check=True, capture_output=True, text=True)
        assert done.stdout == "https://example.org/new-and-longer.pth\n"

    def test_verify_takes_names_members_and_none(self) -> None:
        assert Net_Weights.verify(None) is None
        assert Net_Weights.verify("A") is Net_Weights.verify("Net_Weights.A") is Net_Weights.verify(Net_Weights.A)
        assert Net_Weights.verify("DEFAULT") is Net_Weights.B

    @pytest.mark.parametrize("wrong", [1, Other_Weights.A, FIRST, b"A", ["A"]])
    def test_verify_refuses_everything_else(self, wrong: Any) -> None:
        with pytest.raises(TypeError, match="expected Net_Weights but received"):
            Net_Weights.verify(wrong)

    def test_what_is_known_of_a_member_is_told(self) -> None:
        assert Net_Weights.A.pin.hex == "0123abcd"
        assert Net_Weights.A.digest is None
        assert Net_Weights.B.digest is not None
        assert Net_Weights.B.digest.hex == "ab" * 32
        assert Net_Weights.B.size == 1572864
        assert Net_Weights.A.size is None
        assert Net_Weights.A.transforms() == 3
        assert Net_Weights.A.transforms(size=4) == 4


class TestValues:
    def test_equal_entries_are_equal_and_hash_alike(self) -> None:
        again = Weights(FIRST.url, functools.partial(preset, size=3), {"categories": ["x"]})
        assert again == FIRST
        assert hash(again) == hash(FIRST)
        assert pickle.loads(pickle.dumps(FIRST)) == FIRST

    @pytest.mark.parametrize(
        "other",
        [
            Weights("https://example.org/b.pth", functools.partial(preset, size=3), {"categories": ["x"]}),
            Weights(FIRST.url, functools.partial(preset, size=4), {"categories": ["x"]}),
            Weights(FIRST.url, preset, {"categories": ["x"]}),
            Weights(FIRST.url, functools.partial(preset, size=3), {"categories": ["y"]}),
            Weights(FIRST.url, functools.partial(preset, size=3), {"categories": ["x"]}, digest="0123abcd" * 8),
            "something else",
        ],
    )
    def test_others_are_not(self, other: Any) -> None:
        assert other != FIRST

    def test_an_entry_cannot_be_changed(self) -> None:
        with pytest.raises(AttributeError, match="cannot be changed"):
            FIRST.url = "https://evil.example"  # type: ignore[misc]
        with pytest.raises(AttributeError, match="cannot be changed"):
            del FIRST.meta
        with pytest.raises(TypeError, match="does not support item assignment"):
            FIRST.meta["x"] = 3  # type: ignore[index]

    @pytest.mark.parametrize("digest", ["xyz", "0123", "g" * 64, "0" * 65, "md5:" + "0" * 32])
    def test_what_is_no_digest_is_refused(self, digest: str) -> None:
        with pytest.raises(InvalidDigest):
            Weights("https://example.org/a.pth", preset, {}, digest=digest)

    def test_a_digest_that_contradicts_the_url_is_an_error_when_it_is_needed(self) -> None:
        entry = Weights("https://example.org/a-0123abcd.pth", preset, {}, digest="ab" * 32)
        with pytest.raises(InvalidInput, match=r"given as sha256:abab.* and its name says sha256:0123abcd"):
            _ = entry.pin


class TestMeta:
    META = Meta.of(
        {
            "categories": ["a", "b"],
            "_metrics": {"ImageNet-1K": {"acc@1": 80.1, "acc@5": 95.0}},
            "_file_size": 2.0,
            "min_size": (1, 1),
            "license": "https://example.org/LICENSE",
            "own": {"deep": [1, {"er": [2]}]},
        }
    )

    def test_it_reads_as_a_dict_and_by_attributes(self) -> None:
        assert isinstance(self.META, ClassificationMeta)
        assert self.META["categories"] == ["a", "b"]
        assert self.META.categories[1] == "b"
        assert self.META.acc1 == 80.1
        assert self.META.acc5 == 95.0
        assert self.META.size == 2 << 20
        assert self.META.licence == "https://example.org/LICENSE"
        assert self.META.min_size == (1, 1)
        assert self.META.own == {"deep": [1, {"er": [2]}]}
        assert self.META.gops is None
        with pytest.raises(AttributeError, match=r"the metadata has no 'nothing'\. It has: _file_size"):
            _ = self.META.nothing
        with pytest.raises(KeyError):
            self.META["nothing"]

    def test_it_equals_the_dict_and_comes_back_from_json(self) -> None:
        plain = {"categories": ["a"], "own": {"deep": [1]}}
        assert Meta(plain) == plain
        assert Meta(plain) == Meta(plain)
        assert Meta(plain) != {"categories": ["b"], "own": {"deep": [1]}}
        assert json.loads(json.dumps(dict(Meta(plain)))) == plain

    def test_nothing_in_it_can_be_changed_or_is_shared_with_what_it_was_made_of(self) -> None:
        given = {"categories": ["a"], "own": {"deep": [1]}}
        meta = Meta(given)
        given["categories"].append("b")  # type: ignore[attr-defined]
        assert meta.categories == ["a"]
        for change in (
            lambda: meta["own"].update(x=1),
            lambda: meta["own"].__setitem__("deep", 2),
            lambda: meta["own"].pop("deep"),
            lambda: meta["categories"].append("c"),
            lambda: meta["categories"].__setitem__(0, "c"),
        ):
            with pytest.raises((TypeError, AttributeError)):
                change()
        assert meta == {"categories": ["a"], "own": {"deep": [1]}}

    @pytest.mark.parametrize("value", [META, Meta({"x": [1, {"y": 2}]})])
    def test_it_is_copied_and_pickled(self, value: Meta) -> None:
        assert copy.deepcopy(value) is value
        again = pickle.loads(pickle.dumps(value))
        assert again == value
        assert type(again) is type(value)

    def test_the_task_may_be_said(self) -> None:
        assert isinstance(Meta.of({"task": "detection"}), DetectionMeta)
        assert isinstance(Meta.of({}, task="keypoint-detection"), DetectionMeta)
        assert type(Meta.of({})) is Meta

    def test_frozen_containers_compare_as_what_they_are_made_of(self) -> None:
        assert FrozenList([1, 2]) == [1, 2] == FrozenList([1, 2]) == (1, 2)
        assert FrozenList([1, 2]) != [2, 1]
        assert FrozenList([1, 2, 3])[1:] == [2, 3]
        assert repr(FrozenList([1])) == "[1]"
        assert FrozenDict(a=1) == {"a": 1}


class TestTransforms:
    def test_a_description_prints_and_compares_without_importing_what_it_names(self) -> None:
        one = Transforms("nowhere.at.all.Preset", size=[1, 2], mode={"$enum": "nowhere.Mode.FAST"})
        assert repr(one) == "Preset(size=[1, 2], mode=Mode.FAST)"
        assert one == Transforms("nowhere.at.all.Preset", size=(1, 2), mode=EnumMember("nowhere.Mode.FAST"))
        assert one != Transforms("nowhere.at.all.Preset", size=(1, 3))
        assert hash(one) == hash(Transforms("nowhere.at.all.Preset", size=(1, 2), mode={"$enum": "nowhere.Mode.FAST"}))

    def test_a_named_class_equals_itself_and_a_partial_of_it(self) -> None:
        named = Transforms(f"{__name__}.preset", size=2)
        assert named == Transforms.of(functools.partial(preset, size=2))
        assert named == functools.partial(preset, size=2)
        assert named() == 2

    def test_what_is_not_installed_says_so(self) -> None:
        from weightstore.errors import MissingDependency

        with pytest.raises(MissingDependency, match="needs nowhere"):
            Transforms("nowhere.Preset")()
        with pytest.raises(InvalidInput, match=r"there is no json\.Preset"):
            Transforms("json.Preset")()

    def test_two_functions_made_on_the_spot_are_two(self) -> None:
        first, second = (lambda: 1), (lambda: 1)
        assert Transforms.of(first) == Transforms.of(first)
        assert Transforms.of(first) != Transforms.of(second)

    def test_enum_arguments_are_passed_as_members(self) -> None:
        class Mode(enum.Enum):
            FAST = 1

        globals()["Mode"] = Mode
        Mode.__qualname__ = "Mode"
        made = Transforms(lambda mode: mode, mode=Mode.FAST)
        assert made() is Mode.FAST
        del globals()["Mode"]


class TestExtend:
    def test_an_entry_is_added_as_a_member_like_all_others(self) -> None:
        class Small_Weights(WeightsEnum):  # noqa: N801
            A = FIRST

        entry = Weights("https://example.org/ours.pth", preset, {"x": 1})
        assert extend(Small_Weights, OURS=entry) is Small_Weights
        member = Small_Weights["OURS"]
        assert member is Small_Weights.OURS is Small_Weights(entry)  # type: ignore[attr-defined]
        assert isinstance(member, Small_Weights)
        assert list(Small_Weights) == [Small_Weights.A, member]
        assert str(member) == "Small_Weights.OURS"
        assert member.url == "https://example.org/ours.pth"
        assert Small_Weights.verify("OURS") is member
        assert len(Small_Weights) == 2
        assert member in Small_Weights
        assert copy.deepcopy(member) is member

    def test_what_is_there_is_not_replaced(self) -> None:
        entry = Weights("https://example.org/ours.pth", preset, {})
        for name in ("A", "DEFAULT", "verify", "url"):
            with pytest.raises(ValueError, match="already"):
                extend(Net_Weights, **{name: entry})
        with pytest.raises(ValueError, match="has these weights already"):
            extend(Net_Weights, MORE=FIRST)
        with pytest.raises(TypeError, match="no Weights"):
            extend(Net_Weights, MORE="https://example.org/x.pth")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="no weights enum"):
            extend(dict, MORE=entry)  # type: ignore[type-var]
        assert len(Net_Weights) == 3

    def test_one_that_cannot_be_added_adds_none(self) -> None:
        class Small_Weights(WeightsEnum):  # noqa: N801
            A = FIRST

        with pytest.raises(ValueError, match="already"):
            extend(Small_Weights, NEW=Weights("https://example.org/n.pth", preset, {}), A=FIRST)
        assert [member.name for member in Small_Weights] == ["A"]

    def test_many_threads_may_extend_at_once(self) -> None:
        class Small_Weights(WeightsEnum):  # noqa: N801
            A = FIRST

        threads = [
            threading.Thread(
                target=extend,
                args=(Small_Weights,),
                kwargs={f"T{number}": Weights(f"https://example.org/{number}.pth", preset, {})},
            )
            for number in range(20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(Small_Weights) == 21


class TestStore:
    @pytest.fixture(autouse=True)
    def settings(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WEIGHTSTORE_HOME", str(tmp_path / "store"))
        monkeypatch.setenv("WEIGHTSTORE_STATE", str(tmp_path / "state"))

    def test_a_member_is_fetched_and_found(self) -> None:
        with HostileServer() as server:
            url = server.serve("/own.pth", b"weights")
            made = WeightsEnum("Own_Weights", {"A": Weights(url, preset, {})}, module=__name__)  # type: ignore[call-arg]
            member: Any = made["A"]
            assert not member.is_cached
            report = member.prefetch()
        assert [result.status for result in report.results] == ["fetched"]
        assert member.is_cached
        assert member.path().read_bytes() == b"weights"
        assert Client(Config.load()).path(member) == member.path(fetch=False)

    def test_a_checkpoint_in_several_files_is_one_entry(self) -> None:
        with HostileServer() as server:
            urls = [server.serve(f"/part-{number}.pth", b"%d" % number) for number in range(3)]
            entry = Weights(urls[0], preset, {}, shards=urls[1:])
            member: Any = WeightsEnum("Sharded_Weights", {"A": entry}, module=__name__)["A"]  # type: ignore[call-arg]
            assert [one.name for one in member.wants()] == [f"Sharded_Weights.A[{n}/3]" for n in (1, 2, 3)]
            report = member.prefetch()
        assert [result.status for result in report.results] == ["fetched"] * 3
        assert member.is_cached
        with pytest.raises(InvalidInput, match="checkpoint in 3 files, and has no single path"):
            member.wanted()
        with pytest.raises(InvalidInput, match="means 3 weights"):
            member.path()


def test_naming_weights_imports_next_to_nothing() -> None:
    code = (
        "import sys; before = set(sys.modules); import weightstore; "
        "weights = weightstore.get_weight('ResNet50_Weights.IMAGENET1K_V2'); "
        "str(weights.transforms), weights.meta.acc1, weights.url; "
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "torchvision", "numpy", "requests", "inspect", "dataclasses", "pathlib", "socket", "urllib.parse"}
    assert not heavy & set(done.stdout.split())


def test_without_torch_everything_has_a_name_and_says_what_to_install() -> None:
    code = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "torchvision", "numpy"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
import weightstore
from weightstore.errors import MissingDependency
weights = weightstore.torchvision.ViT_B_16_Weights.DEFAULT
print(weights, weights.transforms, weights.meta.num_params)
for attempt in (
    lambda: weights.transforms(),
    lambda: weights.get_state_dict(),
    lambda: weightstore.get_model("vit_b_16", weights=weights),
    lambda: weightstore.get_model_builder("vit_b_16"),
    lambda: weightstore.torchvision.vit_b_16(weights=weights),
    lambda: weightstore.load_state_dict(weights),
):
    try:
        attempt()
    except MissingDependency as error:
        print(error.exit_code, 'pip install "weightstore[torch]"' in str(error))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [
        "ViT_B_16_Weights.IMAGENET1K_V1 ImageClassification(crop_size=224) 86567656",
        *["10 True"] * 6,
    ], done.stderr


def test_untouched_is_what_it_says() -> None:
    assert untouched(3) == 3
