"""Which catalogs there are: the built-in one, named files, and installed packages, which are never imported."""

import importlib.abc
import importlib.machinery
import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from weightstore.catalog.registry import _LIMIT, Catalogs, read_catalog
from weightstore.errors import InvalidConfig, InvalidRecord


def document(namespace: str = "zoo", *, source: str = "https://host/net-deadbeef.pth") -> dict[str, Any]:
    entries = {"V1": {"source": source}}
    return {
        "schema": 1,
        "namespace": namespace,
        "enums": {"Zoo_Weights": {"builder": "zoonet", "default": "V1", "entries": entries}},
    }


def catalog_file(path: Path, namespace: str = "zoo", **changes: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document(namespace) | changes), "utf-8")
    return path


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of installed packages, first on sys.path."""
    directory = tmp_path / "site-packages"
    directory.mkdir()
    monkeypatch.syspath_prepend(directory)
    return directory


def distribution(site: Path, name: str, *entry_points: str) -> None:
    """Lay out what an installer leaves of a distribution."""
    info = site / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", "utf-8")
    (info / "entry_points.txt").write_text("\n".join(["[weightstore.catalogs]", *entry_points, ""]), "utf-8")


def package(site: Path, name: str) -> Path:
    """Lay out a package that cannot be imported: who tries, fails."""
    directory = site / Path(*name.split("."))
    directory.mkdir(parents=True)
    for one in (directory, *directory.parents):
        if one == site:
            break
        (one / "__init__.py").write_text('raise ImportError("needs torch, and there is none")\n', "utf-8")
    return directory


def namespaces(catalogs: Catalogs) -> list[str]:
    return [catalog.namespace for catalog in catalogs.all()]


# -- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe\xfd", "not JSON"),
        (b"[" * 200_000, "not JSON"),
        (b"1" * 5000, "not JSON"),
        (b"[]", "not an object"),
        (b"null", "not an object"),
        (b"{}", "schema None"),
    ],
    ids=["empty", "cut", "no UTF-8", "deep", "huge", "list", "null", "bare"],
)
def test_file_that_is_no_catalog_is_refused_with_its_path(data: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(data)

    with pytest.raises(InvalidRecord, match=reason) as caught:
        read_catalog(path)
    assert caught.value.place == str(path)


def test_missing_file_is_refused_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(InvalidRecord, match="No such file"):
        read_catalog(tmp_path / "x.json")
    with pytest.raises(InvalidRecord, match="Is a directory"):
        read_catalog(tmp_path)


def test_file_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    with path.open("wb") as file:
        file.truncate(_LIMIT + 1)

    with pytest.raises(InvalidRecord, match=f"larger than {_LIMIT} bytes"):
        read_catalog(path)


def test_named_files_come_before_the_built_in_catalog(tmp_path: Path) -> None:
    catalogs = Catalogs([catalog_file(tmp_path / "b.json", "b"), catalog_file(tmp_path / "a.json", "a")])

    assert [catalog.namespace for catalog in catalogs.near()] == ["b", "a", "torchvision"]


def test_named_file_may_stand_in_for_the_built_in_catalog(tmp_path: Path) -> None:
    path = catalog_file(tmp_path / "mine.json", "torchvision")

    (only,) = Catalogs([path]).near()

    assert only.place == str(path)


def test_two_named_files_of_one_namespace_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="catalogs: two files have one namespace"):
        Catalogs([catalog_file(tmp_path / "a.json"), catalog_file(tmp_path / "b.json")]).near()


def test_damaged_named_file_is_an_error_of_the_configuration(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=f"catalogs: {tmp_path}/x.json: No such file"):
        Catalogs([tmp_path / "x.json"]).near()


def test_files_are_read_once(tmp_path: Path, site: Path) -> None:
    path = catalog_file(tmp_path / "zoo.json")
    catalogs = Catalogs([path])
    before = catalogs.all()

    path.unlink()

    assert catalogs.all() == before
    assert catalogs.near() == before[:2]


# -- installed packages -----------------------------------------------------------------------------------------------


def test_catalog_of_an_installed_package_is_read_and_nothing_is_imported(site: Path) -> None:
    catalog_file(package(site, "zoo_pkg") / "catalog.json", "zoo")
    distribution(site, "zoo_pkg", "zoo = zoo_pkg:catalog.json")
    modules = set(sys.modules)
    notes: list[str] = []

    catalogs = Catalogs(note=notes.append)
    found = {catalog.namespace: catalog for catalog in catalogs.all()}

    assert found["zoo"].entry("Zoo_Weights", "V1").source.url == "https://host/net-deadbeef.pth"
    assert not {name for name in set(sys.modules) - modules if name.startswith("zoo")}
    assert notes == []
    with pytest.raises(ImportError, match="needs torch"):
        importlib.import_module("zoo_pkg")


def test_catalog_may_lie_in_a_subpackage_whose_parents_cannot_be_imported(site: Path) -> None:
    catalog_file(package(site, "zoo_pkg.models.weights") / "my.catalog.json", "zoo")
    distribution(site, "zoo_pkg", "zoo = zoo_pkg.models.weights:my.catalog.json")

    assert "zoo" in namespaces(Catalogs())
    assert not any(name.startswith("zoo_pkg") for name in sys.modules)


def test_catalog_may_lie_in_a_namespace_package(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other"
    (other / "zoo_ns").mkdir(parents=True)
    monkeypatch.syspath_prepend(other)
    catalog_file(site / "zoo_ns" / "part" / "catalog.json", "zoo")
    distribution(site, "zoo_ns", "zoo = zoo_ns.part:catalog.json")

    assert "zoo" in namespaces(Catalogs())


def test_catalog_of_a_package_installed_for_editing_is_found(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # setuptools installs such packages as a finder of their own, not as a directory on sys.path.
    source = package(tmp_path / "checkout", "zoo_edited")
    catalog_file(source / "catalog.json", "zoo")
    distribution(site, "zoo_edited", "zoo = zoo_edited:catalog.json")

    class Finder(importlib.abc.MetaPathFinder):
        def find_spec(
            self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
        ) -> importlib.machinery.ModuleSpec | None:
            if fullname != "zoo_edited":
                return None
            return importlib.util.spec_from_file_location(fullname, source / "__init__.py")

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder()])

    assert "zoo" in namespaces(Catalogs())


def test_installed_catalogs_follow_the_near_ones_in_order_of_their_entry_points(site: Path, tmp_path: Path) -> None:
    for name in ("zebra", "ape"):
        catalog_file(package(site, f"{name}_pkg") / "catalog.json", name)
        distribution(site, f"{name}_pkg", f"{name} = {name}_pkg:catalog.json")

    found = namespaces(Catalogs([catalog_file(tmp_path / "mine.json", "mine")]))

    assert [one for one in found if one in {"mine", "torchvision", "ape", "zebra"}] == [
        "mine",
        "torchvision",
        "ape",
        "zebra",
    ]


def test_near_catalogs_are_found_without_looking_at_installed_packages(site: Path) -> None:
    distribution(site, "broken", "zoo = nowhere:catalog.json")
    notes: list[str] = []

    assert [catalog.namespace for catalog in Catalogs(note=notes.append).near()] == ["torchvision"]
    assert notes == []


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("zoo_pkg", "does not name a JSON file, like mypackage:catalog.json"),
        ("zoo_pkg:catalog", "does not name a JSON file"),
        ("zoo_pkg:my-catalog.json", "use letters, digits, _ and . only"),
        (":catalog.json", "use letters, digits, _ and . only"),
        ("zoo_pkg:../catalog.json", "use letters, digits, _ and . only"),
        ("not a value at all", "use letters, digits, _ and . only"),
        ("no_such_package:catalog.json", "there is no package no_such_package"),
        ("..zoo_pkg:catalog.json", "there is no package "),
        ("zoo_module:catalog.json", "there is no package zoo_module"),
        ("__main__:catalog.json", "there is no package __main__"),
        ("sys:catalog.json", "there is no package sys"),
        ("zoo_pkg:missing.json", "there is no such file in the package"),
        ("zoo_pkg:folder.json", "there is no such file in the package"),
        ("zoo_pkg:" + "x" * 300 + ".json", "there is no such file in the package"),
        ("zoo_pkg:damaged.json", "not JSON"),
        ("zoo_pkg:later.json", "this weightstore reads schema 1"),
        ("zoo_pkg:entry.json", "Zoo_Weights.V1: "),
        ("zoo_pkg:taken.json", "its namespace torchvision is taken"),
    ],
)
def test_catalog_that_cannot_be_used_is_left_out_with_a_note(site: Path, value: str, reason: str) -> None:
    directory = package(site, "zoo_pkg")
    (site / "zoo_module.py").touch()
    (directory / "folder.json").mkdir()
    (directory / "damaged.json").write_text("{", "utf-8")
    catalog_file(directory / "later.json", "zoo", schema=2)
    catalog_file(directory / "entry.json", "zoo", enums=document(source="ftp://x")["enums"])
    catalog_file(directory / "taken.json", "torchvision")
    catalog_file(package(site, "sound_pkg") / "catalog.json", "sound")
    distribution(site, "zoo_pkg", f"bad = {value}", "good = sound_pkg:catalog.json")
    notes: list[str] = []

    found = namespaces(Catalogs(note=notes.append))

    assert "sound" in found
    assert found.count("torchvision") == 1
    (note,) = [note for note in notes if note.startswith("the catalog of bad is left out: ")]
    assert reason in note


def test_second_package_with_one_namespace_is_left_out_with_a_note(site: Path) -> None:
    for name in ("one", "two"):
        catalog_file(package(site, f"zoo_{name}") / "catalog.json", "zoo")
        distribution(site, f"zoo_{name}", f"{name} = zoo_{name}:catalog.json")
    notes: list[str] = []

    catalogs = Catalogs(note=notes.append)

    (zoo,) = [catalog for catalog in catalogs.all() if catalog.namespace == "zoo"]
    assert zoo.place == str(site / "zoo_one" / "catalog.json")
    assert notes == ["the catalog of two is left out: its namespace zoo is taken"]


def test_catalogs_that_nobody_wants_notes_of_are_left_out_in_silence(site: Path) -> None:
    distribution(site, "broken", "zoo = nowhere:catalog.json")

    assert "torchvision" in namespaces(Catalogs())
