"""``weightstore inspect``."""

from __future__ import annotations

import threading
from collections import Counter
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import click

from weightstore.cli import units
from weightstore.cli.options import WeightsName, command_with_example, shared_options
from weightstore.cli.terminal import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weightstore.cli.settings import Settings
    from weightstore.formats.checkpoint import TensorInfo
    from weightstore.inspection import Inspection

_FEW = 8


@command_with_example(
    example="""
weightstore inspect resnet50
weightstore inspect ./checkpoint.pth --sort size --keys 'model.layer4.*'
weightstore inspect https://models.example.org/vit.safetensors --json
""",
)
@click.argument("name", type=WeightsName())
@click.option("--keys", metavar="GLOB", help="Only tensors whose names match, as in 'layer4.*'.")
@click.option(
    "--sort",
    type=click.Choice(["name", "size"]),
    help="By name, or the largest first. As in the file by default.",
)
@click.option("--sha256", metavar="HEX", help="The digest, or its first 8 or more digits.")
@shared_options("home", "offline", "json", "quiet")
@click.pass_obj
def command(settings: Settings, *, name: str, keys: str | None, sort: str | None, sha256: str | None) -> None:
    """List the tensors of a checkpoint: .pth files of any age, and .safetensors. Needs no torch.

    What is in a store is read there, and a local path (./model.pth) where it is. Of anything else only headers are
    fetched, by range requests, and nothing is stored. Nothing is unpickled: what a file would import is listed.
    In a pipe the lines are tab-separated, with sizes in bytes and nothing shortened.
    """
    from weightstore.inspection import inspect  # start-up: --help ends before

    client = settings.client()
    wanted = client.wanted(name, sha256=sha256)
    found = inspect(wanted, obtainer=client.obtainer, note=settings.note, stop=threading.Event())
    shown = _sorted([one for one in found.checkpoint.tensors if keys is None or fnmatchcase(one.name, keys)], sort)
    if settings.json:
        settings.print_json(_as_json(wanted.name, found, shown))
        return
    if shown:
        _print(shown, found)
    else:
        settings.say("no tensor matches" if found.checkpoint.tensors else "it holds no tensor")
    _tell(found, settings)


def _sorted(tensors: list[TensorInfo], sort: str | None) -> list[TensorInfo]:
    if sort == "size":
        return sorted(tensors, key=lambda one: -one.nbytes)
    return sorted(tensors, key=lambda one: one.name) if sort == "name" else tensors


def _print(tensors: Sequence[TensorInfo], found: Inspection) -> None:
    from weightstore.cli.table import Cell, Column, print_table

    columns = [
        Column("NAME", flexible=True),
        Column("SHAPE", drop=1),
        Column("DTYPE", drop=2),
        Column("SIZE", right=True),
    ]
    rows = [
        [
            Cell(printable(one.name)),
            Cell(" x ".join(map(str, one.shape)) or "scalar", "x".join(map(str, one.shape)) or "scalar"),
            Cell(one.dtype),
            Cell(units.size(one.nbytes), str(one.nbytes)),
        ]
        for one in tensors
    ]
    print_table(columns, rows, total=_summary(tensors, found))


def _summary(tensors: Sequence[TensorInfo], found: Inspection) -> str:
    checkpoint = found.checkpoint
    elements = sum(one.numel for one in tensors)
    dtypes = " ".join(name for name, _ in Counter(one.dtype for one in tensors).most_common())
    shown = f"{len(tensors)} of " if len(tensors) < len(checkpoint.tensors) else ""
    size = units.size(sum(one.nbytes for one in tensors))
    parts = [
        f"{shown}{units.count(len(checkpoint.tensors), 'tensor')}",
        f"{units.number(elements)} elements",
        size,
        dtypes,
        f"format {checkpoint.format}",
    ]
    return ", ".join(parts)


def _tell(found: Inspection, settings: Settings) -> None:
    checkpoint = found.checkpoint
    if checkpoint.others:
        # By first key: an optimizer's settings alone are dozens.
        names = list(dict.fromkeys(name.partition(".")[0] for name in checkpoint.others))
        settings.note(f"besides tensors it holds {_listed(names)}")
    if found.received:
        settings.note(
            f"{units.size(found.received)} of {units.size(found.size)} were read from {found.place}; "
            "they were not verified, and nothing was stored"
        )
    if checkpoint.foreign:
        settings.say(
            f"warning: unpickling this file would import {_listed(checkpoint.foreign)}, which no state dict needs. "
            "Do not load it with weights_only=False unless you trust where it comes from"
        )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _FEW} more" if len(names) > _FEW else ""
    return ", ".join(printable(name) or "(the whole)" for name in names[:_FEW]) + more


def _as_json(name: str, found: Inspection, tensors: Sequence[TensorInfo]) -> dict[str, object]:
    checkpoint = found.checkpoint
    return {
        "name": name,
        "place": found.place,
        "digest": str(found.digest) if found.digest else None,
        "size_bytes": found.size,
        "received_bytes": found.received,
        "format": checkpoint.format,
        "byteorder": checkpoint.byteorder,
        "is_flat": checkpoint.is_flat,
        "tensors": [
            {
                "name": one.name,
                "dtype": one.dtype,
                "shape": list(one.shape),
                "stride": list(one.stride),
                "size_bytes": one.nbytes,
                "offset": one.offset,
                "is_parameter": one.is_parameter,
                "requires_grad": one.requires_grad,
                "quantized": one.quantized,
            }
            for one in tensors
        ],
        "others": list(checkpoint.others),
        "foreign": list(checkpoint.foreign),
    }
