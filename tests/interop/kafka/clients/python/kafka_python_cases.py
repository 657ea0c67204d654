"""kafka-python 3, with its defaults; and its copy of Kafka's message schemas as a judge of every version we advertise."""

import kafka_python_schemas  # noqa: F401: registers its cases
import threading
import time

from case import case, check, eventually, main, same
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic
from wire import Connection


def read(consumer, count, seconds=20):
    rows, end = [], time.monotonic() + seconds
    while len(rows) < count and time.monotonic() < end:
        for found in consumer.poll(timeout_ms=500).values():
            rows += found
    return rows


@case
def produce_consume_resume(bootstrap):
    topic, group = "kp-basic", "kp-basic"
    with Connection(bootstrap) as connection:
        connection.create_topic(topic, partitions=2)
    producer = KafkaProducer(bootstrap_servers=bootstrap)
    first = producer.send(topic, b"value-0", key=b"key", partition=0, headers=[("h", b"1")]).get(20)
    same((first.topic, first.partition, first.offset), (topic, 0, 0), "where the first went")
    for number in range(1, 500):
        producer.send(topic, b"value-%d" % number, partition=number % 2)
    producer.flush(20)

    def session(count):
        consumer = KafkaConsumer(topic, bootstrap_servers=bootstrap, group_id=group, auto_offset_reset="earliest", enable_auto_commit=False)
        rows = read(consumer, count)
        consumer.commit()
        consumer.close()
        return rows
    rows = session(500)
    same(sorted(int(row.value[6:]) for row in rows), list(range(500)), "values of the first run")
    zero = next(row for row in rows if row.value == b"value-0")
    same((zero.key, list(zero.headers)), (b"key", [("h", b"1")]), "key and headers")
    producer.send(topic, b"value-500", partition=0)
    producer.flush(20)
    producer.close()
    same([row.value for row in session(1)], [b"value-500"], "values of the second run")


@case
def every_codec(bootstrap):
    topic = "kp-codecs"
    with Connection(bootstrap) as connection:
        connection.create_topic(topic)
    # snappy, lz4 and zstd need packages of their own; gzip is in Python.
    for codec in (None, "gzip"):
        producer = KafkaProducer(bootstrap_servers=bootstrap, compression_type=codec, acks="all")
        for number in range(100):
            producer.send(topic, b"%d" % number * 20)
        producer.flush(20)
        producer.close()
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, group_id=None, auto_offset_reset="earliest")
    consumer.assign([TopicPartition(topic, 0)])
    same([row.offset for row in read(consumer, 200)], list(range(200)), "offsets")
    place = TopicPartition(topic, 0)
    same((consumer.beginning_offsets([place])[place], consumer.end_offsets([place])[place]), (0, 200), "beginning and end")
    same(consumer.offsets_for_times({place: 0})[place].offset, 0, "offset for a time before the data")
    consumer.close()


class Member:
    """A consumer on a thread of its own: one that nobody polls holds up the rebalance of the others."""

    def __init__(self, bootstrap, topic, group):
        self.consumer = KafkaConsumer(topic, bootstrap_servers=bootstrap, group_id=group, session_timeout_ms=6000, heartbeat_interval_ms=500)
        self.owned, self.stopping = set(), threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.stopping.is_set():
            self.consumer.poll(timeout_ms=100)
            self.owned = {entry.partition for entry in self.consumer.assignment()}

    def close(self):
        self.stopping.set()
        self.thread.join(10)
        self.consumer.close()


@case
def rebalance_between_two(bootstrap):
    topic, group = "kp-two", "kp-two"
    with Connection(bootstrap) as connection:
        connection.create_topic(topic, partitions=4)
    # One after the other: when its metadata changes during a join, this client now and then takes no notice of the
    # assignment it was sent, and stays without until the next rebalance.
    members = [Member(bootstrap, topic, group)]
    eventually(lambda: len(members[0].owned) == 4, 20, "all four at the first")
    members.append(Member(bootstrap, topic, group))
    eventually(lambda: all(len(member.owned) == 2 for member in members) and members[0].owned | members[1].owned == {0, 1, 2, 3}, 30,
               "two partitions each")
    members[0].close()
    eventually(lambda: len(members[1].owned) == 4, 20, "all four at the other")
    members[1].close()


@case
def admin(bootstrap):
    client = KafkaAdminClient(bootstrap_servers=bootstrap)
    client.create_topics([NewTopic("kp-admin", 3, 1, topic_configs={"retention.ms": "1000000"})])
    eventually(lambda: "kp-admin" in client.list_topics(), 10, "the topic is listed")
    [described] = client.describe_topics(["kp-admin"])
    same(len(described["partitions"]), 3, "partitions")
    check(client.describe_cluster()["brokers"], "no broker in the cluster")
    client.delete_topics(["kp-admin"])
    eventually(lambda: "kp-admin" not in client.list_topics(), 10, "the topic goes")
    client.close()


if __name__ == "__main__":
    main()
