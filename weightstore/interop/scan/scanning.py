"""The use case: from paths of code to the weights that it asks for. The code is read, and never imported or run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from weightstore.interop.scan.calls import Calls
from weightstore.interop.scan.enums import Enums
from weightstore.interop.scan.files import find_files, read_code
from weightstore.interop.scan.findings import Finding, Scan, Unread
from weightstore.interop.scan.modules import Modules
from weightstore.interop.scan.showing import shown
from weightstore.interop.scan.timm_names import ask_timm
from weightstore.interop.scan.walking import Walker

if TYPE_CHECKING:
    import ast
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from weightstore.catalog.registry import Catalogs
    from weightstore.interop.scan.calls import Asked
    from weightstore.interop.scan.files import Code
    from weightstore.interop.scan.timm_names import AskTimm

    # A finding, and the timm model whose weights are still to be asked for.
    _Open = tuple[Finding, str]


def scan(paths: Iterable[Path], *, catalogs: Catalogs, timm: AskTimm = ask_timm) -> Scan:
    """Find the weights that Python files and notebooks ask for, also those under directories.

    Args:
        paths: files and directories.
        catalogs: what is known of weights names.
        timm: tells where the weights of timm's models are; asked once, and only if a model of timm's is found.

    Raises:
        InvalidInput: there is no such file.
    """
    unread: list[Unread] = []
    enums = Enums(catalogs)
    files = list(find_files(paths, unread=unread.append))
    reader = _Reader(calls=Calls(catalogs, enums), enums=enums, modules=Modules())
    if len(files) > 1:
        for path in files:
            reader.learn(path)
    opened = [one for path in files for one in reader.findings(path, unread=unread.append)]
    names = list(dict.fromkeys(name for _, name in opened if name))
    answers = timm(names) if names else {}
    findings = [_answered(finding, answers[name]) if name else finding for finding, name in opened]
    return Scan(tuple(dict.fromkeys(findings)), tuple(unread), len(files))


@dataclass(frozen=True, slots=True)
class _Reader:
    """What is known while files are read one after another."""

    calls: Calls
    enums: Enums
    modules: Modules

    def learn(self, path: Path) -> None:
        """Note what a module defines for the others to import. Problems are told when it is read for its own sake."""
        if path.suffix == ".py" and (code := read_code(path, unread=lambda _: None)) is not None:
            walker = self._walker(code, is_silent=True)
            walker.module(code.pieces[0].tree)
            self.modules.add(path, code.package, walker.names)

    def findings(self, path: Path, *, unread: Callable[[Unread], None]) -> list[_Open]:
        """Return what one file asks for, in order of place. A URL that a call is given is the call's finding alone."""
        code = read_code(path, unread=unread)
        if code is None:
            return []
        by_call: list[_Open] = []
        literal: list[_Open] = []

        def report(node: ast.expr, asked: Asked, is_literal: bool) -> None:  # noqa: FBT001 - as the walker calls it
            finding = Finding(code.place(node.lineno), shown(node), asked.target, asked.note, asked.asked_by)
            (literal if is_literal else by_call).append((finding, asked.timm_name))

        def too_deep(statement: ast.stmt) -> None:
            unread(Unread(str(code.place(statement.lineno)), "nested too deeply to be looked at"))

        walker = self._walker(code, report=report, too_deep=too_deep)
        for piece in code.pieces:
            walker.module(piece.tree)
        walker.finish()
        called = {finding.target or finding.place for finding, _ in by_call}
        found = by_call + [one for one in literal if (one[0].target or one[0].place) not in called]
        return sorted(found, key=lambda one: (one[0].place.cell or 0, one[0].place.line))

    def _walker(
        self,
        code: Code,
        *,
        report: Callable[[ast.expr, Asked, bool], None] = lambda *_: None,
        too_deep: Callable[[ast.stmt], None] = lambda _: None,
        is_silent: bool = False,
    ) -> Walker:
        return Walker(
            calls=self.calls,
            enums=self.enums,
            package=code.package,
            modules=self.modules,
            report=report,
            too_deep=too_deep,
            is_silent=is_silent,
        )


def _answered(finding: Finding, answer: tuple[str, str]) -> Finding:
    target, why = answer
    return replace(finding, target=target, note=finding.note if target else why)
