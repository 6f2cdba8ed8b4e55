"""Arrays in Postgres' binary format, made and cut without an object for each element.

Source of the layout: array_recv and array_send in the server, and record_send for the composite in it.
"""

from __future__ import annotations

import struct
import sys
from array import array as PythonArray
from collections.abc import Iterable, Iterator, Sequence
from uuid import UUID, SafeUUID

BOOL, TEXT, REAL, FLOAT = 16, 25, 700, 701  # element type ids
NULL = b"\xff\xff\xff\xff"
_HEADER = struct.Struct("!iiIii")
_EMPTY = 12  # bytes of an array without dimensions
_LENGTH = struct.Struct("!i")
_FLOAT = struct.Struct("!id")
_BOOLS = {True: b"\x00\x00\x00\x01\x01", False: b"\x00\x00\x00\x01\x00", None: NULL}
_UUID_AT = slice(12, 28)  # in a _span_key: number of fields, then type and length of the first
_set_int, _set_safe = (getattr(UUID, name).__set__ for name in ("int", "is_safe"))


class Array(bytes):
    """A whole array as the server sends and takes it; its type comes from the statement it is put in."""


def array(element_type: int, payload: bytes, count: int) -> Array:
    """Return the array of ``count`` elements that ``payload`` holds one after another."""
    if count == 0:
        return Array(struct.pack("!iiI", 0, 0, element_type))
    return Array(_HEADER.pack(1, 1, element_type, count, 1) + payload)


def bools(values: Iterable[bool | None]) -> bytes:
    """Return the elements of a boolean array."""
    return b"".join(map(_BOOLS.__getitem__, values))


def floats(values: Iterable[float | None]) -> bytes:
    """Return the elements of a double precision array."""
    return b"".join(NULL if value is None else _FLOAT.pack(8, value) for value in values)


def reals(vectors: Sequence[PythonArray[float]]) -> Array:
    """Return one real array of vectors that follow each other."""
    numbers = PythonArray("I", b"".join(vector.tobytes() for vector in vectors))
    words = PythonArray("I", [4]) * (2 * len(numbers))  # before each number, its length
    words[1::2] = numbers
    if sys.byteorder == "little":
        words.byteswap()
    return array(REAL, words.tobytes(), len(numbers))


def texts(values: Iterable[str | None]) -> bytes:
    """Return the elements of a text array; the texts hold neither NUL nor lone surrogates."""
    return b"".join(map(_text, values))


def _text(value: str | None) -> bytes:
    if value is None:
        return NULL
    encoded = value.encode()
    return _LENGTH.pack(len(encoded)) + encoded


def count(raw: bytes | None) -> int:
    """Return how many elements an array has; None is an array that is null."""
    if raw is None or len(raw) <= _EMPTY:
        return 0
    return int(_HEADER.unpack_from(raw)[3])


def element_type(raw: bytes) -> int:
    """Return the type id of an array's elements."""
    return int(_HEADER.unpack_from(raw)[2])


def elements(raw: bytes | None) -> Iterator[bytes | None]:
    """Yield each element without its length; None where it is null."""
    at, length_at = _HEADER.size, _LENGTH.unpack_from
    for _ in range(count(raw)):
        assert raw is not None
        (length,) = length_at(raw, at)
        at += 4
        if length < 0:
            yield None
        else:
            yield raw[at : at + length]
            at += length


def joined(element_type: int, values: Iterable[bytes]) -> Array:
    """Return the array of these elements, each without its length."""
    parts = [_LENGTH.pack(len(value)) + value for value in values]
    return array(element_type, b"".join(parts), len(parts))


def merged(arrays: Sequence[bytes]) -> Array:
    """Return the elements of arrays of one type, one array after another; there is one, at least."""
    payload = b"".join(raw[_HEADER.size :] for raw in arrays)
    return array(element_type(arrays[0]), payload, sum(map(count, arrays)))


def cut(raw: bytes, start: int, stop: int) -> Array:
    """Return the elements from start up to stop as an array of their own."""
    if start == 0 and stop == count(raw):
        return Array(raw)
    wanted = [each for place, each in enumerate(elements(raw)) if start <= place < stop and each is not None]
    return joined(element_type(raw), wanted)


def span_id(key: bytes) -> UUID:
    """Return the id in one element of a ``_span_key`` array."""
    made = object.__new__(UUID)  # its constructor looks at seven ways to say what an id is, for each span
    _set_int(made, int.from_bytes(key[_UUID_AT]))
    _set_safe(made, SafeUUID.unknown)
    return made


def first_span_id(keys: bytes) -> UUID:
    """Return the id in the first element of a ``_span_key`` array."""
    return span_id(next(elements(keys)) or b"")
