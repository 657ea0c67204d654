"""The kill test: idempotent producers and a group at work while the server is killed again and again.

No acknowledged record may be lost or moved, none may be there twice, and no acknowledged commit may be taken back.
"""

import random
import threading
import time

from case import ask, case, check, eventually, same, setting
from confluent_common import consume, create
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from wire import Closed, Connection

PARTITIONS = 4
QUICK = {"reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 200, "retry.backoff.ms": 50}


class Writer:
    """Writes numbered values until it is stopped; remembers where the server said that each one is."""

    def __init__(self, bootstrap, topic, name):
        self.producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "acks": "all", "linger.ms": 2,
                                  "message.timeout.ms": 300_000, **QUICK})
        self.topic, self.name = topic, name
        self.sent, self.acknowledged, self.failed = 0, {}, []
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def delivered(self, error, message):
        if error:
            self.failed.append(str(error))
        else:
            self.acknowledged[message.value()] = (message.partition(), message.offset())

    def run(self):
        while not self.stopping.is_set() and not self.failed:
            try:
                for _ in range(20):
                    self.producer.produce(self.topic, value=b"%s-%08d" % (self.name, self.sent), key=b"%d" % self.sent,
                                          on_delivery=self.delivered)
                    self.sent += 1
            except BufferError:
                pass
            except KafkaException as error:
                self.failed.append(str(error))
            self.producer.poll(0.02)

    def finish(self):
        self.stopping.set()
        self.thread.join(30)
        left = self.producer.flush(120)
        same(self.failed, [], f"failed deliveries of {self.name}")
        same(left, 0, f"unacknowledged messages of {self.name}")


class Worker:
    """A group member that commits what it has read, and remembers which commits were acknowledged."""

    def __init__(self, bootstrap, topic, group, promised, lock):
        self.consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "auto.offset.reset": "earliest",
                                  "enable.auto.commit": False, "session.timeout.ms": 10_000, "heartbeat.interval.ms": 500, **QUICK})
        self.consumer.subscribe([topic])
        self.topic, self.promised, self.lock = topic, promised, lock
        self.seen, self.commits, self.refused = set(), 0, 0
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.stopping.is_set():
            messages = self.consumer.consume(500, timeout=0.2)
            upto = {}
            for message in messages:
                if not message.error():
                    self.seen.add(message.value())
                    upto[message.partition()] = message.offset() + 1
            if upto:
                self.commit(upto)

    def commit(self, upto):
        try:
            done = self.consumer.commit(offsets=[TopicPartition(self.topic, *entry) for entry in upto.items()], asynchronous=False)
        except KafkaException:
            self.refused += 1  # No server, or a new generation: nothing was promised.
            return
        with self.lock:
            for entry in done:
                if not entry.error:
                    self.promised[entry.partition] = max(self.promised.get(entry.partition, 0), entry.offset)
                    self.commits += 1

    def close(self):
        self.stopping.set()
        self.thread.join(30)
        self.consumer.close()


def committed(bootstrap, group, topic):
    with Connection(bootstrap) as connection:
        return {partition: connection.offset_fetch(group, topic, partition)[0] for partition in range(PARTITIONS)}


@case
def many_kills(bootstrap):
    topic, group = "confluent-many-kills", "confluent-many-kills"
    kills, seed = setting("kills", 30), setting("kill_seed", int(time.time()))
    chance = random.Random(seed)
    create(bootstrap, topic, partitions=PARTITIONS)
    promised, lock = {}, threading.Lock()
    writers = [Writer(bootstrap, topic, name) for name in (b"a", b"b")]
    workers = [Worker(bootstrap, topic, group, promised, lock) for _ in range(2)]
    down, highest, progress = 0.0, {}, 0
    for kill in range(kills):
        time.sleep(chance.uniform(0.2, 1.2))
        if kill % 5 == 4:
            # Now and then it lives long enough for everybody to get on.
            wanted = progress + 100
            eventually(lambda: sum(len(writer.acknowledged) for writer in writers) > wanted, 60, f"progress after kill {kill} (seed {seed})")
            progress = sum(len(writer.acknowledged) for writer in writers)
        with lock:
            before = dict(promised)
        down += ask("restart")
        try:
            found = committed(bootstrap, group, topic)
        except (Closed, OSError) as error:
            raise AssertionError(f"no committed offsets after kill {kill} (seed {seed}): {error}") from error
        for partition, offset in {**highest, **before}.items():
            wanted = max(before.get(partition, -1), highest.get(partition, -1))
            check(found[partition] >= wanted, f"kill {kill} (seed {seed}): partition {partition} committed {found[partition]}, was {wanted}")
        highest = found
    for writer in writers:
        writer.finish()
    sent = sum(writer.sent for writer in writers)
    eventually(lambda: len(set().union(*(worker.seen for worker in workers))) >= sent, 90, f"the group has seen all {sent} (seed {seed})", 0.5)
    for worker in workers:
        worker.close()
    rows = consume(bootstrap, topic, sent, 120)
    places = {row[3]: (row[0], row[1]) for row in rows}
    same(len(places), sent, f"distinct values (seed {seed})")
    for writer in writers:
        moved = [value for value, place in writer.acknowledged.items() if places.get(value) != place]
        same(moved[:5], [], f"acknowledged records that are lost or elsewhere, {len(moved)} in all (seed {seed})")
        own = sorted((place, value) for value, place in places.items() if value.startswith(writer.name))
        for partition in range(PARTITIONS):
            values = [value for (number, _), value in own if number == partition]
            check(values == sorted(values), f"records of {writer.name} out of order in partition {partition} (seed {seed})")
    commits = sum(worker.commits for worker in workers)
    return f"seed {seed}: {kills} kills, {sent} records, {commits} commits, {down / max(1, kills):.2f} s from start to answer"
