"""Hand-made frames: what the bytes must be, and what the server must survive."""

import raw_hostile  # noqa: F401: registers its cases
import raw_limits  # noqa: F401
import raw_storage  # noqa: F401
import statistics
import threading
import time

import wire
from case import IS_KAFKA, Skip, ask, case, check, main, same
from wire import Closed, Connection, batch, i16, i32

UNSUPPORTED_VERSION = 35


def api_keys(reader):
    return {key: (low, high) for key, low, high in reader.array(lambda: (reader.i16(), reader.i16(), reader.i16()))}


@case
def api_versions_0_to_5(bootstrap):
    with Connection(bootstrap) as connection:
        for version in range(3):
            reader = connection.api_versions(version)
            same(reader.i16(), 0, f"error of version {version}")
            keys = api_keys(reader)
            check(wire.API_VERSIONS in keys, f"version {version} lists no entry for itself")
            if version:
                reader.i32()
            same(reader.left(), 0, f"bytes after the answer of version {version}")
        for version in (3, 4):
            reader = connection.api_versions(version)
            same(reader.i16(), 0, f"error of version {version}")
            count = reader.uvarint() - 1
            flexible = {}
            for _ in range(count):
                key = reader.i16()
                flexible[key] = (reader.i16(), reader.i16())
                same(reader.uvarint(), 0, "tagged fields of an entry")
            check(flexible.keys() >= keys.keys(), "the flexible answer lists fewer APIs")
        for version in (5, 99):
            reader = connection.api_versions(version)
            same(reader.i16(), UNSUPPORTED_VERSION, f"error of version {version}")
            keys = api_keys(reader)
            same(keys.get(wire.API_VERSIONS), (0, 4), f"entry for key 18 at version {version}")
            same(reader.left(), 0, f"bytes after the answer of version {version}, in the layout of version 0")
        same(connection.api_versions(0).i16(), 0, "error of version 0 afterwards")
    return f"{len(flexible)} APIs"


@case
def client_software_name(bootstrap):
    with Connection(bootstrap) as connection:
        reader = connection.ask(wire.API_VERSIONS, 3, b"\x05a b!\x041.0\0", flexible=True)
        same(reader.i16(), 42, "error for a name with a space")
        same(connection.api_versions(3).i16(), 0, "error on the same connection afterwards")


@case
def unserved_requests_close_the_connection(bootstrap):
    for key, version, what in ((0, 2, "Produce 2"), (999, 0, "an unknown API"), (3, 99, "Metadata 99")):
        with Connection(bootstrap) as connection:
            connection.send(key, version, b"\0" * 8)
            try:
                connection.receive()
                raise AssertionError(f"{what} was answered")
            except Closed:
                pass


@case
def refused_batches(bootstrap):
    topic, good = "raw-refused", batch([(b"k", b"value")])
    with Connection(bootstrap) as connection:
        connection.create_topic(topic)
        same(connection.produce(topic, 0, good)["error"], 0, "a good batch")

        def refused(data, error, what, version=8):
            reader = connection.ask(wire.PRODUCE, version, connection.produce_body(topic, 0, data))
            got = connection.produced(reader)["error"]
            same(got, error, what)
            same(connection.ends(topic), (0, 1), f"log after {what}")

        flipped = bytearray(good)
        flipped[-2] ^= 1
        refused(bytes(flipped), 2, "a flipped payload byte")
        refused(good + good, 87, "two batches")
        refused(b"", 87, "no batch")
        refused(batch([(b"k", b"v")], attributes=wire.CONTROL), 87, "a control batch")
        refused(batch([(b"k", b"v"), (b"k", b"w")], count=3), 87, "a count that is not that of the records")
        same(connection.produce(topic, 0, good)["base_offset"], 1, "the next good batch")
        reader = connection.ask(wire.PRODUCE, 8, connection.produce_body(topic, 9, good))
        same(connection.produced(reader)["error"], 3, "a partition that does not exist")
        reader = connection.ask(wire.PRODUCE, 8, connection.produce_body(topic, 0, good, acks=7))
        same(connection.produced(reader)["error"], 21, "acks=7")


@case
def idempotent_sequences(bootstrap):
    topic = "raw-idempotent"
    three = [(b"k", b"1"), (b"k", b"2"), (b"k", b"3")]
    with Connection(bootstrap) as connection:
        connection.create_topic(topic)
        producer, epoch = connection.producer_id()

        def send(sequence, at_epoch=epoch):
            got = connection.produce(topic, 0, batch(three, producer_id=producer, epoch=at_epoch, sequence=sequence))
            return got["error"], got["base_offset"]

        same(send(0), (0, 0), "first batch")
        same(send(0), (0, 0), "the same batch again")
        same(connection.ends(topic), (0, 3), "log after a repeated batch")
        same(send(13)[0], 45, "a gap in the sequence")
        same(connection.ends(topic), (0, 3), "log after a gap")
        for number in range(1, 7):
            same(send(3 * number), (0, 3 * number), f"batch {number}")
        for number in range(2, 7):
            same(send(3 * number), (0, 3 * number), f"batch {number} again, one of the last five")
        error = send(0)[0]
        check(error in (45, 46), f"a batch older than the last five: error {error}")
        same(send(3, epoch + 1)[0], 45, "a new epoch that does not start at 0")
        same(send(0, epoch + 1), (0, 21), "a new epoch")
        same(send(21, epoch)[0], 47, "the old epoch")
        same(connection.ends(topic), (0, 24), "log at the end")
    return f"older than the last five: error {error}"


@case
def five_in_flight(bootstrap):
    """Five requests back to back are checked against each other, not only against what is durable."""
    topic = "raw-in-flight"
    with Connection(bootstrap) as connection:
        connection.create_topic(topic)
        producer, epoch = connection.producer_id()
        for number in range(200):
            data = batch([(b"k", b"%d" % number)], producer_id=producer, epoch=epoch, sequence=number)
            connection.send(wire.PRODUCE, 8, connection.produce_body(topic, 0, data))
            if number >= 4:
                _, reader = connection.receive()
                got = connection.produced(reader)
                same((got["error"], got["base_offset"]), (0, number - 4), f"answer {number - 4}")
        for number in range(196, 200):
            _, reader = connection.receive()
            same(connection.produced(reader)["base_offset"], number, f"answer {number}")


@case
def idempotence_survives_restart(bootstrap):
    topic = "raw-idempotent-restart"
    with Connection(bootstrap) as connection:
        connection.create_topic(topic)
        producer, epoch = connection.producer_id()
        for sequence in range(3):
            data = batch([(b"k", b"%d" % sequence)], producer_id=producer, epoch=epoch, sequence=sequence)
            same(connection.produce(topic, 0, data)["error"], 0, f"batch {sequence}")
    ask("restart")
    with Connection(bootstrap) as connection:
        got = connection.produce(topic, 0, data)
        same((got["error"], got["base_offset"]), (0, 2), "the last batch again, after kill -9")
        data = batch([(b"k", b"3")], producer_id=producer, epoch=epoch, sequence=3)
        got = connection.produce(topic, 0, data)
        same((got["error"], got["base_offset"]), (0, 3), "the next batch")
        fresh, _ = connection.producer_id()
        check(fresh != producer, "a producer id was given twice")


@case
def fetch_returns_whole_batches(bootstrap):
    topic = "raw-whole"
    ten = batch([(None, b"%d" % number) for number in range(10)])
    with Connection(bootstrap) as connection:
        connection.create_topic(topic)
        for _ in range(3):
            connection.produce(topic, 0, ten)
        got = connection.fetch(topic, 0, 7)
        same(wire.batches(got["data"])[0]["base_offset"], 0, "batch for a fetch in its middle")
        got = connection.fetch(topic, 0, 7, partition_bytes=1, max_bytes=1)
        found = wire.batches(got["data"])
        same([entry["base_offset"] for entry in found], [0], "one whole batch although it is over every limit")
        same(len(found[0]["raw"]), len(ten), "size of that batch")
        same(found[0]["raw"][12:16], i32(0), "leader epoch in the header")
        same(found[0]["raw"][16:], ten[16:], "bytes after the leader epoch")
        same(connection.fetch(topic, 0, 30, max_wait=0)["error"], 0, "error at the log end")
        same(connection.fetch(topic, 0, 31)["error"], 1, "error above the log end")
        same(connection.fetch(topic, 0, 30, max_wait=0)["high_watermark"], 30, "high watermark")


@case
def empty_partition_reports_high_watermark_0(bootstrap):
    with Connection(bootstrap) as connection:
        connection.create_topic("raw-empty")
        got = connection.fetch("raw-empty", 0, 0, max_wait=0)
        same((got["error"], got["high_watermark"], got["log_start"]), (0, 0, 0), "error, high watermark, log start")


@case
def long_poll_keeps_its_time(bootstrap):
    topic, waits, wakes = "raw-poll", [], []
    with Connection(bootstrap) as reader, Connection(bootstrap) as writer:
        reader.create_topic(topic)
        offset = 0
        reader.fetch(topic, 0, offset, min_bytes=1_000_000, max_wait=700)
        for _ in range(5):
            began = time.monotonic()
            reader.fetch(topic, 0, offset, min_bytes=1_000_000, max_wait=700)
            waits.append((time.monotonic() - began) * 1000)
        for _ in range(15):
            reader.send(wire.FETCH, 11, reader.fetch_body(topic, 0, offset, max_wait=5000))
            time.sleep(0.05)
            stamps = {}

            def produce():
                writer.produce(topic, 0, batch([(None, b"x")]))
                stamps["acked"] = time.monotonic()
            thread = threading.Thread(target=produce)
            thread.start()
            _, answer = reader.receive()
            woken = time.monotonic()
            thread.join()
            same(wire.batches(reader.fetched(answer)["data"])[-1]["base_offset"], offset, "what woke the fetch")
            wakes.append((woken - stamps["acked"]) * 1000)
            offset += 1
    check(all(680 <= wait <= 720 for wait in waits), f"waits of 700 ms took {waits}")
    wake = statistics.median(wakes)
    check(wake < 10, f"woken {wake:.1f} ms after the acknowledgement")
    return f"waits {min(waits):.0f} to {max(waits):.0f} ms, woken {wake:.1f} ms after the acknowledgement (median)"


@case
def acks_0_has_no_answer(bootstrap):
    topic = "raw-acks-0"
    with Connection(bootstrap) as connection:
        connection.create_topic(topic)
        for number in range(100):
            connection.send(wire.PRODUCE, 8, connection.produce_body(topic, 0, batch([(None, b"%d" % number)]), acks=0))
            if number % 10 == 0:
                connection.metadata([topic])
        same(connection.ends(topic), (0, 100), "log")


@case
def answers_come_in_order(bootstrap):
    """A parked fetch holds back the answers behind it on its connection, and only those."""
    topic = "raw-order"
    with Connection(bootstrap) as connection, Connection(bootstrap) as other:
        connection.create_topic(topic)
        sent = [connection.send(wire.FETCH, 11, connection.fetch_body(topic, 0, 0, max_wait=1000))]
        sent += [connection.send(wire.METADATA, 8, i32(0) + b"\0\0\0") for _ in range(5)]
        began = time.monotonic()
        other.metadata([topic])
        check(time.monotonic() - began < 0.5, "another connection waited for the parked fetch")
        same([connection.receive()[0] for _ in sent], sent, "correlation ids")


@case
def time_in_a_compressed_batch(bootstrap):
    topic, base = "raw-times", 1_700_000_000_000
    with Connection(bootstrap) as connection:
        connection.create_topic(topic, configs={"retention.ms": -1})
        for codec in range(5):
            stamps = [base + 1000 * codec + 10 * number for number in range(10)]
            data = batch([(None, b"x" * 50, (), stamp) for stamp in stamps], codec=codec)
            same(connection.produce(topic, 0, data)["error"], 0, wire.CODEC_NAMES[codec])
        for codec in range(5):
            name = wire.CODEC_NAMES[codec]
            at = base + 1000 * codec
            same(connection.list_offset(topic, at + 20), (0, at + 20, 10 * codec + 2), f"third record of the {name} batch")
            same(connection.list_offset(topic, at + 21), (0, at + 30, 10 * codec + 3), f"between two records of the {name} batch")
        same(connection.list_offset(topic, 0), (0, base, 0), "before the data")
        same(connection.list_offset(topic, base + 100_000), (0, -1, -1), "after the data")
        same(connection.list_offset(topic, -2), (0, -1, 0), "log start")
        same(connection.list_offset(topic, -1), (0, -1, 50), "log end")


@case
def wildcard_is_never_advertised(bootstrap):
    if IS_KAFKA:
        raise Skip("Apache Kafka refuses to start with a wildcard listener and no advertised one")
    try:
        other = ask("spawn", settings={"host": "0.0.0.0"})
    except AssertionError as refusal:
        # Leaving loopback without authentication may need a word of consent.
        check("allow_insecure" in str(refusal), str(refusal))
        other = ask("spawn", settings={"host": "0.0.0.0", "sections": {"kafka": {"allow_insecure": "true"}}})
    with Connection(other["bootstrap"]) as connection:
        host = connection.metadata([])["brokers"][0][1]
    check(host not in ("0.0.0.0", "::", ""), f"advertised {host!r}")
    with open(other["log"], encoding="utf-8", errors="replace") as log:
        check(any("WARN" in line and ("0.0.0.0" in line or "advertised" in line) for line in log), "no warning in the log")
    return f"advertised {host}"


@case
def group_errors(bootstrap):
    topic, group = "raw-group", "raw-group-errors"
    with Connection(bootstrap) as connection:
        connection.create_topic(topic)
        same(connection.join("", "")["error"], 24, "join with an empty group id")
        same(connection.join(group, session=1)["error"], 26, "a session of 1 ms")
        same(connection.heartbeat(group, 1, "nobody"), 25, "heartbeat of an unknown member")
        joined = connection.join(group, subscription=b"\0\1\0\0\0\0\0\0\0\0")
        same(joined["error"], 0, "join")
        generation, member = joined["generation"], joined["member"]
        same(connection.sync(group, generation, member, [(member, b"mine")]), (0, b"mine"), "sync")
        same(connection.heartbeat(group, generation, member), 0, "heartbeat")
        same(connection.heartbeat(group, generation + 1, member), 22, "heartbeat of another generation")
        same(connection.join(group, protocol="other")["error"], 23, "join with no protocol in common")
        same(connection.offset_fetch(group, topic), (-1, -1, "", 0), "offset before any commit")


@case
def member_left_out_gets_an_empty_assignment(bootstrap):
    group = "raw-left-out"
    with Connection(bootstrap) as first, Connection(bootstrap) as second:
        joined = first.join(group)
        answer = {}

        def join_second():
            answer["second"] = second.join(group)
        first.sync(group, joined["generation"], joined["member"], [(joined["member"], b"a")])
        thread = threading.Thread(target=join_second)
        thread.start()
        for _ in range(100):
            if first.heartbeat(group, joined["generation"], joined["member"]) == 27:
                break
            time.sleep(0.05)
        joined = first.join(group, joined["member"])
        thread.join()
        leader, led = (first, joined) if joined["member"] == joined["leader"] else (second, answer["second"])
        follower, following = (second, answer["second"]) if leader is first else (first, joined)
        same(leader.sync(group, led["generation"], led["member"], [(led["member"], b"a")]), (0, b"a"), "the leader's part")
        same(follower.sync(group, following["generation"], following["member"]), (0, b""), "the part of the one left out")


@case
def many_topics_in_one_produce(bootstrap):
    """A partition that fails never blocks its neighbours in the same request."""
    good, topics = batch([(None, b"v")]), ["raw-near-a", "raw-near-b"]
    with Connection(bootstrap) as connection:
        for topic in topics:
            connection.create_topic(topic)
        bad = good[:-1] + bytes([good[-1] ^ 1])
        parts = [(topics[0], bad), ("raw-near-nobody", good), (topics[1], good)]
        body = wire.text(None) + i16(-1) + i32(5000)
        body += wire.array([wire.text(topic) + wire.array([i32(0) + wire.blob(data)]) for topic, data in parts])
        reader = connection.ask(wire.PRODUCE, 3, body)
        found = dict(reader.array(lambda: (reader.text(), reader.array(
            lambda: (reader.i32(), reader.i16(), reader.i64(), reader.i64()))[0][1])))
        same(found, {topics[0]: 2, "raw-near-nobody": 3, topics[1]: 0}, "errors")
        same(connection.ends(topics[1]), (0, 1), "log of the good one")


if __name__ == "__main__":
    main()
