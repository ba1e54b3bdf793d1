"""Whether an ONNX file keeps all of its tensors inside: read from its bytes, before it is loaded.

A tensor may refer to a file outside by name; whoever loads such a model opens that file. This
walks the messages that can hold a tensor, by the field numbers of onnx.proto, and skips the rest.
"""

from __future__ import annotations

MOST_FIELDS = 5_000_000  # protobuf fields looked at
MOST_DEPTH = 64  # messages within one another

# message: {field number: message it holds}; only the way to tensors
_HOLDS = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14  # of a tensor
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def problem(model: bytes) -> str | None:
    """What forbids to load a model, or None: a tensor outside, or no ONNX at all."""
    view, fields = memoryview(model), 0
    left = [("model", 0, len(model), 0)]
    try:
        while left:
            message, at, end, depth = left.pop()
            if depth > MOST_DEPTH:
                return "nested too deeply"
            while at < end:
                fields += 1
                if fields > MOST_FIELDS:
                    return f"more than {MOST_FIELDS} fields"
                tag, at = _varint(view, at, end)
                number, kind = tag >> 3, tag & 7
                if not 0 < number < 1 << 29:
                    return "not an ONNX model"
                value = size = 0
                if kind == _VARINT:
                    value, at = _varint(view, at, end)
                elif kind == _BYTES:
                    size, at = _varint(view, at, end)
                elif kind in (_FIXED64, _FIXED32):
                    size = 8 if kind == _FIXED64 else 4
                else:
                    return "not an ONNX model"
                if message == "tensor":
                    if (number, kind) == (_EXTERNAL_DATA, _BYTES):
                        return "a tensor is in another file"
                    if (number, kind) == (_DATA_LOCATION, _VARINT) and value:
                        return "a tensor is in another file"
                if at + size > end:
                    return "not an ONNX model"
                inner = _HOLDS[message].get(number)
                if inner is not None and kind == _BYTES:
                    left.append((inner, at, at + size, depth + 1))
                at += size
    except IndexError:
        return "not an ONNX model"
    return None if fields else "not an ONNX model"


def _varint(view: memoryview, at: int, end: int) -> tuple[int, int]:
    """A number of 7 bits a byte, and where it ends. Raises IndexError where it doesn't."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            raise IndexError
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise IndexError
