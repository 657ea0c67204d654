"""Encodes and decodes any message from Kafka's own schema files, which kafka-python carries in its package.

Stricter than a client: a value the schema calls non-nullable may not be null, every byte has to be used, and tagged
fields have to be the ones the schema knows.
"""

import re
import struct
import uuid

from kafka.protocol.schemas.load_json import load_json
from wire import Reader, blob, text, uvarint

INTEGERS = {"int8": ">b", "int16": ">h", "uint16": ">H", "int32": ">i", "uint32": ">I", "int64": ">q", "float64": ">d", "bool": ">?"}


def within(versions, version):
    if versions in (None, "none"):
        return False
    low, plus, high = re.fullmatch(r"(\d+)(\+)?(?:-(\d+))?", versions).groups()
    if plus:
        return version >= int(low)
    return int(low) <= version <= int(high or low)


class Schema:
    """One request or response."""

    def __init__(self, name):
        self.json = load_json(name)
        self.fields = self.json["fields"]
        low, _, high = self.json["validVersions"].partition("-")
        self.low, self.high = int(low), int(high or low)

    def flexible(self, version):
        return within(self.json["flexibleVersions"], version)

    def encode(self, version, values):
        return encode_struct(self.fields, version, self.flexible(version), values)

    def decode(self, version, data, at=0):
        reader = Reader(data, at)
        out = decode_struct(self.fields, version, self.flexible(version), reader, self.json["name"])
        if reader.left():
            raise ValueError(f"{self.json['name']} {version}: {reader.left()} bytes after its end")
        return out


def member(name):
    return name[0].lower() + name[1:]


def encode_struct(fields, version, flexible, values):
    unknown = set(values) - {member(field["name"]) for field in fields}
    if unknown:
        raise KeyError(f"no such fields: {unknown}")
    out = b""
    for field in fields:
        # Tagged fields are left at their defaults: absent.
        if within(field["versions"], version) and not within(field.get("taggedVersions"), version):
            out += encode(field["type"], field, version, flexible, values.get(member(field["name"]), default(field, version)))
    return out + (b"\0" if flexible else b"")


def default(field, version):
    kind, given = field["type"], field.get("default")
    if given == "null" or (given is None and kind == "string" and within(field.get("nullableVersions"), version)):
        return None
    if kind.startswith("[]"):
        return []
    if kind == "string":
        return given or ""
    if kind == "bool":
        return given in ("true", True)
    if kind == "uuid":
        return uuid.UUID(int=0)
    if kind in INTEGERS:
        return int(str(given or 0), 0)
    return b""


def sized(raw, flexible, short):
    if not flexible:
        return (text(raw) if short else blob(raw))
    if raw is None:
        return b"\0"
    raw = raw.encode() if isinstance(raw, str) else raw
    return uvarint(len(raw) + 1) + raw


def encode(kind, field, version, flexible, value):
    if kind.startswith("[]"):
        if value is None:
            return b"\0" if flexible else struct.pack(">i", -1)
        count = uvarint(len(value) + 1) if flexible else struct.pack(">i", len(value))
        of = {**field, "nullableVersions": "none"}
        return count + b"".join(encode(kind[2:], of, version, flexible, item) for item in value)
    if kind in INTEGERS:
        return struct.pack(INTEGERS[kind], value)
    if kind == "string":
        return sized(value, flexible, True)
    if kind in ("bytes", "records"):
        return sized(value, flexible, False)
    if kind == "uuid":
        return value.bytes
    if within(field.get("nullableVersions"), version):
        return b"\xff" if value is None else b"\1" + encode_struct(field["fields"], version, flexible, value)
    return encode_struct(field["fields"], version, flexible, value)


def decode_struct(fields, version, flexible, reader, path):
    out, tagged = {}, {}
    for field in fields:
        name = member(field["name"])
        if not within(field["versions"], version):
            continue
        if within(field.get("taggedVersions"), version):
            tagged[field["tag"]] = field
            continue
        out[name] = decode(field["type"], field, version, flexible, reader, f"{path}.{name}")
    if flexible:
        last = -1
        for _ in range(reader.uvarint()):
            tag, data = reader.uvarint(), reader.take(reader.uvarint())
            if tag not in tagged or tag <= last:
                raise ValueError(f"{path} {version}: tagged field {tag} is unknown or out of order")
            last, field = tag, tagged[tag]
            inner = Reader(data)
            out[member(field["name"])] = decode(field["type"], field, version, flexible, inner, f"{path}.{field['name']}")
            if inner.left():
                raise ValueError(f"{path} {version}: tagged field {tag} has {inner.left()} bytes too many")
    return out


def decode(kind, field, version, flexible, reader, path):
    def null():
        if not within(field.get("nullableVersions"), version):
            raise ValueError(f"{path} is null at version {version}, and the schema says never")

    def size(short=False):
        if flexible:
            return reader.uvarint() - 1
        return reader.i16() if short else reader.i32()
    if kind.startswith("[]"):
        count = size()
        if count < 0:
            return null()
        return [decode(kind[2:], {**field, "nullableVersions": "none"}, version, flexible, reader, path) for _ in range(count)]
    if kind in INTEGERS:
        return struct.unpack(INTEGERS[kind], reader.take(struct.calcsize(INTEGERS[kind])))[0]
    if kind == "uuid":
        return uuid.UUID(bytes=reader.take(16))
    if kind in ("string", "bytes", "records"):
        length = size(kind == "string")
        if length < 0:
            return null()
        return reader.take(length).decode() if kind == "string" else reader.take(length)
    if within(field.get("nullableVersions"), version) and reader.i8() < 0:
        return None
    return decode_struct(field["fields"], version, flexible, reader, path)


def codes(value):
    """Every error code in an answer, at any depth."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name.endswith("rrorCode"):
                yield inner
            else:
                yield from codes(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from codes(inner)
