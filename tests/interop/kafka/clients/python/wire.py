"""A Kafka client small enough to send what no library would: hand-made frames, damaged batches, half requests.

Only the standard library; only non-flexible versions (except ApiVersions), so that every byte is in plain sight here.
"""

import os
import socket
import struct
import time

PRODUCE, FETCH, LIST_OFFSETS, METADATA, OFFSET_COMMIT, OFFSET_FETCH = 0, 1, 2, 3, 8, 9
FIND_COORDINATOR, JOIN_GROUP, HEARTBEAT, LEAVE_GROUP, SYNC_GROUP = 10, 11, 12, 13, 14
API_VERSIONS, CREATE_TOPICS, DELETE_TOPICS, INIT_PRODUCER_ID = 18, 19, 20, 22

NO_COMPRESSION, GZIP, SNAPPY, LZ4, ZSTD = range(5)
CODEC_NAMES = ["none", "gzip", "snappy", "lz4", "zstd"]
TRANSACTIONAL, CONTROL = 0x10, 0x20


def _crc32c_table():
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_TABLE = _crc32c_table()


def crc32c(data):
    value = 0xFFFFFFFF
    for byte in data:
        value = _TABLE[(value ^ byte) & 0xFF] ^ (value >> 8)
    return value ^ 0xFFFFFFFF


# Encoding

def i8(value):
    return struct.pack(">b", value)


def i16(value):
    return struct.pack(">h", value)


def i32(value):
    return struct.pack(">i", value)


def i64(value):
    return struct.pack(">q", value)


def text(value):
    if value is None:
        return i16(-1)
    raw = value.encode()
    return i16(len(raw)) + raw


def blob(value):
    return i32(-1) if value is None else i32(len(value)) + value


def array(items):
    return i32(len(items)) + b"".join(items)


def uvarint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def varint(value):
    return uvarint((value << 1) ^ (value >> 63))


class Reader:
    """Reads an answer from front to back; running past its end is an error."""

    def __init__(self, data, at=0):
        self.data, self.at = data, at

    def take(self, count):
        if count < 0 or self.at + count > len(self.data):
            raise ValueError(f"answer ends early: {count} bytes wanted at {self.at} of {len(self.data)}")
        out = self.data[self.at:self.at + count]
        self.at += count
        return out

    def left(self):
        return len(self.data) - self.at

    def i8(self):
        return struct.unpack(">b", self.take(1))[0]

    def i16(self):
        return struct.unpack(">h", self.take(2))[0]

    def i32(self):
        return struct.unpack(">i", self.take(4))[0]

    def u32(self):
        return struct.unpack(">I", self.take(4))[0]

    def i64(self):
        return struct.unpack(">q", self.take(8))[0]

    def text(self):
        size = self.i16()
        return None if size < 0 else self.take(size).decode()

    def blob(self):
        size = self.i32()
        return None if size < 0 else self.take(size)

    def array(self, item):
        return [item() for _ in range(max(0, self.i32()))]

    def uvarint(self):
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def varint(self):
        value = self.uvarint()
        return (value >> 1) ^ -(value & 1)


# Records

def record(delta, key, value, headers=(), timestamp_delta=0):
    def sized(raw):
        return varint(-1) if raw is None else varint(len(raw)) + raw

    body = b"\0" + varint(timestamp_delta) + varint(delta) + sized(key) + sized(value) + varint(len(headers))
    body += b"".join(sized(name.encode()) + sized(content) for name, content in headers)
    return varint(len(body)) + body


def compress(codec, data):
    if codec == NO_COMPRESSION:
        return data
    if codec == GZIP:
        import gzip
        return gzip.compress(data)
    import cramjam
    if codec == SNAPPY:
        return bytes(cramjam.snappy.compress_raw(data))
    if codec == LZ4:
        # A frame of one independent block; Java reads no blocks that depend on each other.
        block = bytes(cramjam.lz4.compress_block(data, store_size=False))
        return b"\x04\x22\x4d\x18\x60\x40\x82" + struct.pack("<I", len(block)) + block + bytes(4)
    return bytes(cramjam.zstd.compress(data))


def batch(records, codec=NO_COMPRESSION, attributes=0, producer_id=-1, epoch=-1, sequence=-1, first_timestamp=None,
          magic=2, payload=None, count=None, max_timestamp=None):
    """One record batch. `records` are (key, value) or (key, value, headers, timestamp); `payload` replaces what they
    would encode to, `count` what the header says of their number."""
    stamps = [entry[3] if len(entry) > 3 else None for entry in records]
    known = [stamp for stamp in stamps if stamp is not None]
    first = first_timestamp if first_timestamp is not None else (known[0] if known else int(time.time() * 1000))
    if payload is None:
        encoded = b"".join(
            record(index, entry[0], entry[1], entry[2] if len(entry) > 2 else (),
                   (stamps[index] - first) if stamps[index] is not None else 0)
            for index, entry in enumerate(records))
        payload = compress(codec, encoded)
    count = len(records) if count is None else count
    last = max(known) if known else first
    tail = struct.pack(">hiqqqhii", attributes | codec, count - 1, first, last if max_timestamp is None else max_timestamp,
                       producer_id, epoch, sequence, count) + payload
    head = i32(0) + i8(magic) + struct.pack(">I", crc32c(tail))
    return i64(0) + i32(len(head) + len(tail)) + head + tail


def batches(data):
    """The whole batches in a record set, header fields by name; records only of uncompressed and gzip ones."""
    out, at = [], 0
    while at + 61 <= len(data):
        base, size = struct.unpack_from(">qi", data, at)
        if at + 12 + size > len(data):
            break
        raw = data[at:at + 12 + size]
        epoch, magic, crc, attributes, last_delta, first, last, producer, producer_epoch, sequence, count = \
            struct.unpack_from(">ibIhiqqqhii", raw, 12)
        entry = dict(base_offset=base, leader_epoch=epoch, magic=magic, attributes=attributes, codec=attributes & 7,
                     last_offset_delta=last_delta, first_timestamp=first, max_timestamp=last, producer_id=producer,
                     producer_epoch=producer_epoch, sequence=sequence, count=count,
                     crc_ok=crc == crc32c(raw[21:]) if len(raw) < 1 << 20 else None, raw=raw)
        entry["records"] = records_of(raw[61:], attributes & 7, count, base, first)
        out.append(entry)
        at += 12 + size
    return out


def records_of(payload, codec, count, base, first):
    if codec == GZIP:
        import gzip
        payload = gzip.decompress(payload)
    elif codec != NO_COMPRESSION:
        return None
    reader, out = Reader(payload), []
    for _ in range(count):
        reader.varint()
        reader.i8()
        stamp, delta = reader.varint(), reader.varint()

        def sized():
            size = reader.varint()
            return None if size < 0 else reader.take(size)
        key, value = sized(), sized()
        headers = [(reader.take(reader.varint()).decode(), sized()) for _ in range(reader.varint())]
        out.append((base + delta, key, value, headers, first + stamp))
    return out


# Conversation

class Closed(Exception):
    """The server closed the connection."""


def address(bootstrap):
    host, port = bootstrap.rsplit(":", 1)
    return host.strip("[]"), int(port)


class Connection:
    """One connection; a request at a time unless `send` and `receive` are used by themselves."""

    def __init__(self, bootstrap, timeout=20, client_id="raw"):
        self.socket = socket.create_connection(address(bootstrap), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.client_id, self.correlation = client_id, 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def send(self, key, version, body, flexible=False):
        self.correlation += 1
        head = i16(key) + i16(version) + i32(self.correlation) + text(self.client_id) + (b"\0" if flexible else b"")
        self.raw(i32(len(head) + len(body)) + head + body)
        return self.correlation

    def raw(self, data):
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise Closed(str(error)) from error

    def receive(self):
        """The next answer: its correlation id and a reader over what follows."""
        size = struct.unpack(">i", self._exactly(4))[0]
        data = self._exactly(size)
        return struct.unpack_from(">i", data)[0], Reader(data, 4)

    def _exactly(self, count):
        out = bytearray()
        while len(out) < count:
            try:
                piece = self.socket.recv(min(1 << 20, count - len(out)))
            except ConnectionResetError as error:
                raise Closed(str(error)) from error
            if not piece:
                raise Closed(f"after {len(out)} of {count} bytes")
            out += piece
        return bytes(out)

    def ask(self, key, version, body, flexible=False):
        sent = self.send(key, version, body, flexible)
        correlation, reader = self.receive()
        if correlation != sent:
            raise ValueError(f"answer {correlation} to request {sent}")
        return reader

    def is_closed(self, timeout=5):
        """Whether the server closes the connection within `timeout` without a word."""
        self.socket.settimeout(timeout)
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False

    # The few requests the cases need, in one fixed version each.

    def api_versions(self, version=0):
        body = b"" if version < 3 else b"\x04raw\x041.0\0"
        return self.ask(API_VERSIONS, version, body, flexible=version >= 3)

    def metadata(self, topics):
        reader = self.ask(METADATA, 8, (i32(-1) if topics is None else array([text(t) for t in topics])) + b"\0\0\0")
        reader.i32()
        brokers = reader.array(lambda: (reader.i32(), reader.text(), reader.i32(), reader.text()))
        cluster, controller = reader.text(), reader.i32()

        def partition():
            return dict(error=reader.i16(), index=reader.i32(), leader=reader.i32(), epoch=reader.i32(),
                        replicas=reader.array(reader.i32), isr=reader.array(reader.i32), offline=reader.array(reader.i32))

        def topic():
            entry = dict(error=reader.i16(), name=reader.text(), internal=reader.i8(), partitions=reader.array(partition))
            reader.i32()
            return entry
        found = {entry["name"]: entry for entry in reader.array(topic)}
        return dict(brokers=brokers, cluster=cluster, controller=controller, topics=found)

    def create_topic(self, name, partitions=1, configs=None):
        pairs = [text(key) + text(str(value)) for key, value in (configs or {}).items()]
        body = array([text(name) + i32(partitions) + i16(1) + array([]) + array(pairs)]) + i32(15000) + b"\0"
        reader = self.ask(CREATE_TOPICS, 4, body)
        reader.i32()
        [(_, error, message)] = reader.array(lambda: (reader.text(), reader.i16(), reader.text()))
        if error:
            raise ValueError(f"creating {name}: error {error} {message}")
        self.usable(name, partitions)

    def usable(self, name, partitions):
        """Waits until a new topic can be used, which Apache Kafka takes a moment for; ours has to be at once."""
        for attempt in range(1 if os.environ.get("INTEROP_SERVER") == "azulite" else 100):
            found = self.metadata([name])["topics"][name]
            if found["error"] == 0 and all(p["leader"] >= 0 for p in found["partitions"]):
                if all(self.list_offset(name, -1, index)[0] == 0 for index in range(partitions)):
                    return
            time.sleep(0.05 * min(attempt, 1))
        raise ValueError(f"{name} has no leader after its creation: {found}")

    def delete_topic(self, name):
        reader = self.ask(DELETE_TOPICS, 3, array([text(name)]) + i32(15000))
        reader.i32()
        return reader.array(lambda: (reader.text(), reader.i16()))[0][1]

    def produce_body(self, topic, partition, data, acks=-1):
        return text(None) + i16(acks) + i32(10000) + array([text(topic) + array([i32(partition) + blob(data)])])

    def produce(self, topic, partition, data, acks=-1):
        """Answer of Produce 8 for one partition."""
        reader = self.ask(PRODUCE, 8, self.produce_body(topic, partition, data, acks))
        return self.produced(reader)

    def produced(self, reader):
        def partition():
            return dict(index=reader.i32(), error=reader.i16(), base_offset=reader.i64(), append_time=reader.i64(),
                        log_start=reader.i64(), record_errors=reader.array(lambda: (reader.i32(), reader.text())),
                        message=reader.text())
        [(_, [answer])] = reader.array(lambda: (reader.text(), reader.array(partition)))
        return answer

    def fetch_body(self, topic, partition, offset, max_wait=500, min_bytes=1, max_bytes=50 << 20, partition_bytes=1 << 20,
                   isolation=0):
        return (i32(-1) + i32(max_wait) + i32(min_bytes) + i32(max_bytes) + i8(isolation) + i32(0) + i32(-1)
                + array([text(topic) + array([i32(partition) + i32(-1) + i64(offset) + i64(-1) + i32(partition_bytes)])])
                + array([]) + text(""))

    def fetch(self, topic, partition, offset, **options):
        """Answer of Fetch 11 for one partition."""
        return self.fetched(self.ask(FETCH, 11, self.fetch_body(topic, partition, offset, **options)))

    def fetched(self, reader):
        reader.i32()
        error, session = reader.i16(), reader.i32()

        def partition():
            return dict(index=reader.i32(), error=reader.i16(), high_watermark=reader.i64(), last_stable=reader.i64(),
                        log_start=reader.i64(), aborted=reader.array(lambda: (reader.i64(), reader.i64())),
                        replica=reader.i32(), data=reader.blob() or b"")
        found = reader.array(lambda: (reader.text(), reader.array(partition)))
        if error or not found:
            return dict(error=error, session=session, data=b"")
        return found[0][1][0]

    def fetch_all(self, topic, partition=0, offset=0):
        """Every batch from `offset` to the high watermark."""
        out = []
        while True:
            answer = self.fetch(topic, partition, offset, max_wait=0)
            if answer["error"]:
                raise ValueError(f"fetch of {topic} at {offset}: error {answer['error']}")
            found = batches(answer["data"])
            if not found:
                return out
            out += found
            offset = found[-1]["base_offset"] + found[-1]["last_offset_delta"] + 1

    def list_offset(self, topic, timestamp, partition=0):
        """(error, timestamp, offset) of ListOffsets 5."""
        body = i32(-1) + b"\0" + array([text(topic) + array([i32(partition) + i32(-1) + i64(timestamp)])])
        reader = self.ask(LIST_OFFSETS, 5, body)
        reader.i32()
        found = reader.array(lambda: (reader.text(), reader.array(
            lambda: (reader.i32(), reader.i16(), reader.i64(), reader.i64(), reader.i32()))))
        _, error, stamp, offset, _ = found[0][1][0]
        return error, stamp, offset

    def ends(self, topic, partition=0):
        """Log start and log end."""
        return self.list_offset(topic, -2, partition)[2], self.list_offset(topic, -1, partition)[2]

    def producer_id(self):
        reader = self.ask(INIT_PRODUCER_ID, 1, text(None) + i32(60000))
        reader.i32()
        error, producer, epoch = reader.i16(), reader.i64(), reader.i16()
        if error:
            raise ValueError(f"InitProducerId: error {error}")
        return producer, epoch

    def offset_fetch(self, group, topic, partition=0):
        """(offset, leader epoch, metadata, error) of OffsetFetch 5."""
        reader = self.ask(OFFSET_FETCH, 5, text(group) + array([text(topic) + array([i32(partition)])]))
        reader.i32()
        found = reader.array(lambda: (reader.text(), reader.array(
            lambda: (reader.i32(), reader.i64(), reader.i32(), reader.text(), reader.i16()))))
        return found[0][1][0][1:]

    def join(self, group, member="", instance=None, session=10000, rebalance=60000, subscription=b"", protocol="range"):
        """Answer of JoinGroup 5, asked again with the id that the coordinator hands out."""
        body = (text(group) + i32(session) + i32(rebalance) + text(member) + text(instance) + text("consumer")
                + array([text(protocol) + blob(subscription)]))
        reader = self.ask(JOIN_GROUP, 5, body)
        reader.i32()
        answer = dict(error=reader.i16(), generation=reader.i32(), protocol=reader.text(), leader=reader.text(),
                      member=reader.text(),
                      members=reader.array(lambda: (reader.text(), reader.text(), reader.blob())))
        if answer["error"] == 79:
            return self.join(group, answer["member"], instance, session, rebalance, subscription, protocol)
        return answer

    def sync(self, group, generation, member, assignments=(), instance=None):
        body = (text(group) + i32(generation) + text(member) + text(instance)
                + array([text(who) + blob(what) for who, what in assignments]))
        reader = self.ask(SYNC_GROUP, 3, body)
        reader.i32()
        return reader.i16(), reader.blob()

    def heartbeat(self, group, generation, member, instance=None):
        reader = self.ask(HEARTBEAT, 3, text(group) + i32(generation) + text(member) + text(instance))
        reader.i32()
        return reader.i16()
