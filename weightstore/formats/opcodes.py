"""The opcodes of pickles that are rare in checkpoints: all of CPython's ``pickletools``, protocols 0 to 5.

Each handler takes the machine and the position after the opcode, and returns where to go on.
"""

from __future__ import annotations

import codecs
import struct
from typing import TYPE_CHECKING, TypeAlias

from weightstore.formats.inert import Group, Opaque, OutOfData, build, called, put_elements, put_items, to_tuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from weightstore.formats.pickled import Machine

_FLOAT8 = struct.Struct(">d").unpack_from
_Handler: TypeAlias = "Callable[[Machine, int], int]"


def _constant(make: Callable[[], object]) -> _Handler:
    def run(machine: Machine, position: int) -> int:
        machine.stack.append(make())
        return position

    return run


def _counted(width: int, make: Callable[[bytes], object]) -> _Handler:
    """Return the handler of a value whose size stands before it, in so many bytes."""

    def run(machine: Machine, position: int) -> int:
        size = int.from_bytes(machine.take(position, width), "little")
        position += width
        machine.stack.append(make(machine.take(position, size)))
        return position + size

    return run


def _on_line(make: Callable[[str], object]) -> _Handler:
    def run(machine: Machine, position: int) -> int:
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


def _unicode(machine: Machine, position: int) -> int:
    end = machine.data.find(b"\n", position)
    if end < 0:
        raise OutOfData("its pickle ends early")
    value = codecs.raw_unicode_escape_decode(machine.data[position:end])[0]
    value.encode()  # half of a surrogate pair can be escaped, and is no text: a ValueError
    machine.stack.append(value)
    return end + 1


def _global(machine: Machine, position: int) -> int:
    module, position = machine.line(position)
    name, position = machine.line(position)
    machine.stack.append(machine.find(module, name))
    return position


def _stack_global(machine: Machine, position: int) -> int:
    name = machine.stack.pop()
    machine.stack[-1] = machine.find(machine.stack[-1], name)
    return position


def _extension(width: int) -> _Handler:
    def run(machine: Machine, position: int) -> int:
        code = int.from_bytes(machine.take(position, width), "little")
        machine.stack.append(machine.find("copyreg", f"extension_{code}"))
        return position + width

    return run


def _inst(machine: Machine, position: int) -> int:
    module, position = machine.line(position)
    name, position = machine.line(position)
    args = tuple(machine.since_mark())
    machine.stack.append(called(machine.find(module, name), args))
    return position


def _obj(machine: Machine, position: int) -> int:
    function, *args = machine.since_mark()
    machine.stack.append(called(function, tuple(args)))
    return position


def _newobj(machine: Machine, position: int) -> int:
    args = machine.stack.pop()
    machine.stack[-1] = called(machine.stack[-1], args)
    return position


def _newobj_ex(machine: Machine, position: int) -> int:
    named = machine.stack.pop()
    args = to_tuple(machine.stack.pop())
    machine.stack[-1] = Opaque(machine.stack[-1], (args, named))  # not joined: a shared tuple would be copied
    return position


def _persid(machine: Machine, position: int) -> int:
    text, position = machine.line(position)
    machine.stack.append(machine.persistent(text))
    return position


def _from_mark(make: Callable[[list[object]], object]) -> _Handler:
    def run(machine: Machine, position: int) -> int:
        value = make(machine.since_mark())
        machine.stack.append(value)
        return position

    return run


def _dict_of(pairs: list[object]) -> dict[object, object]:
    made: dict[object, object] = {}
    put_items(made, pairs)
    return made


def _append(machine: Machine, position: int) -> int:
    value = machine.stack.pop()
    put_elements(machine.stack[-1], [value])
    return position


def _appends(machine: Machine, position: int) -> int:
    values = machine.since_mark()
    put_elements(machine.stack[-1], values)
    return position


def _setitem(machine: Machine, position: int) -> int:
    value = machine.stack.pop()
    key = machine.stack.pop()
    put_items(machine.stack[-1], [key, value])
    return position


def _setitems(machine: Machine, position: int) -> int:
    pairs = machine.since_mark()
    put_items(machine.stack[-1], pairs)
    return position


def _build_state(machine: Machine, position: int) -> int:
    state = machine.stack.pop()
    build(machine.stack[-1], state)
    return position


def _pop(machine: Machine, position: int) -> int:
    machine.stack.pop()
    return position


def _pop_mark(machine: Machine, position: int) -> int:
    machine.since_mark()
    return position


def _dup(machine: Machine, position: int) -> int:
    machine.stack.append(machine.stack[-1])
    return position


def _put(machine: Machine, position: int) -> int:
    text, position = machine.line(position)
    machine.memo[int(text)] = machine.stack[-1]
    return position


def _get(machine: Machine, position: int) -> int:
    text, position = machine.line(position)
    machine.stack.append(machine.memo[int(text)])
    return position


def _binfloat(machine: Machine, position: int) -> int:
    machine.stack.append(_FLOAT8(machine.data, position)[0])
    return position + 8


RARE: dict[int, _Handler] = {
    0x80: _skip(1),  # PROTO
    0x95: _skip(8),  # FRAME
    0x4E: _constant(lambda: None),  # NONE
    0x88: _constant(lambda: True),  # NEWTRUE
    0x5D: _constant(list),  # EMPTY_LIST
    0x7D: _constant(dict),  # EMPTY_DICT
    0x8F: _constant(Group),  # EMPTY_SET
    0x47: _binfloat,  # BINFLOAT
    0x8A: _counted(1, _long),  # LONG1
    0x8B: _counted(4, _long),  # LONG4
    0x49: _on_line(_int_line),  # INT
    0x4C: _on_line(lambda text: int(text.removesuffix("L"))),  # LONG
    0x46: _on_line(float),  # FLOAT
    0x53: _on_line(_string_line),  # STRING
    0x56: _unicode,  # UNICODE
    0x55: _counted(1, _text_or_bytes),  # SHORT_BINSTRING
    0x54: _counted(4, _text_or_bytes),  # BINSTRING
    0x8D: _counted(8, _text),  # BINUNICODE8
    0x43: _counted(1, bytes),  # SHORT_BINBYTES
    0x42: _counted(4, bytes),  # BINBYTES
    0x8E: _counted(8, bytes),  # BINBYTES8
    0x96: _counted(8, bytes),  # BYTEARRAY8
    0x63: _global,  # GLOBAL
    0x93: _stack_global,  # STACK_GLOBAL
    0x82: _extension(1),  # EXT1
    0x83: _extension(2),  # EXT2
    0x84: _extension(4),  # EXT4
    0x69: _inst,  # INST
    0x6F: _obj,  # OBJ
    0x81: _newobj,  # NEWOBJ
    0x92: _newobj_ex,  # NEWOBJ_EX
    0x50: _persid,  # PERSID
    0x6C: _from_mark(list),  # LIST
    0x64: _from_mark(_dict_of),  # DICT
    0x91: _from_mark(Group),  # FROZENSET
    0x61: _append,  # APPEND
    0x65: _appends,  # APPENDS
    0x90: _appends,  # ADDITEMS
    0x73: _setitem,  # SETITEM
    0x75: _setitems,  # SETITEMS
    0x62: _build_state,  # BUILD
    0x30: _pop,  # POP
    0x31: _pop_mark,  # POP_MARK
    0x32: _dup,  # DUP
    0x70: _put,  # PUT
    0x67: _get,  # GET
}
"""What to do for each opcode that :mod:`weightstore.formats.pickled` does not do itself."""
