"""Writes the index of a SavedModel's variables, a table of LevelDB, with the checksums that TensorFlow looks at."""

from __future__ import annotations

CRC_TABLE = []
for _byte in range(256):
    for _ in range(8):
        _byte = _byte >> 1 ^ (0x82F63B78 if _byte & 1 else 0)  # CRC-32C
    CRC_TABLE.append(_byte)


def written(entries: dict[bytes, bytes]) -> bytes:
    """A table of one block; keys should be sorted."""
    data = _block(entries)
    at = _varint(0) + _varint(len(data))
    content = data + _trailer(data)
    last = _block({b"\xff": at})
    places = _varint(0) + _varint(0) + _varint(len(content)) + _varint(len(last))
    return content + last + _trailer(last) + places.ljust(40, b"\0") + bytes.fromhex("57fb808b247547db")


def _block(entries: dict[bytes, bytes]) -> bytes:
    made = b"".join(bytes(1) + _varint(len(k)) + _varint(len(v)) + k + v for k, v in entries.items())
    return made + bytes(4) + (1).to_bytes(4, "little")  # one restart, at the start


def _trailer(block: bytes) -> bytes:
    crc = 0xFFFFFFFF
    for byte in block + bytes(1):
        crc = crc >> 8 ^ CRC_TABLE[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    return bytes(1) + masked.to_bytes(4, "little")


def _varint(number: int) -> bytes:
    return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + _varint(number >> 7)
