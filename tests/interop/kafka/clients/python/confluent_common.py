"""Small steps that the cases of confluent-kafka share."""

import time

from case import IS_KAFKA, check
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from wire import Connection


def admin(bootstrap):
    return AdminClient({"bootstrap.servers": bootstrap})


def create(bootstrap, topic, partitions=1, config=None):
    client = admin(bootstrap)  # Its futures fail when it goes out of scope.
    for future in client.create_topics([NewTopic(topic, partitions, 1, config=config or {})]).values():
        future.result(30)
    if IS_KAFKA:
        with Connection(bootstrap) as connection:
            connection.usable(topic, partitions)


def producer(bootstrap, **settings):
    return Producer({"bootstrap.servers": bootstrap, "linger.ms": 1, **settings})


def send(bootstrap, topic, values, partition=-1, **settings):
    sender = producer(bootstrap, **settings)
    failed = []
    for number, value in enumerate(values):
        sender.produce(topic, value=value, key=b"%d" % number, partition=partition,
                       on_delivery=lambda error, _: error and failed.append(str(error)))
        sender.poll(0)
    left = sender.flush(60)
    check(not left and not failed, f"{left} messages left, failed: {failed[:3]}")


def consume(bootstrap, topic, count, seconds=60, **settings):
    """All partitions from their start: (partition, offset, key, value, headers, timestamp), until `count` were read and
    nothing more comes for a moment."""
    reader = Consumer({"bootstrap.servers": bootstrap, "group.id": f"reader-{topic}", "enable.auto.commit": False,
                       "enable.partition.eof": True, **settings})
    partitions = list(reader.list_topics(topic, timeout=10).topics[topic].partitions)
    reader.assign([TopicPartition(topic, partition, 0) for partition in partitions])
    rows, ended, end = [], set(), time.monotonic() + seconds
    while len(ended) < len(partitions):
        check(time.monotonic() < end, f"{len(rows)} of {count} records after {seconds} s")
        for message in reader.consume(1000, timeout=0.5):
            if message.error():
                # The only one that is told here: the end of a partition.
                check(message.error().code() == -191, f"{message.error()}")
                ended.add(message.partition())
            else:
                rows.append((message.partition(), message.offset(), message.key(), message.value(), message.headers(),
                             message.timestamp()[1]))
    reader.close()
    check(len(rows) == count, f"{len(rows)} records, wanted {count}")
    return rows
