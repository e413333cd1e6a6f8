"""Which files are scanned, and the Python in them: modules, and the code cells of notebooks. Nothing is imported."""

from __future__ import annotations

import ast
import bisect
import json
import os
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weightstore.errors import InvalidInput
from weightstore.interop.scan.findings import Place, Unread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

SUFFIXES = (".py", ".ipynb")
_PASSED_BY = frozenset(
    {
        "__pycache__",
        "__pypackages__",
        "dist-packages",
        "node_modules",
        "site-packages",
        "venv",
    }
)
_LONGEST_MODULE = 8 << 20
_LONGEST_NOTEBOOK = 256 << 20  # with all its pictures
# IPython's own syntax: a line magic, a shell command, or a question; assigned from, too.
_MAGIC = re.compile(r"^(\s*)(?:[A-Za-z_][\w., ]*=\s*)?[%!?].*$|^(\s*)[^'\"#]*[\w)\]]\?{1,2}\s*$")
# Cell magics whose cells are still Python of the same notebook.
_STILL_PYTHON = frozenset({"%%capture", "%%time", "%%timeit", "%%prun", "%%memit", "%%heat", "%%python", "%%python3"})


@dataclass(frozen=True, slots=True)
class Piece:
    """A module, or one code cell of a notebook, as it was parsed. ``cell`` counts all cells, from 1.

    The lines of a cell are counted on from those of the cells before it; ``before`` are so many.
    """

    tree: ast.Module
    cell: int | None = None
    before: int = 0


@dataclass(frozen=True, slots=True)
class Code:
    """One file's Python. ``package`` is the dotted name of the package that it lies in, empty where there is none."""

    file: str
    pieces: tuple[Piece, ...]
    package: str = ""

    def place(self, line: int) -> Place:
        """Return where a line of the trees is."""
        index = bisect.bisect_left(self.pieces, line, key=lambda piece: piece.before) - 1
        piece = self.pieces[max(index, 0)]
        return Place(self.file, line - piece.before, piece.cell)


def find_files(paths: Iterable[Path], *, unread: Callable[[Unread], None]) -> Iterator[Path]:
    """Yield the Python files and notebooks among paths and under directories, each once, in order of name.

    Hidden directories, virtual environments and installed packages under a directory are passed by; what is named is
    scanned, whatever it is called.

    Raises:
        InvalidInput: there is no such file.
    """
    seen: set[Path] = set()
    for path in paths:
        if not path.exists():
            raise InvalidInput(f"{path}: there is no such file or directory")
        for found in [path] if not path.is_dir() else _under(path, unread):
            if found not in seen:
                seen.add(found)
                yield found


def _under(directory: Path, unread: Callable[[Unread], None]) -> Iterator[Path]:
    def failed(error: OSError) -> None:
        unread(Unread(str(error.filename), error.strerror or str(error)))

    for root, directories, files in os.walk(directory, onerror=failed):
        directories[:] = sorted(
            name
            for name in directories
            if not name.startswith(".")
            and name not in _PASSED_BY
            and not os.path.exists(os.path.join(root, name, "pyvenv.cfg"))
        )
        for name in sorted(files):
            path = Path(root, name)
            if name.endswith(SUFFIXES) and not name.startswith(".") and (path.is_file() or path.is_symlink()):
                yield path


def read_code(path: Path, *, unread: Callable[[Unread], None]) -> Code | None:
    """Return the Python in a file, as far as it parses; None where nothing does. What does not is told."""
    limit = _LONGEST_NOTEBOOK if path.suffix == ".ipynb" else _LONGEST_MODULE
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        unread(Unread(str(path), error.strerror or str(error)))
        return None
    if len(data) > limit:
        unread(Unread(str(path), f"larger than {limit} bytes"))
        return None
    if path.suffix == ".ipynb":
        return _notebook(path, data, unread)
    tree = _parse(data, str(path), unread)
    return Code(str(path), (Piece(tree),), _package_of(path)) if tree is not None else None


def _notebook(path: Path, data: bytes, unread: Callable[[Unread], None]) -> Code | None:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        unread(Unread(str(path), f"not a notebook: {_short(error)}"))
        return None
    cells = document.get("cells") if isinstance(document, dict) else None
    if not isinstance(cells, list):
        unread(Unread(str(path), "not a notebook of version 4: it has no cells"))
        return None
    pieces = []
    before = 0
    for number, cell in enumerate(cells, 1):
        source = _source_of(cell)
        if source is not None and (tree := _parse(source, f"{path}[{number}]", unread)) is not None:
            ast.increment_lineno(tree, before)
            pieces.append(Piece(tree, number, before))
            before += source.count("\n") + 1
    return Code(str(path), tuple(pieces))


def _source_of(cell: Any) -> str | None:
    """Return the Python of a code cell, line for line, without IPython's own commands."""
    if not isinstance(cell, dict) or cell.get("cell_type") != "code":
        return None
    source = cell.get("source")
    if isinstance(source, list) and all(isinstance(line, str) for line in source):
        source = "".join(source)
    if not isinstance(source, str):
        return None
    lines = source.split("\n")
    first = next((index for index, line in enumerate(lines) if line.strip()), 0)
    if lines[first].startswith("%%"):
        if lines[first].split()[0] not in _STILL_PYTHON:
            return None
        lines[first] = ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse("\n".join(lines))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        # Only then: in proper Python a line may begin with % as well.
        lines = [_MAGIC.sub(lambda match: f"{match[1] or match[2] or ''}pass", line) for line in lines]
    return "\n".join(lines)


def _parse(source: str | bytes, place: str, unread: Callable[[Unread], None]) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Python has to say of somebody's escapes is not ours to tell
            return ast.parse(source)
    except SyntaxError as error:
        where = f"{place}:{error.lineno}" if error.lineno else place
        unread(Unread(where, f"does not parse: {error.msg}"))
    except (ValueError, RecursionError, MemoryError) as error:  # a NUL; nested too deeply for the parser
        unread(Unread(place, f"does not parse: {_short(error)}"))
    return None


def _package_of(path: Path) -> str:
    """Return the package that a module's relative imports start from, as the files around it tell."""
    parts: list[str] = []
    directory = path.absolute().parent
    while (directory / "__init__.py").is_file() and directory.name:
        parts.append(directory.name)
        directory = directory.parent
    return ".".join(reversed(parts))


def _short(error: BaseException) -> str:
    return str(error)[:100] or type(error).__name__
