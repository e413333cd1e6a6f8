"""Pickles read as descriptions: a machine that builds containers and scalars, and imports and calls nothing.

What a pickle would import, call or make becomes one of the values of :mod:`weightstore.formats.inert`. A few functions
are known to :mod:`weightstore.formats.rebuild`, which says what they would return.

Every opcode costs a bounded amount of memory, their number and the pickle's length are bounded, and shared values stay
shared and are never copied: a pickle of a few bytes that describes something vast stays a few values here.

The opcodes are those of CPython's ``pickletools`` (protocols 0 to 5). A loop with the frequent ones in front reads the
pickle of a model with 400 tensors in some 6 ms.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from weightstore.formats.access import Malformed
from weightstore.formats.inert import Global, OutOfData, called
from weightstore.formats.opcodes import RARE

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_BYTES = 64 << 20
MAX_OPCODES = 2_000_000
_LONGEST_NAME = 1000


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
    machine = Machine(data, resolve, persistent)
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


class Machine:
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
        rare = RARE
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
        """Return so many bytes of the pickle."""
        if position + size > len(self.data):
            raise OutOfData("its pickle ends early")
        return self.data[position : position + size]

    def line(self, position: int) -> tuple[str, int]:
        """Return the text up to the end of a line, and where to go on."""
        end = self.data.find(b"\n", position)
        if end < 0:
            raise OutOfData("its pickle ends early")
        return str(self.data[position:end], "utf-8"), end + 1

    def since_mark(self) -> list[object]:
        """Take off the stack what was put there since the last mark."""
        mark = self.marks.pop()
        values = self.stack[mark:]
        del self.stack[mark:]
        return values

    def find(self, module: object, name: object) -> Global:
        """Return the value for a name that the pickle would import."""
        if not isinstance(module, str) or not isinstance(name, str) or len(module) + len(name) > _LONGEST_NAME:
            raise Malformed("its pickle imports something that has no name")
        key = (module, name)
        if key not in self.globals:
            self.globals[key] = self.resolve(module, name)
        return self.globals[key]
