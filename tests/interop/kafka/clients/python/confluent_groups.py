"""Group membership with confluent-kafka: cooperative rebalance, static members, commits."""

import threading
import time

from case import ask, case, check, eventually, same
from confluent_common import admin, consume, create, send
from confluent_kafka import Consumer, KafkaError, TopicPartition
from wire import Connection


class Member:
    """A consumer on a thread of its own, with a log of what it was given and what was taken from it."""

    def __init__(self, bootstrap, group, topic, **settings):
        self.events, self.owned, self.records, self.fatal = [], set(), [], None
        self.consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "auto.offset.reset": "earliest",
                                  "session.timeout.ms": 6000, "heartbeat.interval.ms": 500, **settings},
                                 error_cb=self.failed)
        self.cooperative = "cooperative" in settings.get("partition.assignment.strategy", "")
        self.consumer.subscribe([topic], on_assign=self.assigned, on_revoke=self.revoked, on_lost=self.revoked)
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def failed(self, error):
        if error.fatal() or error.code() in (KafkaError.FENCED_INSTANCE_ID, KafkaError._FATAL):
            self.fatal = error

    def assigned(self, _, partitions):
        numbers = {entry.partition for entry in partitions}
        self.events.append(("assigned", sorted(numbers)))
        self.owned |= numbers

    def revoked(self, _, partitions):
        numbers = {entry.partition for entry in partitions}
        self.events.append(("revoked", sorted(numbers)))
        self.owned -= numbers

    def run(self):
        while not self.stopping.is_set():
            message = self.consumer.poll(0.1)
            if message is None:
                continue
            if message.error():
                self.failed(message.error())
                if self.fatal:
                    return
                continue
            self.records.append((message.partition(), message.offset()))

    def close(self):
        self.stopping.set()
        self.thread.join(10)
        self.consumer.close()


def settled(members, partitions):
    """Whether the members own all partitions between them, each one of them once."""
    owned = [number for member in members for number in member.owned]
    return sorted(owned) == list(range(partitions))


@case
def cooperative_sticky(bootstrap):
    topic, group = "confluent-coop", "confluent-coop"
    create(bootstrap, topic, partitions=6)
    settings = {"partition.assignment.strategy": "cooperative-sticky"}
    first = Member(bootstrap, group, topic, **settings)
    eventually(lambda: settled([first], 6), 15, "all six partitions at the first member")
    first.events.clear()
    second = Member(bootstrap, group, topic, **settings)
    eventually(lambda: settled([first, second], 6) and len(first.owned) == 3, 20, "three partitions each")
    time.sleep(1)
    revoked = {number for kind, numbers in first.events if kind == "revoked" for number in numbers}
    same(len(revoked), 3, "partitions revoked from the first member")
    same(revoked, second.owned, "what moved")
    check(all(not numbers for kind, numbers in first.events if kind == "assigned"), f"the first member was given again: {first.events}")
    second.close()
    eventually(lambda: settled([first], 6), 20, "all partitions back at the first member")
    first.close()


@case
def static_member_returns(bootstrap):
    topic, group = "confluent-static", "confluent-static"
    create(bootstrap, topic, partitions=4)
    settings = {"session.timeout.ms": 20_000}
    one = Member(bootstrap, group, topic, **settings, **{"group.instance.id": "a"})
    two = Member(bootstrap, group, topic, **settings, **{"group.instance.id": "b"})
    eventually(lambda: settled([one, two], 4) and len(one.owned) == 2, 30, "two partitions each")
    held, before = set(one.owned), list(two.events)
    one.close()  # Static members of librdkafka do not leave the group.
    time.sleep(1)
    again = Member(bootstrap, group, topic, **settings, **{"group.instance.id": "a"})
    eventually(lambda: again.owned == held, 15, "the same partitions for the returned member")
    time.sleep(2)
    same(two.events, before, "callbacks at the other member")
    double = Member(bootstrap, group, topic, **settings, **{"group.instance.id": "a"})
    eventually(lambda: again.fatal, 20, "the older of two members with one instance id fails")
    check("fenced" in str(again.fatal).lower(), f"its error: {again.fatal}")
    check(double.fatal is None, f"the newer one failed: {double.fatal}")
    for member in (double, two):
        member.close()
    return str(again.fatal)[:100]


@case
def commits_survive_restart(bootstrap):
    topic, group, note = "confluent-commit", "confluent-commit", "héllo"
    create(bootstrap, topic)
    send(bootstrap, topic, [b"%d" % number for number in range(10)])
    reader = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False})
    reader.subscribe([topic])
    eventually(lambda: reader.poll(0.5), 20, "a message")
    reader.commit(offsets=[TopicPartition(topic, 0, 7, metadata=note, leader_epoch=0)], asynchronous=False)
    reader.close()
    for when in ("before", "after"):
        with Connection(bootstrap) as connection:
            offset, epoch, text, error = connection.offset_fetch(group, topic)
            # This client sends the text with the zero byte that ends it in C.
            same((offset, epoch, text.rstrip("\0"), error), (7, 0, note, 0), f"offset, leader epoch and text {when} kill -9")
        if when == "before":
            ask("restart")
    reader = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False})
    [found] = reader.committed([TopicPartition(topic, 0)], timeout=10)
    same((found.offset, found.metadata), (7, note), "what the client reads back")
    reader.subscribe([topic])
    message = eventually(lambda: reader.poll(0.5), 20, "a message after the restart")
    same(message.offset(), 7, "where the group goes on")
    reader.close()


@case
def deleted_records_stay_deleted(bootstrap):
    topic = "confluent-trimmed"
    create(bootstrap, topic)
    send(bootstrap, topic, [b"%d" % number for number in range(10)])
    client = admin(bootstrap)
    [future] = client.delete_records([TopicPartition(topic, 0, 5)]).values()
    same(future.result(20).low_watermark, 5, "low watermark")
    for when in ("before", "after"):
        reader = Consumer({"bootstrap.servers": bootstrap, "group.id": topic, "auto.offset.reset": "earliest", "enable.auto.commit": False})
        reader.assign([TopicPartition(topic, 0, 0)])
        message = eventually(lambda: reader.poll(0.5), 20, f"a message {when} kill -9")
        same((message.error(), message.offset(), message.value()), (None, 5, b"5"), f"first message {when} kill -9")
        reader.close()
        if when == "before":
            ask("restart")


@case
def members_survive_restart(bootstrap):
    """A restart of the server in the middle loses no member and no record."""
    topic, group = "confluent-members", "confluent-members"
    create(bootstrap, topic, partitions=4)
    members = [Member(bootstrap, group, topic, **{"auto.commit.interval.ms": 200}) for _ in range(2)]
    eventually(lambda: settled(members, 4) and len(members[0].owned) == 2, 20, "two partitions each")
    send(bootstrap, topic, [b"x"] * 1000)
    eventually(lambda: len({row for member in members for row in member.records}) == 1000, 20, "1000 records")
    ask("restart")
    send(bootstrap, topic, [b"y"] * 1000)
    eventually(lambda: len({row for member in members for row in member.records}) == 2000, 40, "2000 records")
    for member in members:
        member.close()
    same(len(consume(bootstrap, topic, 2000)), 2000, "records in the topic")
    doubled = sum(len(member.records) for member in members) - 2000
    return f"{doubled} records came twice, after the last commit"
