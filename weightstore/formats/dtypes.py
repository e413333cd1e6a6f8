"""Element types by the names that torch prints, and how many bits each takes in a file."""

from __future__ import annotations

_BITS = {
    8: "uint8 int8 bool bits8 bits1x8 bits2x4 bits4x2 qint8 quint8 float8_e4m3fn float8_e4m3fnuz float8_e5m2 "
    "float8_e5m2fnuz float8_e8m0fnu float4_e2m1fn_x2",
    16: "float16 bfloat16 int16 uint16 bits16",
    32: "float32 int32 uint32 complex32 bcomplex32 qint32",
    64: "float64 int64 uint64 complex64",
    128: "complex128",
    # Two or four to a byte. Those of safetensors, which torch has no names for, count single elements.
    4: "quint4x2 float4_e2m1fn",
    2: "quint2x4",
    6: "float6_e2m3fn float6_e3m2fn",
}
BITS = {name: bits for bits, names in _BITS.items() for name in names.split()}

STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "UntypedStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexDoubleStorage": "complex128",
    "ComplexFloatStorage": "complex64",
    "QInt8Storage": "qint8",
    "QInt32Storage": "qint32",
    "QUInt8Storage": "quint8",
    "QUInt4x2Storage": "quint4x2",
    "QUInt2x4Storage": "quint2x4",
}
"""The element type of each of torch's storage classes."""

SAFETENSORS = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
    "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2": "float8_e5m2",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
    "F4": "float4_e2m1fn",
    "F6_E2M3": "float6_e2m3fn",
    "F6_E3M2": "float6_e3m2fn",
}
"""The element types of the safetensors format, by its names (safetensors, ``Dtype``)."""


def size_of(dtype: str, numel: int) -> int:
    """Return how many bytes so many elements take, rounded up to whole ones."""
    return (numel * BITS[dtype] + 7) // 8
