"""Clients that mean harm or are broken: the server closes, stays small, and serves the others."""

import gzip
import os
import random
import resource
import socket
import struct
import time

import wire
from case import IS_KAFKA, ask, case, check, same, setting
from wire import Closed, Connection, array, batch, blob, i16, i32, record, text, uvarint

MIB = 1 << 20


def grown(server, before, limit, what):
    """How much the server grew; only azulite has a bound, a JVM takes what it was given."""
    extra = ask("rss", **server) - before
    check(IS_KAFKA or extra < limit, f"{what}: {extra // MIB} MiB more resident")
    return extra // MIB


def unharmed(bootstrap):
    with Connection(bootstrap) as connection:
        check(connection.metadata([])["brokers"], "no broker in the metadata")


def no_panic(server):
    with open(server["log"], encoding="utf-8", errors="replace") as log:
        found = [line.strip() for line in log if "panicked at" in line]
    check(not found, f"the server panicked: {found[:2]}")


@case
def garbage_closes_the_connection(bootstrap):
    frames = {
        "an HTTP request": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
        "a negative length": b"\xff\xff\xff\xff" + bytes(16),
        "a length above the limit": b"\x7f\xff\xff\xff" + bytes(16),
        "a length of 0": bytes(4),
        "a length of 4": i32(4) + bytes(4),
        "an unknown API": i32(16) + i16(12345) + i16(0) + i32(1) + text("x") + bytes(5),
        "a negative API": i32(16) + i16(-1) + i16(0) + i32(1) + text("x") + bytes(5),
    }
    for what, data in frames.items():
        with Connection(bootstrap) as connection:
            connection.raw(data)
            check(connection.is_closed(), f"still open after {what}")
    unharmed(bootstrap)


@case
def half_requests_do_no_harm(bootstrap):
    """A Produce cut at every length of its body, with a frame length that fits the cut."""
    with Connection(bootstrap) as connection:
        connection.create_topic("raw-cut")
        body = connection.produce_body("raw-cut", 0, batch([(b"k", b"v")]))
    for size in range(len(body)):
        with Connection(bootstrap) as connection:
            connection.send(wire.PRODUCE, 8, body[:size])
            try:
                _, reader = connection.receive()
                error = connection.produced(reader)["error"]
                check(error != 0, f"a body of {size} of {len(body)} bytes was accepted")
            except (Closed, ValueError):
                pass
    with Connection(bootstrap) as connection:
        same(connection.ends("raw-cut"), (0, 0), "log")
        same(connection.produce("raw-cut", 0, batch([(b"k", b"v")]))["error"], 0, "a whole request")


@case
def lying_lengths(bootstrap):
    """Counts and lengths far beyond the frame they are in, for several APIs."""
    huge = i32(0x7FFFFFFF)
    lies = {
        "Metadata, topics": (3, 8, huge + bytes(8), False),
        "Metadata, compact topics": (3, 12, b"\xff\xff\xff\xff\x0f" + bytes(8), True),
        "Produce, topics": (0, 8, text(None) + i16(-1) + i32(1000) + huge + bytes(32), False),
        "Produce, records": (0, 8, text(None) + i16(-1) + i32(1000) + array([text("raw-cut") + array([i32(0) + huge])]), False),
        "Fetch, partitions": (1, 11, i32(-1) + i32(0) + i32(0) + i32(1) + b"\0" + i32(0) + i32(-1) + i32(1) + text("t") + huge, False),
        "CreateTopics, configs": (19, 4, i32(1) + text("raw-lie") + i32(1) + i16(1) + i32(0) + huge + i32(1000) + b"\0", False),
        "JoinGroup, protocols": (11, 5, text("g") + i32(10000) + i32(10000) + text("") + text(None) + text("consumer") + huge, False),
        "DeleteTopics, a string": (20, 3, i32(1) + i16(0x7FFF) + bytes(8), False),
        "tagged fields": (18, 3, b"\x04raw\x041.0" + b"\xff\xff\xff\xff\x0f" + bytes(8), True),
        "a varint without end": (18, 3, b"\xff" * 20, True),
    }
    before = ask("rss")
    for what, (key, version, body, flexible) in lies.items():
        with Connection(bootstrap, timeout=5) as connection:
            try:
                connection.ask(key, version, body, flexible)
            except (Closed, ValueError):
                pass
            except TimeoutError as error:
                raise AssertionError(f"{what}: neither answered nor closed") from error
    unharmed(bootstrap)
    return f"{grown({}, before, 64 * MIB, 'lying lengths')} MiB more resident"


@case
def compression_bombs(bootstrap):
    """Small batches that unpack to much: into a topic whose records have to be looked at, and into one where not."""
    count = 256
    zeros = bytes(MIB)
    packer = gzip.compress(b"".join(record(index, b"k", zeros) for index in range(count)), 6)
    one = gzip.compress(record(0, b"k", bytes(count * MIB)), 6)
    results = []
    with Connection(bootstrap, timeout=60) as connection:
        connection.create_topic("raw-bomb", configs={"cleanup.policy": "compact"})
        connection.create_topic("raw-bomb-plain")
        before = ask("rss")
        for topic in ("raw-bomb", "raw-bomb-plain"):
            for payload, records in ((packer, count), (one, 1), (packer[:-100], count)):
                data = batch([(b"k", b"v")] * records, codec=wire.GZIP, payload=payload)
                results.append(connection.produce(topic, 0, data)["error"])
        extra = grown({}, before, 128 * MIB, "bombs")
    unharmed(bootstrap)
    return f"errors {results}, {extra} MiB more resident"


@case
def thousand_hostile_connections(bootstrap):
    """Each announces a large request and sends a little of it."""
    del bootstrap
    server = ask("spawn")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192) if hard > 0 else 8192, hard))
    # A JVM sets the announced memory aside at once: 100 MiB each would end it.
    announced = 64 * 1024 if IS_KAFKA else 90 * MIB
    before = ask("rss", of=server["of"])
    connections = []
    for number in range(1000):
        try:
            connection = socket.create_connection(wire.address(server["bootstrap"]), timeout=10)
            connection.sendall(i32(announced) + i16(0) + i16(8) + i32(number) + text("x") + os.urandom(2000))
            connections.append(connection)
        except OSError:
            pass  # The server may have its own idea of how many are enough.
    time.sleep(2)
    extra = grown({"of": server["of"]}, before, 128 * MIB, "1000 half requests")
    began = time.monotonic()
    with Connection(server["bootstrap"]) as connection:
        connection.create_topic("raw-unharmed")
        same(connection.produce("raw-unharmed", 0, batch([(b"k", b"v")]))["error"], 0, "produce beside them")
        same(len(connection.fetch_all("raw-unharmed")), 1, "batches read beside them")
    took = time.monotonic() - began
    check(took < 5, f"another client took {took:.1f} s")
    for connection in connections:
        connection.close()
    no_panic(server)
    return f"{len(connections)} connections, {extra} MiB more resident, another client took {took:.2f} s"


@case
def slow_sender_does_not_block(bootstrap):
    with Connection(bootstrap) as slow, Connection(bootstrap) as quick:
        body = text("slow")
        frame = i16(3) + i16(8) + i32(1) + body + i32(0) + b"\0\0\0"
        data = i32(len(frame)) + frame
        for at in range(len(data)):
            slow.raw(data[at:at + 1])
            began = time.monotonic()
            quick.metadata([])
            check(time.monotonic() - began < 1, "another client waited")
        same(slow.receive()[0], 1, "correlation id of the slow request")


def seeds(connection):
    """One valid frame of each kind, to be bent."""
    def frame(key, version, body, flexible=False):
        return i16(key) + i16(version) + i32(7) + text("fuzz") + (b"\0" if flexible else b"") + body
    topic = "fuzz"
    good = batch([(b"k", b"v" * 50), (b"l", b"w")], codec=wire.GZIP)
    return [
        frame(0, 8, connection.produce_body(topic, 0, good)),
        frame(0, 8, connection.produce_body(topic, 0, batch([(b"k", b"v", [("h", b"x")])]))),
        frame(1, 11, connection.fetch_body(topic, 0, 0, max_wait=10)),
        frame(2, 5, i32(-1) + b"\0" + array([text(topic) + array([i32(0) + i32(-1) + wire.i64(-1)])])),
        frame(3, 8, array([text(topic)]) + b"\0\0\0"),
        frame(3, 12, uvarint(1) + b"\0\0\0", True),
        frame(8, 3, text("fg") + i32(-1) + text("") + wire.i64(-1) + array([text(topic) + array([i32(0) + wire.i64(1) + text("m")])])),
        frame(9, 5, text("fg") + array([text(topic) + array([i32(0)])])),
        frame(10, 2, text("fg") + b"\0"),
        frame(11, 5, text("fg") + i32(10000) + i32(1000) + text("") + text(None) + text("consumer") + array([text("range") + blob(b"")])),
        frame(13, 3, text("fg") + array([text("m") + text(None)])),
        frame(14, 3, text("fg") + i32(1) + text("m") + text(None) + array([])),
        frame(15, 2, array([text("fg")])),
        frame(18, 3, b"\x04raw\x041.0\0", True),
        frame(19, 4, array([text("f1") + i32(1) + i16(1) + array([]) + array([])]) + i32(1000) + b"\1"),
        frame(22, 1, text(None) + i32(1000)),
        frame(32, 2, array([b"\2" + text(topic) + i32(-1)]) + b"\0"),
        frame(33, 1, array([b"\2" + text(topic) + array([text("retention.ms") + text("1000000")])]) + b"\0"),
        frame(37, 1, array([text(topic) + i32(2) + i32(-1)]) + i32(1000) + b"\1"),
        frame(44, 0, array([b"\2" + text(topic) + array([text("retention.ms") + b"\0" + text("5")])]) + b"\1"),
    ]


def bent(chance, seed):
    data = bytearray(seed)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        kind = chance.randrange(5)
        at = chance.randrange(len(data)) if data else 0
        if kind == 0 and data:
            data[at] = chance.randrange(256)
        elif kind == 1 and data:
            data[at] ^= 1 << chance.randrange(8)
        elif kind == 2:
            del data[at:at + chance.randrange(1, 9)]
        elif kind == 3:
            data[at:at] = chance.randbytes(chance.randrange(1, 9))
        elif len(data) >= 4:
            at = chance.randrange(len(data) - 3)
            data[at:at + 4] = chance.choice((b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff", b"\x80\0\0\0", b"\0\0\0\0", b"\xff\xff\xff\x0f"))
    return bytes(data)


@case
def random_and_mutated_frames(bootstrap):
    del bootstrap
    server = ask("spawn")
    seconds, seed = setting("fuzz_seconds", 20), setting("fuzz_seed", int(time.time()))
    chance = random.Random(seed)
    good = Connection(server["bootstrap"])
    good.create_topic("fuzz-good")
    good.create_topic("fuzz")
    kinds, sent, closed, answered, slowest = seeds(good), 0, 0, 0, 0.0
    before = ask("rss", of=server["of"])
    end, bad = time.monotonic() + seconds, None
    while time.monotonic() < end:
        if bad is None:
            bad = Connection(server["bootstrap"], timeout=0.25)
        data = bent(chance, chance.choice(kinds)) if chance.random() < 0.95 else chance.randbytes(chance.randrange(200))
        try:
            bad.raw(struct.pack(">i", len(data)) + data)
            bad.receive()
            answered += 1
        except Closed:
            closed, bad = closed + 1, None
        except (TimeoutError, ValueError, OSError):
            bad.close()
            bad = None
        sent += 1
        if sent % 100 == 0:
            began = time.monotonic()
            same(good.produce("fuzz-good", 0, batch([(None, b"good")]))["error"], 0, f"produce beside it (seed {seed})")
            slowest = max(slowest, time.monotonic() - began)
    check(slowest < 2, f"another connection waited {slowest:.1f} s (seed {seed})")
    same(good.ends("fuzz-good")[1], sent // 100, f"records of the good connection (seed {seed})")
    no_panic(server)
    extra = grown({"of": server["of"]}, before, 96 * MIB, f"fuzzing (seed {seed})")
    return f"seed {seed}: {sent} frames, {answered} answered, {closed} closed, {extra} MiB more resident"


