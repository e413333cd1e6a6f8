"""Code as it is shown: in one line, not too long, and without the credentials that a URL may carry."""

from __future__ import annotations

import ast
import copy

from weightstore.errors import InvalidInput
from weightstore.source import parse_source

_LONGEST = 56


class _WithoutSecrets(ast.NodeTransformer):
    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        if isinstance(node.value, str) and "://" in node.value:
            return ast.Constant(_displayed(node.value))
        return node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.expr:
        text = "".join(
            part.value for part in node.values if isinstance(part, ast.Constant) and isinstance(part.value, str)
        )
        may_have_secrets = "://" in text and ("@" in text or "?" in text) and not text.startswith("hf://")
        return ast.Constant("…") if may_have_secrets else node


def _displayed(text: str) -> str:
    try:
        return parse_source(text)[0].display
    except InvalidInput:
        return "…"  # it does not parse, so that nobody can tell where in it a password stands


def shown(node: ast.expr) -> str:
    """Return an expression as it is written, shortened."""
    if any(
        isinstance(one, ast.Constant) and isinstance(one.value, str) and "://" in one.value for one in ast.walk(node)
    ):
        node = _WithoutSecrets().visit(copy.deepcopy(node))
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
