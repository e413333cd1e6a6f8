"""Prints the catalog of TorchVision's weights as JSON, read from the installed TorchVision.

Run it after each TorchVision release, where torch and torchvision are installed::

    python scripts/generate_torchvision_catalog.py -o weightstore/catalog/torchvision.json
    python scripts/generate_torchvision_catalog.py --check weightstore/catalog/torchvision.json

The same TorchVision always gives the same bytes: one line per weights entry, enums in alphabetical order, the
members of an enum in TorchVision's order (which is the order in which the enum iterates).

What the file means where its names do not say it:

* ``size`` is in bytes. TorchVision declares MiB rounded to three decimals (``_file_size``), so most sizes are
  known to about 500 bytes only: ``size_exact`` is false there. The exact ones stand in
  ``torchvision_exact_sizes.json`` beside this script: sizes that public projects publish for these URLs, kept
  only where they agree with TorchVision's own declaration within its rounding. One that stops agreeing is
  ignored here, and a test asks to remove it.
* ``pin`` is the hexadecimal number at the end of the file name. Four of the quantized files write it after
  ``_``, where torch.hub never compared it with the bytes.
* A metric is null where TorchVision declares NaN (the ``IMAGENET1K_FEATURES`` of VGG16 cannot classify).
* ``extra`` is the rest of the meta, verbatim, and with it each key that TorchVision sets to None: a field
  that is null without being in ``extra`` is one whose key is absent.
* ``transforms`` without ``kwargs`` is the bare class, otherwise a ``functools.partial`` of it.
* ``legacy`` is what the parameter's deprecated form brings when it is true: ``default_quantized`` with
  ``quantize=True``, ``default_legacy`` with ``pretrained="legacy"``, both only where they differ from
  ``default``.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from weightstore.loading.torchvision_catalog import (
    Json,
    categories_id,
    document,
    extra,
    pin,
    size_bytes,
    spdx_licence,
    task,
    transforms_spec,
)

__all__ = ["categories_id", "extra", "pin", "size_bytes", "spdx_licence", "task", "transforms_spec"]

EXACT_SIZES_FILE = Path(__file__).with_name("torchvision_exact_sizes.json")
LINES_OF_DIFFERENCES = 20


def render(value: Json, depth: int = 0) -> str:
    """JSON text with the document's own levels spread over lines: each weights entry and list is one line."""
    if not isinstance(value, Mapping) or not value or depth == 4:
        return json.dumps(value, allow_nan=False, sort_keys=True)
    indent = " " * depth
    lines = (f"{indent} {json.dumps(key)}: {render(item, depth + 1)}" for key, item in value.items())
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}"


def differences(old: Json, new: Json, path: str = "") -> Iterator[str]:
    """A line for each place where two documents differ."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in [*old, *(key for key in new if key not in old)]:
            place = f"{path}/{key}"
            if key not in new:
                yield f"- {place}"
            elif key not in old:
                yield f"+ {place}"
            else:
                yield from differences(old[key], new[key], place)
    elif old != new:
        yield f"~ {path}: {shortened(old)} -> {shortened(new)}"


def shortened(value: Json) -> str:
    text = json.dumps(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def summary(old_text: str, new_text: str) -> list[str]:
    """The differences between two renderings for a person to read; empty if there are none."""
    if old_text == new_text:
        return []
    try:
        found = list(differences(json.loads(old_text), json.loads(new_text)))
    except json.JSONDecodeError as error:
        return [f"not a JSON document: {error}"]
    if not found:
        return ["same content in another order or layout"]
    more = len(found) - LINES_OF_DIFFERENCES
    return found[:LINES_OF_DIFFERENCES] + ([f"and {more} more"] if more > 0 else [])


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Generates the catalog of TorchVision's weights.")
    target = parser.add_mutually_exclusive_group()
    target.add_argument("-o", "--output", type=Path, metavar="FILE", help="write it to FILE")
    target.add_argument("--check", type=Path, metavar="FILE", help="exit with 1 if FILE differs, and say where")
    arguments = parser.parse_args(argv)

    sizes = json.loads(EXACT_SIZES_FILE.read_text(encoding="utf-8"))
    text = render(document(sizes, strict=True)) + "\n"
    if arguments.check:
        found = summary(arguments.check.read_text(encoding="utf-8"), text)
        if found:
            print(f"{arguments.check} is not what the installed TorchVision gives:", *found, sep="\n")
            return 1
    elif arguments.output:
        arguments.output.write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
