"""Megatron's token files, written from docs/formats.md."""

import pathlib
import struct

import numpy


def write_tokens(prefix, ids):
    """PREFIX.bin and PREFIX.idx: one document of u16 tokens."""
    tokens = numpy.asarray(ids, dtype="<u2")
    tokens.tofile(f"{prefix}.bin")
    u16, sequences = 8, 1
    index = b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, u16, sequences, sequences + 1)
    index += struct.pack("<iq", tokens.size, 0)  # its length and its offset
    index += struct.pack("<qq", 0, sequences)  # the document's bounds
    pathlib.Path(f"{prefix}.idx").write_bytes(index)
