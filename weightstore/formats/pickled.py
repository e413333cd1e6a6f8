"""Pickles read as descriptions: a machine that builds containers and scalars, and imports and calls nothing.

What a pickle would import becomes a :class:`Global`, what it would call or make becomes an :class:`Opaque` that keeps
the arguments. A few functions are known to :mod:`weightstore.formats.rebuild`, which says what they would return.

Every opcode costs a bounded amount of memory, their number and the pickle's length are bounded, and shared values stay
shared and are never copied: a pickle of a few bytes that describes something vast stays a few values here.

The opcodes are those of CPython's ``pickletools`` (protocols 0 to 5). A loop with the frequent ones in front reads the
pickle of a model with 400 tensors in some 6 ms.
"""

from __future__ import annotations

import codecs
import pickletools
import struct
from collections.abc import Callable
from typing import Any, TypeAlias

from weightstore.formats.access import Malformed

MAX_BYTES = 64 << 20
MAX_OPCODES = 2_000_000
_LONGEST_NAME = 1000
_LARGEST_KEY = 1 << 60
_CODES = {code.name: ord(code.code) for code in pickletools.opcodes}


class OutOfData(Malformed):
    """The pickle goes on after the bytes that were given."""


class Global:
    """A name that a pickle would import. ``call``, if not None, tells what calling it with arguments amounts to."""

    __slots__ = ("call", "dtype", "is_foreign", "module", "name", "storage_dtype")

    def __init__(
        self,
        module: str,
        name: str,
        *,
        call: Callable[[tuple[Any, ...]], object] | None = None,
        dtype: str = "",
        storage_dtype: str = "",
        is_foreign: bool = True,
    ) -> None:
        self.module = module
        self.name = name
        self.call = call
        self.dtype = dtype
        self.storage_dtype = storage_dtype
        self.is_foreign = is_foreign

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Opaque:
    """What a pickle would make by calling ``function``, and everything that it would do to it; never made."""

    __slots__ = ("args", "elements", "function", "items", "state")

    def __init__(self, function: object, args: tuple[object, ...]) -> None:
        self.function = function
        self.args = args
        self.state: object = None
        self.items: dict[object, object] = {}
        self.elements: list[object] = []


class Ordered(dict[Any, Any]):
    """A ``collections.OrderedDict``, with the attributes that it was given."""

    __slots__ = ("state",)

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.state: object = None


class Group(list[Any]):
    """A set. It is kept as a list: its members may be values that have no hash."""

    __slots__ = ()


class Key:
    """A dictionary's key that is not text or a number. Each is its own, so that a hash never has to be computed."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value


def _to_tuple(value: object) -> tuple[Any, ...]:
    if not isinstance(value, tuple):
        raise Malformed("something is called with arguments that are none")
    return value


def called(function: object, args: object) -> object:
    """Return what calling a function amounts to, as far as that is known."""
    arguments = _to_tuple(args)
    if type(function) is Global and function.call is not None:
        return function.call(arguments)
    return Opaque(function, arguments)


def put_items(target: object, pairs: list[object]) -> None:
    """Do what ``target[key] = value`` amounts to, for keys and values in turn."""
    items = target.items if isinstance(target, Opaque) else target
    if not isinstance(items, dict) or len(pairs) % 2:
        raise Malformed("items are put into something that holds none")
    for index in range(0, len(pairs), 2):
        key = pairs[index]
        if type(key) is not str:
            key = _as_key(key)
        items[key] = pairs[index + 1]


def _as_key(key: object) -> object:
    if key is None or type(key) in (bool, float, bytes):
        return key
    # Larger numbers can be chosen so that they all have one hash, which makes a dictionary a list.
    if type(key) is int and -_LARGEST_KEY < key < _LARGEST_KEY:
        return key
    return Key(key)


def _put_elements(target: object, elements: list[object]) -> None:
    if isinstance(target, Opaque):
        target.elements.extend(elements)
    elif isinstance(target, list):
        target.extend(elements)
    else:
        raise Malformed("elements are added to something that holds none")


def _build(target: object, state: object) -> None:
    if isinstance(target, (Ordered, Opaque)):
        target.state = state


def interpret(
    data: bytes,
    start: int,
    *,
    resolve: Callable[[str, str], Global],
    persistent: Callable[[object], object],
) -> tuple[object, int]:
    """Return what the pickle at ``start`` describes, and where it ends.

    Args:
        data: bytes that hold the pickle.
        start: where it begins in them.
        resolve: gives the value for a name that the pickle would import.
        persistent: gives the value for a persistent id.

    Raises:
        OutOfData: the pickle goes on after ``data``.
        Malformed: it is no pickle, or larger than any checkpoint's.
    """
    machine = _Machine(data, resolve, persistent)
    try:
        return machine.run(start)
    except (IndexError, struct.error):
        if machine.position + 9 > len(data):
            raise OutOfData("its pickle ends early") from None
        raise Malformed("its pickle takes what it never put down") from None
    except (KeyError, ValueError, TypeError, OverflowError, AttributeError, RecursionError):
        # ValueError: text that is no number or not UTF-8. TypeError, AttributeError: values of the wrong kind.
        raise Malformed("its pickle is damaged") from None


_INT4 = struct.Struct("<i").unpack_from
_UINT2 = struct.Struct("<H").unpack_from
_UINT4 = struct.Struct("<I").unpack_from
_FLOAT8 = struct.Struct(">d").unpack_from


class _Machine:
    """One pickle being read. Marks are positions in the one stack, so that its identity never changes."""

    def __init__(
        self, data: bytes, resolve: Callable[[str, str], Global], persistent: Callable[[object], object]
    ) -> None:
        self.data = data
        self.position = 0
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, object] = {}
        self.globals: dict[tuple[str, str], Global] = {}
        self.resolve = resolve
        self.persistent = persistent

    def run(self, position: int) -> tuple[object, int]:
        data, stack, marks, memo, persistent = self.data, self.stack, self.marks, self.memo, self.persistent
        push, pop = stack.append, stack.pop
        length = len(data)
        rare = _RARE
        for _ in range(MAX_OPCODES):
            self.position = position
            code = data[position]
            position += 1
            if code == 0x71:  # BINPUT
                memo[data[position]] = stack[-1]
                position += 1
            elif code == 0x72:  # LONG_BINPUT
                memo[_UINT4(data, position)[0]] = stack[-1]
                position += 4
            elif code == 0x68:  # BINGET
                push(memo[data[position]])
                position += 1
            elif code == 0x94:  # MEMOIZE
                memo[len(memo)] = stack[-1]
            elif code == 0x4B:  # BININT1
                push(data[position])
                position += 1
            elif code == 0x28:  # MARK
                marks.append(len(stack))
            elif code == 0x58:  # BINUNICODE
                begin = position + 4
                position = begin + _UINT4(data, position)[0]
                if position > length:
                    raise OutOfData("its pickle ends early")
                push(str(data[begin:position], "utf-8"))
            elif code == 0x74:  # TUPLE
                mark = marks.pop()
                value = tuple(stack[mark:])
                del stack[mark:]
                push(value)
            elif code == 0x52:  # REDUCE
                args = pop()
                function = stack[-1]
                if type(function) is Global and function.call is not None and type(args) is tuple:
                    stack[-1] = function.call(args)
                else:
                    stack[-1] = called(function, args)
            elif code == 0x85:  # TUPLE1
                stack[-1] = (stack[-1],)
            elif code == 0x86:  # TUPLE2
                last = pop()
                stack[-1] = (stack[-1], last)
            elif code == 0x87:  # TUPLE3
                last = pop()
                middle = pop()
                stack[-1] = (stack[-1], middle, last)
            elif code == 0x6A:  # LONG_BINGET
                push(memo[_UINT4(data, position)[0]])
                position += 4
            elif code == 0x51:  # BINPERSID
                stack[-1] = persistent(stack[-1])
            elif code == 0x29:  # EMPTY_TUPLE
                push(())
            elif code == 0x89:  # NEWFALSE
                push(False)
            elif code == 0x4D:  # BININT2
                push(_UINT2(data, position)[0])
                position += 2
            elif code == 0x4A:  # BININT
                push(_INT4(data, position)[0])
                position += 4
            elif code == 0x8C:  # SHORT_BINUNICODE
                begin = position + 1
                position = begin + data[position]
                if position > length:
                    raise OutOfData("its pickle ends early")
                push(str(data[begin:position], "utf-8"))
            elif code == 0x2E:  # STOP
                return pop(), position
            else:
                handler = rare.get(code)
                if handler is None:
                    raise Malformed("its pickle is damaged")
                position = handler(self, position)
        raise Malformed(f"its pickle has more than {MAX_OPCODES} steps")

    # -- what the rarer opcodes share ---------------------------------------------------------------------------

    def take(self, position: int, size: int) -> bytes:
        if position + size > len(self.data):
            raise OutOfData("its pickle ends early")
        return self.data[position : position + size]

    def line(self, position: int) -> tuple[str, int]:
        end = self.data.find(b"\n", position)
        if end < 0:
            raise OutOfData("its pickle ends early")
        return str(self.data[position:end], "utf-8"), end + 1

    def since_mark(self) -> list[object]:
        mark = self.marks.pop()
        values = self.stack[mark:]
        del self.stack[mark:]
        return values

    def find(self, module: object, name: object) -> Global:
        if not isinstance(module, str) or not isinstance(name, str) or len(module) + len(name) > _LONGEST_NAME:
            raise Malformed("its pickle imports something that has no name")
        key = (module, name)
        if key not in self.globals:
            self.globals[key] = self.resolve(module, name)
        return self.globals[key]


# -- the rarer opcodes: each takes the machine and the position after the opcode, and returns where to go on ---------

_Handler: TypeAlias = Callable[[_Machine, int], int]


def _constant(make: Callable[[], object]) -> _Handler:
    def run(machine: _Machine, position: int) -> int:
        machine.stack.append(make())
        return position

    return run


def _counted(width: int, make: Callable[[bytes], object]) -> _Handler:
    """Return the handler of a value whose size stands before it, in so many bytes."""

    def run(machine: _Machine, position: int) -> int:
        size = int.from_bytes(machine.take(position, width), "little")
        position += width
        machine.stack.append(make(machine.take(position, size)))
        return position + size

    return run


def _on_line(make: Callable[[str], object]) -> _Handler:
    def run(machine: _Machine, position: int) -> int:
        text, position = machine.line(position)
        machine.stack.append(make(text))
        return position

    return run


def _skip(size: int) -> _Handler:
    return lambda machine, position: position + len(machine.take(position, size))


def _text(data: bytes) -> str:
    return str(data, "utf-8")


def _text_or_bytes(data: bytes) -> str | bytes:
    # Python 2 had one type for both.
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError:
        return data


def _long(data: bytes) -> int:
    return int.from_bytes(data, "little", signed=True)


def _int_line(text: str) -> int | bool:
    return {"00": False, "01": True}[text] if text in ("00", "01") else int(text)


def _string_line(text: str) -> str:
    return text.strip()[1:-1]  # a description of what Python 2 wrote: its escapes are left as they are


def _unicode(machine: _Machine, position: int) -> int:
    end = machine.data.find(b"\n", position)
    if end < 0:
        raise OutOfData("its pickle ends early")
    value = codecs.raw_unicode_escape_decode(machine.data[position:end])[0]
    value.encode()  # half of a surrogate pair can be escaped, and is no text: a ValueError
    machine.stack.append(value)
    return end + 1


def _global(machine: _Machine, position: int) -> int:
    module, position = machine.line(position)
    name, position = machine.line(position)
    machine.stack.append(machine.find(module, name))
    return position


def _stack_global(machine: _Machine, position: int) -> int:
    name = machine.stack.pop()
    machine.stack[-1] = machine.find(machine.stack[-1], name)
    return position


def _extension(width: int) -> _Handler:
    def run(machine: _Machine, position: int) -> int:
        code = int.from_bytes(machine.take(position, width), "little")
        machine.stack.append(machine.find("copyreg", f"extension_{code}"))
        return position + width

    return run


def _inst(machine: _Machine, position: int) -> int:
    module, position = machine.line(position)
    name, position = machine.line(position)
    args = tuple(machine.since_mark())
    machine.stack.append(called(machine.find(module, name), args))
    return position


def _obj(machine: _Machine, position: int) -> int:
    function, *args = machine.since_mark()
    machine.stack.append(called(function, tuple(args)))
    return position


def _newobj(machine: _Machine, position: int) -> int:
    args = machine.stack.pop()
    machine.stack[-1] = called(machine.stack[-1], args)
    return position


def _newobj_ex(machine: _Machine, position: int) -> int:
    named = machine.stack.pop()
    args = _to_tuple(machine.stack.pop())
    machine.stack[-1] = Opaque(machine.stack[-1], (args, named))  # not joined: a shared tuple would be copied
    return position


def _persid(machine: _Machine, position: int) -> int:
    text, position = machine.line(position)
    machine.stack.append(machine.persistent(text))
    return position


def _from_mark(make: Callable[[list[object]], object]) -> _Handler:
    def run(machine: _Machine, position: int) -> int:
        value = make(machine.since_mark())
        machine.stack.append(value)
        return position

    return run


def _dict_of(pairs: list[object]) -> dict[object, object]:
    made: dict[object, object] = {}
    put_items(made, pairs)
    return made


def _append(machine: _Machine, position: int) -> int:
    value = machine.stack.pop()
    _put_elements(machine.stack[-1], [value])
    return position


def _appends(machine: _Machine, position: int) -> int:
    values = machine.since_mark()
    _put_elements(machine.stack[-1], values)
    return position


def _setitem(machine: _Machine, position: int) -> int:
    value = machine.stack.pop()
    key = machine.stack.pop()
    put_items(machine.stack[-1], [key, value])
    return position


def _setitems(machine: _Machine, position: int) -> int:
    pairs = machine.since_mark()
    put_items(machine.stack[-1], pairs)
    return position


def _build_state(machine: _Machine, position: int) -> int:
    state = machine.stack.pop()
    _build(machine.stack[-1], state)
    return position


def _pop(machine: _Machine, position: int) -> int:
    machine.stack.pop()
    return position


def _pop_mark(machine: _Machine, position: int) -> int:
    machine.since_mark()
    return position


def _dup(machine: _Machine, position: int) -> int:
    machine.stack.append(machine.stack[-1])
    return position


def _put(machine: _Machine, position: int) -> int:
    text, position = machine.line(position)
    machine.memo[int(text)] = machine.stack[-1]
    return position


def _get(machine: _Machine, position: int) -> int:
    text, position = machine.line(position)
    machine.stack.append(machine.memo[int(text)])
    return position


def _binfloat(machine: _Machine, position: int) -> int:
    machine.stack.append(_FLOAT8(machine.data, position)[0])
    return position + 8


_RARE: dict[int, _Handler] = {
    _CODES[name]: handler
    for name, handler in {
        "PROTO": _skip(1),
        "FRAME": _skip(8),
        "NONE": _constant(lambda: None),
        "NEWTRUE": _constant(lambda: True),
        "EMPTY_LIST": _constant(list),
        "EMPTY_DICT": _constant(dict),
        "EMPTY_SET": _constant(Group),
        "BINFLOAT": _binfloat,
        "LONG1": _counted(1, _long),
        "LONG4": _counted(4, _long),
        "INT": _on_line(_int_line),
        "LONG": _on_line(lambda text: int(text.removesuffix("L"))),
        "FLOAT": _on_line(float),
        "STRING": _on_line(_string_line),
        "UNICODE": _unicode,
        "SHORT_BINSTRING": _counted(1, _text_or_bytes),
        "BINSTRING": _counted(4, _text_or_bytes),
        "BINUNICODE8": _counted(8, _text),
        "SHORT_BINBYTES": _counted(1, bytes),
        "BINBYTES": _counted(4, bytes),
        "BINBYTES8": _counted(8, bytes),
        "BYTEARRAY8": _counted(8, bytes),
        "GLOBAL": _global,
        "STACK_GLOBAL": _stack_global,
        "EXT1": _extension(1),
        "EXT2": _extension(2),
        "EXT4": _extension(4),
        "INST": _inst,
        "OBJ": _obj,
        "NEWOBJ": _newobj,
        "NEWOBJ_EX": _newobj_ex,
        "PERSID": _persid,
        "LIST": _from_mark(list),
        "DICT": _from_mark(_dict_of),
        "FROZENSET": _from_mark(Group),
        "APPEND": _append,
        "APPENDS": _appends,
        "ADDITEMS": _appends,
        "SETITEM": _setitem,
        "SETITEMS": _setitems,
        "BUILD": _build_state,
        "POP": _pop,
        "POP_MARK": _pop_mark,
        "DUP": _dup,
        "PUT": _put,
        "GET": _get,
    }.items()
}
