"""Retention, compaction and a full disk, seen from the wire."""

import hashlib
import os
import struct
import subprocess
import time

from case import IS_KAFKA, Skip, ask, case, check, eventually, same
from wire import GZIP, Connection, batch, batches

MIB = 1 << 20
STORAGE_ERROR = 56


def filled(connection, topic, count, data):
    """Sends the same batch `count` times; its offsets are the server's to give."""
    for _ in range(count):
        same(connection.produce(topic, 0, data)["error"], 0, f"produce to {topic}")


@case
def retention_by_time(bootstrap):
    topic, big = "raw-retention-ms", batch([(None, os.urandom(MIB - 200))])
    with Connection(bootstrap) as connection:
        connection.create_topic(topic, configs={"retention.ms": 2000, "segment.bytes": 4 * MIB})
        filled(connection, topic, 48, big)
        before = ask("disk")
        start, end = eventually(lambda: (lambda ends: ends if ends[0] == ends[1] else None)(connection.ends(topic)), 10,
                                "log start at the high watermark", 0.25)
        same(end, 48, "log end")
        got = connection.fetch(topic, 0, end, max_wait=0)
        same((got["error"], got["data"]), (0, b""), "fetch at the log end")
        same(connection.fetch(topic, 0, 0)["error"], 1, "fetch at 0")
        eventually(lambda: ask("disk") <= before - 24 * MIB, 60, f"disk gives back 24 of {before // MIB} MiB", 1)
        same(connection.produce(topic, 0, batch([(None, b"next")]))["base_offset"], 48, "offset of the next record")
        return f"{before // MIB} MiB before, {ask('disk') // MIB} after"


@case
def retention_by_size(bootstrap):
    topic, piece = "raw-retention-bytes", batch([(None, os.urandom(100_000))])
    with Connection(bootstrap) as connection:
        connection.create_topic(topic, configs={"retention.bytes": MIB, "segment.bytes": MIB})
        filled(connection, topic, 200, piece)
        last = connection.produce(topic, 0, batch([(None, b"newest")]))["base_offset"]
        same(last, 200, "offset of the newest")

        def kept():
            return (last - connection.ends(topic)[0]) * len(piece)
        eventually(lambda: kept() <= 2 * MIB, 30, "at most 2 MiB kept", 0.5)
        time.sleep(3)
        left = kept()
        check(left >= MIB // 2, f"only {left} bytes kept of a bound of 1 MiB")
        same(connection.fetch_all(topic, 0, connection.ends(topic)[0])[-1]["records"][0][2], b"newest", "newest record")
        return f"{left} bytes kept"


def latest(found):
    """Key to value as a reader sees it, the number of records, and their offsets."""
    state, offsets = {}, []
    for entry in found:
        for offset, key, value, _, _ in entry["records"]:
            state[key] = value
            offsets.append(offset)
    return state, offsets


@case
def compaction(bootstrap):
    """100,000 updates of 100 keys become 100 records; tombstones take their keys away, and go themselves later."""
    topic = "raw-compact"
    keys = [b"key-%02d" % number for number in range(100)]
    configs = {"cleanup.policy": "compact", "segment.ms": 1000, "segment.bytes": MIB, "min.cleanable.dirty.ratio": 0.01,
               "delete.retention.ms": 4000, "min.compaction.lag.ms": 0, "max.compaction.lag.ms": 2000}
    with Connection(bootstrap) as connection:
        connection.create_topic(topic, configs=configs)
        got = connection.produce(topic, 0, batch([(b"k", b"v"), (None, b"no key")]))
        same(got["error"], 87, "a record without key")
        same(connection.ends(topic), (0, 0), "log after a record without key")
        for number in range(100):
            rows = [(keys[(index * 7) % 100], b"%d-%d" % (number, index)) for index in range(1000)]
            same(connection.produce(topic, 0, batch(rows, codec=GZIP if number % 2 else 0))["error"], 0, "updates")
        same(connection.ends(topic)[1], 100_000, "log end")
        wanted = {key: value for key, value in rows}
        nudges = 0

        def nudge():
            # A record after `segment.ms` closes what is active, so that the cleaner may have it.
            nonlocal nudges
            nudges += 1
            same(connection.produce(topic, 0, batch([(keys[0], wanted[keys[0]])]))["error"], 0, "nudge")
            return latest(connection.fetch_all(topic))

        def cleaned():
            state, offsets = nudge()
            return (state, offsets) if len(offsets) <= 102 else None
        time.sleep(1.5)
        state, offsets = eventually(cleaned, 60, "100 records left", 2)
        check(state == wanted, "not the last value of each key")
        check(all(a < b for a, b in zip(offsets, offsets[1:])), "offsets do not rise")
        same(connection.ends(topic)[1], 100_000 + nudges, "log end after cleaning")
        first = len(offsets)

        gone = keys[50:]
        same(connection.produce(topic, 0, batch([(key, None) for key in gone]))["error"], 0, "tombstones")
        for key in gone:
            del wanted[key]

        def buried():
            state, offsets = nudge()
            return (state, offsets) if set(state) == set(wanted) else None
        state, offsets = eventually(buried, 90, "50 keys left, no tombstone", 2)
        check(state == wanted, "not the last value of each key that is left")
        same(connection.ends(topic)[1], 100_050 + nudges, "log end after the tombstones went")
        got = connection.fetch(topic, 0, 1, max_wait=0)
        check(batches(got["data"]), "a fetch at a removed offset returns nothing")
        return f"{first} records after cleaning, {len(offsets)} after the tombstones went"


def contents(connection, topic, partition):
    """Digest of every batch from log start to log end, as it is sent."""
    offset, end = connection.ends(topic, partition)
    total = hashlib.sha256(b"%d %d" % (offset, end))
    while offset < end:
        got = connection.fetch(topic, partition, offset, max_wait=0, partition_bytes=16 * MIB)
        same(got["error"], 0, f"error of a fetch of {topic} at {offset}")
        data, at, before = got["data"], 0, offset
        while at + 61 <= len(data):
            base, size = struct.unpack_from(">qi", data, at)
            if at + 12 + size > len(data):
                break
            [last] = struct.unpack_from(">i", data, at + 23)
            total.update(data[at:at + 12 + size])
            offset, at = base + last + 1, at + 12 + size
        check(offset > before, f"a fetch of {topic} at {offset} returns no whole batch")
    return total.hexdigest()


@case
def all_records_survive_restart(bootstrap):
    """What the cases before this one have written is the same to the last byte after kill -9."""
    def everything():
        found = {}
        with Connection(bootstrap) as connection:
            for name, topic in connection.metadata(None)["topics"].items():
                # Retention and compaction go on in these.
                if not name.startswith(("__", "raw-retention", "raw-compact")):
                    for partition in topic["partitions"]:
                        found[name, partition["index"]] = contents(connection, name, partition["index"])
        return found
    with Connection(bootstrap) as connection:
        connection.create_topic("raw-lasting")
        for number in range(50):
            connection.produce("raw-lasting", 0, batch([(b"k", b"%d" % number)] * 10, codec=GZIP))
    before = everything()
    ask("restart")
    after = everything()
    changed = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
    check(not changed, f"{len(changed)} partitions changed: {changed[:5]}")
    return f"{len(before)} partitions compared"


@case
def full_disk(bootstrap):
    """A file system of its own fills up to the reserve; reads go on, and deleting a topic is enough to write again."""
    if IS_KAFKA:
        raise Skip("Apache Kafka has no guard: it ends when its only disk is full")
    folder = os.path.join(os.environ["INTEROP_TMP"], "disk")
    os.makedirs(folder, exist_ok=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=768m", "azulite-interop", folder], capture_output=True, text=True)
    if mounted.returncode:
        raise Skip(f"no file system of a small size can be mounted here: {mounted.stderr.strip()}")
    server = ask("spawn", settings={"data": os.path.join(folder, "data"), "storage": {"reserve": "128Mi", "segment_bytes": "8Mi"}})
    big = batch([(None, os.urandom(MIB - 200))])
    with Connection(server["bootstrap"]) as connection:
        connection.create_topic("raw-fills")
        connection.create_topic("raw-other")
        same(connection.produce("raw-other", 0, batch([(None, b"early")]))["error"], 0, "produce to an empty disk")
        error = written = 0
        while not error and written < 900:
            error = connection.produce("raw-fills", 0, big)["error"]
            written += not error
        same(error, STORAGE_ERROR, f"error on a full disk, after {written} MiB")
        same(connection.produce("raw-other", 0, batch([(None, b"late")]))["error"], STORAGE_ERROR, "another topic on a full disk")
        same(len(connection.fetch_all("raw-other")), 1, "batches read from a full disk")
        ask("restart", of=server["of"])
    with Connection(server["bootstrap"]) as connection:
        same(len(connection.fetch_all("raw-other")), 1, "batches read after a restart with a full disk")
        same(connection.delete_topic("raw-fills"), 0, "delete of the large topic")
        eventually(lambda: connection.produce("raw-other", 0, batch([(None, b"again")]))["error"] == 0, 60, "produce again", 0.5)
        return f"full after {written} MiB"
