"""Walking through code in the order in which it would run, with what each name may stand for at each point.

Both branches are taken; a loop's body is walked twice, and only told of the second time; the bodies of functions are
walked when all around them has been, those that were seen called first, with what they were called with.
"""

from __future__ import annotations

import ast
import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

from weightstore.interop.scan.calls import Asked, of_url
from weightstore.interop.scan.evaluation import (
    ONLY_KNOWN_WHEN_IT_RUNS,
    Arguments,
    elements,
    evaluate,
    is_weights_enum,
    unpacked,
)
from weightstore.interop.scan.functions import Deferred, Function, Functions
from weightstore.interop.scan.urls import is_checkpoint_url
from weightstore.interop.scan.values import (
    UNKNOWN,
    Found,
    Named,
    Record,
    Scope,
    Unknown,
    Values,
    merged,
    strings,
    union,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from weightstore.interop.scan.calls import Calls
    from weightstore.interop.scan.enums import Enums
    from weightstore.interop.scan.modules import Modules

_ENDS = (ast.Return, ast.Raise, ast.Continue, ast.Break)


class Walker:
    """Walks through one module, or the cells of one notebook, and reports all that asks for weights."""

    def __init__(
        self,
        *,
        calls: Calls,
        enums: Enums,
        package: str,
        modules: Modules,
        report: Callable[[ast.expr, Asked, bool], None],
        too_deep: Callable[[ast.stmt], None],
        is_silent: bool = False,
    ) -> None:
        """Begin.

        Args:
            calls: knows what calls of imported functions ask for.
            enums: knows the members of weights enums.
            package: the package that relative imports start from.
            modules: what is known of the other files that are scanned.
            report: told of an expression, of what it asks for, and whether it is a URL and no call.
            is_silent: whether only :attr:`names` are wanted.
            too_deep: told of a statement that is nested too deeply to be walked through to its end.
        """
        self._calls = calls
        self._enums = enums
        self._package = package
        self._report = report
        self._too_deep = too_deep
        self._scope = Scope(modules=modules)
        self._is_silent = is_silent
        self._functions = Functions()
        self._owner: ast.ClassDef | None = None

    def module(self, tree: ast.Module) -> None:
        """Walk through the statements of a module or cell; functions are left for :meth:`finish`."""
        for statement in tree.body:
            with self._not_too_deep(statement):
                self._statement(statement)

    @property
    def names(self) -> Mapping[str, Values]:
        """What the names at the top of the module may stand for, at its end."""
        return self._scope.names

    def finish(self) -> None:
        """Walk through the bodies of functions, and of those in them."""
        while self._functions:
            deferred = self._functions.pop()
            with self._not_too_deep(deferred.node):
                self._function(deferred)

    @contextlib.contextmanager
    def _not_too_deep(self, statement: ast.stmt) -> Iterator[None]:
        scope, owner, is_silent = self._scope, self._owner, self._is_silent
        try:
            yield
        except RecursionError:
            self._scope, self._owner, self._is_silent = scope, owner, is_silent
            self._too_deep(statement)

    def _walk(self, statements: Iterable[ast.stmt]) -> None:
        for statement in statements:
            self._statement(statement)

    # -- statements -------------------------------------------------------------------------------------------------

    def _statement(self, node: ast.stmt) -> None:
        match node:
            case ast.Import(names=names):
                for name in names:
                    # `import a.b` binds a, `import a.b as c` binds a.b.
                    self._scope.bind(
                        name.asname or name.name.partition(".")[0],
                        (Named(name.name if name.asname else name.name.partition(".")[0]),),
                    )
            case ast.ImportFrom():
                self._import_from(node)
            case ast.Assign(targets=targets, value=value):
                self._expression(value)
                for target in targets:
                    self._assign(target, evaluate(value, self._scope))
            case ast.AnnAssign(target=target, value=value):
                if value is not None:
                    self._expression(value)
                    self._assign(target, evaluate(value, self._scope))
            case ast.AugAssign(target=target, op=op, value=value):
                self._expression(value)
                if isinstance(target, ast.Name):
                    whole = ast.BinOp(ast.Name(target.id, ast.Load()), op, value)
                    self._scope.bind(target.id, evaluate(whole, self._scope))
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                self._define(node)
            case ast.ClassDef():
                self._class(node)
            case ast.If(test=test, body=body, orelse=orelse):
                self._expression(test)
                self._branches([body, orelse])
            case (
                ast.For(target=target, iter=iterated, body=body, orelse=orelse)
                | ast.AsyncFor(target=target, iter=iterated, body=body, orelse=orelse)
            ):
                self._expression(iterated)
                values = elements(iterated, self._scope)
                self._loop(body, lambda: self._assign(target, values))
                self._walk(orelse)
            case ast.While(test=test, body=body, orelse=orelse):
                self._expression(test)
                self._loop(body, lambda: None)
                self._walk(orelse)
            case ast.With(items=items, body=body) | ast.AsyncWith(items=items, body=body):
                for item in items:
                    self._expression(item.context_expr)
                    if item.optional_vars is not None:
                        self._assign(item.optional_vars, UNKNOWN)
                self._walk(body)
            case ast.Try() | ast.TryStar():
                self._walk(node.body)
                # Without an exception the body is all that was run: also an import that has a fallback.
                self._branches([node.orelse, *(handler.body for handler in node.handlers)])
                self._walk(node.finalbody)
            case ast.Match(subject=subject, cases=cases):
                self._expression(subject)
                for case in cases:
                    for pattern in ast.walk(case.pattern):
                        if (captured := getattr(pattern, "name", None)) is not None:
                            self._scope.bind(captured, UNKNOWN)
                    if case.guard is not None:
                        self._expression(case.guard)
                self._branches([[], *(case.body for case in cases)])
            case ast.Expr(value=ast.Constant()):
                pass  # a docstring, or a comment in the form of one
            case _:
                for child in ast.iter_child_nodes(node):
                    if isinstance(child, ast.expr):
                        self._expression(child)

    def _import_from(self, node: ast.ImportFrom) -> None:
        module = node.module or ""
        if node.level:
            parts = self._package.split(".") if self._package else []
            kept = parts[: len(parts) - node.level + 1] if node.level <= len(parts) else [""]
            module = ".".join([*kept, *([module] if module else [])])
        for name in node.names:
            if name.name == "*":
                self._scope.stars.append(module)
            else:
                self._scope.bind(name.asname or name.name, self._scope.imported(module, name.name))

    def _branches(self, bodies: Iterable[Sequence[ast.stmt]]) -> None:
        """Walk through each of some branches; afterwards any of those that go on may have been taken."""
        before = self._scope.names
        after: dict[str, Values] | None = None
        for body in bodies:
            self._scope.names = dict(before)
            self._walk(body)
            if not (body and isinstance(body[-1], _ENDS)):
                after = self._scope.names if after is None else merged(after, self._scope.names)
        self._scope.names = before if after is None else after

    def _loop(self, body: Sequence[ast.stmt], begin: Callable[[], None]) -> None:
        before = dict(self._scope.names)
        if not self._is_silent:  # what one round leaves behind is there in the next
            self._is_silent = True
            begin()
            self._walk(body)
            self._is_silent = False
            self._scope.names = merged(self._scope.names, before)
        begin()
        self._walk(body)
        self._scope.names = merged(self._scope.names, before)

    def _assign(self, target: ast.expr, values: Values) -> None:
        match target:
            case ast.Name(id=name):
                self._scope.bind(name, values)
            case ast.Tuple(elts=targets) | ast.List(elts=targets):
                for one, its in zip(targets, unpacked(values, len(targets)), strict=True):
                    self._assign(one, its)
            case ast.Starred(value=starred):
                self._assign(starred, UNKNOWN)
            case ast.Attribute(value=ast.Name(id=name), attr=key):
                self._set_member(name, key, values)
            case ast.Subscript(value=ast.Name(id=name), slice=ast.Constant(value=key)):
                self._set_member(name, str(key), values)
            case _:
                self._expression(target)

    def _set_member(self, name: str, key: str, values: Values) -> None:
        records = self._scope.look_up(name)
        if all(isinstance(one, Record) for one in records):
            changed = (replace(one, members={**one.members, key: values}) for one in records if isinstance(one, Record))
            self._scope.bind(name, union(changed))
        elif name in self._scope.names and any(isinstance(one, Unknown) for one in records):
            self._scope.bind(name, (Record({key: values}),))

    # -- functions and classes --------------------------------------------------------------------------------------

    def _define(self, node: Function) -> None:
        for expression in (*node.decorator_list, *node.args.defaults, *node.args.kw_defaults):
            if expression is not None:
                self._expression(expression)
        self._scope.bind(node.name, (Record(node=node),))
        if not self._is_silent:
            self._functions.defer(Deferred(node, self._scope, self._owner))

    def _class(self, node: ast.ClassDef) -> None:
        for expression in (*node.decorator_list, *node.bases, *(keyword.value for keyword in node.keywords)):
            self._expression(expression)
        outer, owner = self._scope, self._owner
        self._scope, self._owner = Scope(outer, is_class=True), node
        self._walk(node.body)
        members = self._scope.names
        self._scope, self._owner = outer, owner
        if is_weights_enum(node):
            members = {name: (Found(),) if name.isupper() else values for name, values in members.items()}
        made = (Record(members, node),)
        self._scope.bind(node.name, made)
        self._functions.made(node, made)

    def _function(self, deferred: Deferred) -> None:
        outer, owner = self._scope, self._owner
        self._scope, self._owner = Scope(deferred.scope), None
        for name, values in self._functions.parameters(deferred):
            self._scope.bind(name, values)
        self._walk(deferred.node.body)
        if deferred.is_maker and deferred.owner is not None:
            self._functions.made(deferred.owner, self._scope.names.get(deferred.parameter_of_self, UNKNOWN))
        self._scope, self._owner = outer, owner

    # -- expressions ------------------------------------------------------------------------------------------------

    def _expression(self, node: ast.expr) -> None:
        if self._is_silent:
            for one in ast.walk(node):
                if isinstance(one, ast.NamedExpr):
                    self._assign(one.target, evaluate(one.value, self._scope))
            return
        match node:
            case ast.Call():
                self._call(node)
            case ast.Attribute():
                self._member(node)
            case ast.Subscript(slice=ast.Constant()):
                self._member(node)
            case ast.Constant(value=str(text)):
                if is_checkpoint_url(text):
                    self._report(node, of_url(text), True)
                return
            case ast.JoinedStr() | ast.BinOp(op=ast.Add()):
                if self._composed(node):
                    return
            case ast.Lambda():
                self._inside(node.args.args, node.body)
                return
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
                self._comprehension(node)
                return
            case ast.NamedExpr(target=target, value=value):
                self._expression(value)
                self._assign(target, evaluate(value, self._scope))
                return
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                self._expression(child)
            elif isinstance(child, ast.keyword):
                self._expression(child.value)

    def _call(self, node: ast.Call) -> None:
        arguments: Arguments | None = None
        for function in evaluate(node.func, self._scope):
            match function:
                case Named(path=path):
                    arguments = arguments or Arguments(node, self._scope)
                    for asked in self._calls.of(path, arguments):
                        self._report(node, asked, False)
                case Record(node=defined) if defined is not None:
                    arguments = arguments or Arguments(node, self._scope)
                    self._functions.called(defined, arguments)

    def _member(self, node: ast.Attribute | ast.Subscript) -> None:
        for value in evaluate(node, self._scope):
            if isinstance(value, Named) and (result := self._enums.member(value.path)) is not None:
                target, note = result
                self._report(node, Asked(target, note, value.path.partition(".")[0]), False)

    def _composed(self, node: ast.expr) -> bool:
        """Report a URL that is put together from constants; tell whether it is one, so that its parts are none."""
        values = evaluate(node, self._scope)
        urls = [text for text in strings(values) if is_checkpoint_url(text)]
        for url in urls:
            self._report(node, of_url(url), True)
        if not urls and any(isinstance(one, Unknown) for one in values):
            constants = [one for one in ast.walk(node) if isinstance(one, ast.Constant)]
            constants.sort(key=lambda one: (one.lineno, one.col_offset))
            texts = [one.value for one in constants if isinstance(one.value, str)]
            if len(texts) > 1 and is_checkpoint_url(f"{texts[0]}/{texts[-1]}"):
                self._report(node, Asked(note=f"a part of this URL is {ONLY_KNOWN_WHEN_IT_RUNS}"), True)
                return True
        return bool(urls)

    def _inside(self, parameters: Iterable[ast.arg], body: ast.expr) -> None:
        outer, self._scope = self._scope, Scope(self._scope)
        for parameter in parameters:
            self._scope.bind(parameter.arg, UNKNOWN)
        self._expression(body)
        self._scope = outer

    def _comprehension(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp) -> None:
        outer, self._scope = self._scope, Scope(self._scope)
        for generator in node.generators:
            self._expression(generator.iter)
            self._assign(generator.target, elements(generator.iter, self._scope))
            for condition in generator.ifs:
                self._expression(condition)
        for part in (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,):
            self._expression(part)
        self._scope = outer
