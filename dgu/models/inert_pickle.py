"""A reader of pickles that cannot run anything: data are built, names stay names.

Python's own unpickler looks names up and calls what it finds. This one is a small stack machine for the opcodes that
EDM snapshots use (protocols 2 to 5). A global becomes a ``Symbol``, which is a pair of strings; where a pickle asks for
a call, the machine asks a table of the reader's own constructors, keyed by such pairs, and refuses all others. Nothing
from the file is imported, looked up, called or given attributes.

Lengths are checked against the bytes that are left before anything is made, byte strings are views of the file and not
copies, and the number of opcodes and of characters is bounded, so that memory is bounded as well.
"""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


class Malformed(ValueError):
    """What is wrong with a pickle, in a few words."""


@dataclass(frozen=True, slots=True)
class Symbol:
    """A global that the pickle names."""

    module: str
    name: str

    @property
    def key(self) -> tuple[str, str]:
        """The pair, as it stands in tables."""
        return (self.module, self.name)


@dataclass(slots=True)
class Budget:
    """What may still be read; shared between a pickle and the pickles inside it.

    The published network with the most tensors takes about 90,000 opcodes; an opcode makes at most some 300 bytes.
    """

    opcodes: int = 500_000
    characters: int = 1 << 26

    def take_text(self, size: int) -> None:
        """Count ``size`` bytes of text."""
        self.characters -= size
        if self.characters < 0:
            raise Malformed("too much text")


#: ``construct(*arguments)`` for a call of a symbol, by its pair of names.
Constructors = Mapping[tuple[str, str], Callable[..., Any]]


class Machine:
    """Reads one pickle.

    Args:
        data: the bytes.
        calls: what calls of a symbol (REDUCE, NEWOBJ) construct; other symbols are refused where they are named.
        names: further symbols that may be named but not called.
        build: ``build(object, state)`` for the opcode that hands state to an object.
        persistent: ``persistent(identifier)`` for persistent identifiers; None refuses them.
        budget: how much may be read.
    """

    def __init__(
        self,
        data: memoryview,
        calls: Constructors,
        *,
        names: frozenset[tuple[str, str]] = frozenset(),
        build: Callable[[Any, Any], None] | None = None,
        persistent: Callable[[Any], Any] | None = None,
        budget: Budget,
    ):
        self.data, self.at = data, 0
        self.calls, self.names, self.build, self.persistent, self.budget = calls, names, build, persistent, budget
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def load(self, start: int = 0) -> tuple[Any, int]:
        """The object of the pickle that begins at ``start``, and where it ends.

        Raises:
            Malformed: it ends early, or holds an opcode, a symbol or a structure that is not expected.
        """
        self.at, self.stack, self.below, self.memo = start, [], [], {}
        try:
            while True:
                self.budget.opcodes -= 1
                if self.budget.opcodes < 0:
                    raise Malformed("too many opcodes")
                opcode = self._bytes(1)[0]
                if opcode == 0x2E:  # STOP
                    value = self.stack.pop()
                    if self.stack or self.below:
                        raise Malformed("objects are left over at its end")
                    return value, self.at
                operation = _OPERATIONS.get(opcode)
                if operation is None:
                    raise Malformed(f"opcode 0x{opcode:02x} at byte {self.at - 1} is not expected")
                operation(self)
        except IndexError as error:
            raise Malformed(f"the opcode before byte {self.at} lacks operands") from error
        except UnicodeDecodeError as error:
            raise Malformed(f"text before byte {self.at} is not UTF-8") from error

    def _bytes(self, count: int) -> memoryview:
        end = self.at + count
        if end > len(self.data):
            raise Malformed(
                f"it ends early: {count} bytes are announced at byte {self.at}, {len(self.data) - self.at} are there"
            )
        view = self.data[self.at : end]
        self.at = end
        return view

    def _integer(self, code: str) -> int:
        return struct.unpack(code, self._bytes(struct.calcsize(code)))[0]

    def _text(self, count: int) -> str:
        view = self._bytes(count)
        self.budget.take_text(count)
        return str(view, "utf-8")

    def _line(self) -> str:
        window = bytes(self.data[self.at : self.at + 256])
        length = window.find(b"\n")
        if length < 0:
            raise Malformed(f"a name at byte {self.at} has no end")
        text = self._text(length)
        self.at += 1
        return text

    def _since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items

    def _symbol(self, module: Any, name: Any) -> Symbol:
        if not (isinstance(module, str) and isinstance(name, str)):
            raise Malformed("a global without a name")
        if (module, name) not in self.calls and (module, name) not in self.names:
            raise Malformed(f"global {module[:60]!r} {name[:60]!r} is not allowed")
        return Symbol(module, name)

    # Opcodes, by what they do.
    # ------------------------------------------------------------------------------------------

    def protocol(self) -> None:
        version = self._bytes(1)[0]
        if not 2 <= version <= 5:
            raise Malformed(f"pickle protocol {version} is not one of 2 to 5")

    def frame(self) -> None:
        length = self._integer("<Q")
        if length > len(self.data) - self.at:
            raise Malformed(
                f"it ends early: a frame of {length} bytes is announced, {len(self.data) - self.at} are there"
            )

    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def tuple_since_mark(self) -> None:
        items = self._since_mark()
        self.stack.append(tuple(items))

    def tuple_of(self, count: int) -> None:
        items = [self.stack.pop() for _ in range(count)]
        self.stack.append(tuple(reversed(items)))

    def set_items(self, pairs: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not dict or len(pairs) % 2:
            raise Malformed("items are set on what is no dictionary")
        for key, value in zip(pairs[::2], pairs[1::2]):
            if type(key) not in (str, int):  # Hashing nested tuples would recurse without bound.
                raise Malformed(f"a dictionary key is a {type(key).__name__}")
            target[key] = value

    def append(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not list:
            raise Malformed("items are appended to what is no list")
        target.extend(items)

    def pair_since_top(self) -> list[Any]:
        value = self.stack.pop()
        return [self.stack.pop(), value]

    def put(self, index: int) -> None:
        if index > len(self.memo):
            raise Malformed(f"memo entry {index} is out of order")
        self.memo[index] = self.stack[-1]

    def get(self, index: int) -> None:
        if index not in self.memo:
            raise Malformed(f"memo entry {index} is not there")
        self.stack.append(self.memo[index])

    def named(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.stack.append(self._symbol(module, name))

    def named_by_lines(self) -> None:
        module = self._line()
        self.stack.append(self._symbol(module, self._line()))

    def call(self) -> None:
        arguments, symbol = self.stack.pop(), self.stack.pop()
        if type(symbol) is not Symbol or type(arguments) is not tuple:
            raise Malformed("a call of what is no global")
        construct = self.calls.get(symbol.key)
        if construct is None:
            raise Malformed(f"global {symbol.module!r} {symbol.name!r} is not to be called")
        try:
            self.stack.append(construct(*arguments))
        except TypeError as error:
            raise Malformed(f"{symbol.module}.{symbol.name} with {len(arguments)} unusable arguments") from error

    def set_state(self) -> None:
        state = self.stack.pop()
        if self.build is None:
            raise Malformed("state is handed to an object")
        self.build(self.stack[-1], state)

    def persistent_id(self) -> None:
        if self.persistent is None:
            raise Malformed("a persistent identifier")
        self.stack.append(self.persistent(self.stack.pop()))

    def push(self, value: Any) -> None:
        self.stack.append(value)


_OPERATIONS: dict[int, Callable[[Machine], None]] = {
    ord(code): operation
    for code, operation in {
        "\x80": Machine.protocol,
        "\x95": Machine.frame,
        "(": Machine.mark,
        "N": lambda m: m.push(None),
        "\x88": lambda m: m.push(True),
        "\x89": lambda m: m.push(False),
        "K": lambda m: m.push(m._integer("<B")),
        "M": lambda m: m.push(m._integer("<H")),
        "J": lambda m: m.push(m._integer("<i")),
        "\x8a": lambda m: m.push(int.from_bytes(m._bytes(m._integer("<B")), "little", signed=True)),
        "G": lambda m: m.push(struct.unpack(">d", m._bytes(8))[0]),
        "\x8c": lambda m: m.push(m._text(m._integer("<B"))),
        "X": lambda m: m.push(m._text(m._integer("<I"))),
        "\x8d": lambda m: m.push(m._text(m._integer("<Q"))),
        "C": lambda m: m.push(m._bytes(m._integer("<B"))),
        "B": lambda m: m.push(m._bytes(m._integer("<I"))),
        "\x8e": lambda m: m.push(m._bytes(m._integer("<Q"))),
        "}": lambda m: m.push({}),
        "]": lambda m: m.push([]),
        ")": lambda m: m.push(()),
        "\x8f": lambda m: m.push(frozenset()),
        "t": Machine.tuple_since_mark,
        "\x85": lambda m: m.tuple_of(1),
        "\x86": lambda m: m.tuple_of(2),
        "\x87": lambda m: m.tuple_of(3),
        "s": lambda m: m.set_items(m.pair_since_top()),
        "u": lambda m: m.set_items(m._since_mark()),
        "a": lambda m: m.append([m.stack.pop()]),
        "e": lambda m: m.append(m._since_mark()),
        "\x94": lambda m: m.put(len(m.memo)),
        "q": lambda m: m.put(m._integer("<B")),
        "r": lambda m: m.put(m._integer("<I")),
        "h": lambda m: m.get(m._integer("<B")),
        "j": lambda m: m.get(m._integer("<I")),
        "\x93": Machine.named,
        "c": Machine.named_by_lines,
        "R": Machine.call,
        "\x81": Machine.call,
        "b": Machine.set_state,
        "Q": Machine.persistent_id,
    }.items()
}
