"""Reads TensorBoard event files, independently of what writes them: TFRecord frames with their checksums, protobuf."""

import dataclasses
import struct


@dataclasses.dataclass
class Event:
    wall_time: float = 0.0
    step: int = 0
    version: str = ""
    scalars: dict = dataclasses.field(default_factory=dict)


def crc32c(data):
    """Bit by bit, from the definition."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(crc):
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def fields(data):
    """(field, value) of a protobuf message: integers, bytes, or raw fixed-width bytes."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        wire = key & 7
        if wire == 0:
            value, at = varint(data, at)
        else:
            if wire == 2:
                size, at = varint(data, at)
            else:
                size = {1: 8, 5: 4}[wire]
            if at + size > len(data):
                raise ValueError("a field reaches beyond its message")
            value, at = data[at:at + size], at + size
        yield key >> 3, value


def read_event(data):
    event = Event()
    for field, value in fields(data):
        if field == 1:
            event.wall_time = struct.unpack("<d", value)[0]
        elif field == 2:
            event.step = value
        elif field == 3:
            event.version = value.decode()
        elif field == 5:
            for _, item in fields(value):
                parts = dict(fields(item))
                event.scalars[parts[1].decode()] = struct.unpack("<f", parts[2])[0]
        else:
            raise ValueError(f"field {field} of an event")
    return event


def read_events(path):
    data, at, events = path.read_bytes(), 0, []
    while at < len(data):
        length, length_crc = struct.unpack_from("<QI", data, at)
        body = data[at + 12:at + 12 + length]
        body_crc = struct.unpack_from("<I", data, at + 12 + length)[0]
        if length_crc != masked(crc32c(data[at:at + 8])) or body_crc != masked(crc32c(body)):
            raise ValueError(f"{path}: a checksum is wrong at byte {at}")
        events.append(read_event(body))
        at += 16 + length
    return events
