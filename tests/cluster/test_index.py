"""The index: a store as an OCI image layout, in equal bytes for equal stores, and read strictly."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weightstore.catalog.entries import Catalog
from weightstore.client import Client
from weightstore.cluster.index import (
    ARTIFACT_TYPE,
    CONFIG_TYPE,
    DIGEST,
    MANIFEST_TYPE,
    WEIGHT_TYPE,
    ModelIndex,
    build_index,
    make_entry,
    model_index,
    parse_index,
    write_index,
)
from weightstore.cluster.merging import merged
from weightstore.config import Config
from weightstore.digest import Digest
from weightstore.errors import InvalidRecord
from weightstore.records import Ref
from weightstore.source import Source
from weightstore.store.gc import plan_removals, take_inventory
from weightstore.store.layout import Layout, create_layout
from weightstore.store.receipts import Receipts
from weightstore.store.refs import write_ref
from weightstore.store.verify import verify_store

CATALOG = Catalog(
    {
        "schema": 1,
        "namespace": "site",
        "enums": {
            "Net_Weights": {
                "builder": "net",
                "default": "V1",
                "task": "classification",
                "entries": {"V1": {"source": "https://example.org/net.pth", "licence": "MIT"}},
            }
        },
    },
    place="here",
)


def put(layout: Layout, content: bytes, *sources: str) -> Digest:
    digest = Digest(hashlib.sha256(content).hexdigest())
    layout.blob(digest).write_bytes(content)
    layout.blob(digest).chmod(0o444)
    for source in sources:
        write_ref(layout, Ref(Source(source), digest, len(content), datetime.now(UTC)))
    return digest


def documents(layout: Layout, index: ModelIndex) -> list[dict]:
    return [json.loads(layout.blob(entry.manifest).read_bytes()) for entry in index.entries]


def test_each_checkpoint_is_an_artifact_whose_layer_is_the_blob(layout: Layout, receipts: Receipts) -> None:
    digest = put(layout, b"weights", "https://example.org/net.pth")
    index = build_index(layout, [CATALOG])
    write_index(layout, index, receipts=receipts)
    (manifest,) = documents(layout, index)
    assert manifest["artifactType"] == ARTIFACT_TYPE
    assert [(one["mediaType"], one["digest"], one["size"]) for one in manifest["layers"]] == [
        (WEIGHT_TYPE, str(digest), 7)
    ]
    assert manifest["config"]["mediaType"] == CONFIG_TYPE
    config = json.loads(layout.blob(Digest.parse(manifest["config"]["digest"])).read_bytes())
    assert config["descriptor"] == {
        "name": "site/Net_Weights.V1",
        "title": "net.pth",
        "sourceURL": "https://example.org/net.pth",
        "licenses": ["MIT"],
        "description": "classification",
    }
    assert config["modelfs"] == {"type": "layers", "diffIds": [str(digest)]}
    top = json.loads((layout.root / "index.json").read_bytes())
    assert [one["mediaType"] for one in top["manifests"]] == [MANIFEST_TYPE]
    assert top["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"] == "site-Net_Weights.V1"


def test_equal_stores_have_equal_bytes(tmp_path: Path, receipts: Receipts) -> None:
    written = []
    for name, order in (("a", (0, 1, 2)), ("b", (2, 0, 1))):
        layout = create_layout(tmp_path / name)
        for number in order:
            put(layout, b"%d" % number, f"https://example.org/{number}.pth", f"https://mirror.example.org/{number}.pth")
        write_index(layout, build_index(layout, [CATALOG]), receipts=receipts)
        written.append({path.name: path.read_bytes() for path in [layout.root / "index.json", *layout.blobs.iterdir()]})
    assert written[0] == written[1]


def test_what_is_written_is_what_is_read(layout: Layout, receipts: Receipts) -> None:
    put(layout, b"one", "https://example.org/net.pth", "hf://org/repo@main/net.safetensors")
    put(layout, b"two", "https://example.org/two.pth")
    index = build_index(layout, [CATALOG])
    write_index(layout, index, receipts=receipts)
    read = parse_index((layout.root / "index.json").read_bytes(), place="index.json")
    assert read.entries == index.entries
    assert read.encode() == index.encode()


def test_a_blob_that_nothing_names_and_paths_of_one_machine_are_not_published(layout: Layout) -> None:
    put(layout, b"nameless")
    digest = put(layout, b"local", "file:///home/ada/secret/net.pth")
    (entry,) = build_index(layout, []).entries
    assert (entry.digest, entry.sources, entry.title) == (digest, (), "net.pth")
    assert b"ada" not in build_index(layout, []).encode()


def test_one_name_for_two_files_is_not_guessed(layout: Layout) -> None:
    first = put(layout, b"1", "https://a.example.org/net.pth")
    second = put(layout, b"2", "https://b.example.org/net.pth")
    tags = {entry.digest: entry.ref_name for entry in build_index(layout, []).entries}
    assert tags == {one: f"net.pth-{one.hex[:12]}" for one in (first, second)}


def test_merging_keeps_what_others_pushed(layout: Layout) -> None:
    put(layout, b"1", "https://a.example.org/1.pth")
    theirs = build_index(layout, [])
    mine, texts = make_entry(theirs.entries[0].digest, 1, sources=[Source("https://b.example.org/1.pth")])
    both = merged(parse_index(theirs.encode(), place="x"), model_index([mine], documents=texts))
    (entry,) = both.entries
    assert [str(source) for source in entry.sources] == ["https://a.example.org/1.pth", "https://b.example.org/1.pth"]
    assert entry.manifest in both.documents


def test_manifests_of_others_are_kept_as_they_are() -> None:
    foreign = {"mediaType": MANIFEST_TYPE, "digest": "sha256:" + "0" * 64, "size": 5, "platform": {"os": "linux"}}
    data = json.dumps({"schemaVersion": 2, "manifests": [foreign]}).encode()
    index = parse_index(data, place="x")
    assert index.foreign == (foreign,)
    assert json.loads(index.encode())["manifests"] == [foreign]


def test_gc_keeps_what_index_json_names_and_takes_what_it_no_longer_does(layout: Layout, receipts: Receipts) -> None:
    put(layout, b"one", "https://example.org/net.pth")
    write_index(layout, build_index(layout, []), receipts=receipts)
    inventory = take_inventory(layout, receipts)
    assert plan_removals(inventory, grace_s=0) == ()
    assert [one.file.size for one in plan_removals(inventory, grace_s=0, max_size=0)] == [3]
    write_index(layout, ModelIndex(), receipts=receipts)
    assert len(plan_removals(take_inventory(layout, receipts), grace_s=0)) == 2


def test_gc_removes_no_blob_beside_an_index_that_cannot_be_read(layout: Layout, receipts: Receipts) -> None:
    put(layout, b"nameless")
    (layout.root / "index.json").write_text("{")
    assert plan_removals(take_inventory(layout, receipts), grace_s=0) == ()


def test_ls_and_verify_are_not_confused(layout: Layout, receipts: Receipts, config: Config) -> None:
    digest = put(layout, b"one", "https://example.org/net.pth")
    write_index(layout, build_index(layout, []), receipts=receipts)
    assert [one.digest for one in Client(config).stored()] == [digest]
    assert {one.verdict for one in verify_store(layout, receipts)} == {"good"}


def _damage(**annotations: str) -> bytes:
    entry, _ = make_entry(Digest("0" * 64), 5, sources=[Source("https://example.org/net.pth")])
    document = json.loads(model_index([entry]).encode())
    document["manifests"][0]["annotations"] |= annotations
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"schemaVersion": 1, "manifests": []}',
        b'{"schemaVersion": 2, "manifests": {}}',
        b'{"schemaVersion": 2, "manifests": [1]}',
        b'{"schemaVersion": 2, "manifests": [{"digest": "sha256:1"}]}',
        _damage(**{DIGEST: "sha256:0"}),
        _damage(**{"dev.weightstore.size": "-1"}),
        _damage(**{"dev.weightstore.size": "9" * 4000}),
        _damage(**{"dev.weightstore.sources": "[1]"}),
        _damage(**{"dev.weightstore.sources": '["file:///etc/passwd"]'}),
        _damage(**{"org.opencontainers.image.title": "../../net.pth"}),
        _damage(**{"org.opencontainers.image.ref.name": "../x"}),
        _damage(**{"dev.weightstore.name": "a\x1b[31m"}),
    ],
)
def test_a_damaged_index_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidRecord):
        parse_index(data, place="x")


@given(st.binary(max_size=200) | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(json.dumps))
def test_anything_else_is_refused_as_well(data: bytes | str) -> None:
    with pytest.raises(InvalidRecord):
        parse_index(data if isinstance(data, bytes) else data.encode(), place="x")
