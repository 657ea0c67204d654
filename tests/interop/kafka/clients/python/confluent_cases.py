"""confluent-kafka: the librdkafka of today, as producer, group member and administrator."""

import confluent_admin  # noqa: F401: registers its cases
import confluent_groups  # noqa: F401
import confluent_kill  # noqa: F401
import threading
import time

from case import ask, case, check, main, same, setting
from confluent_common import consume, create, producer
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from wire import Connection


@case
def survives_kill(bootstrap):
    """An idempotent producer does not notice that the server was killed in the middle."""
    topic, count = "confluent-kill-once", setting("kill_messages", 100_000)
    create(bootstrap, topic, partitions=3)
    failed = []
    sender = producer(bootstrap, **{"enable.idempotence": True, "acks": "all", "linger.ms": 5, "message.timeout.ms": 120_000,
                                    "queue.buffering.max.messages": 20_000})
    for number in range(count):
        while True:
            try:
                sender.produce(topic, value=b"%08d" % number + b"x" * 1016, key=b"%d" % number,
                               on_delivery=lambda error, _: error and failed.append(str(error)))
                break
            except BufferError:
                sender.poll(0.05)
        sender.poll(0)
        if number == count // 2:
            restart = threading.Thread(target=ask, args=("restart",))
            restart.start()
    restart.join()
    same(sender.flush(120), 0, "messages left after flush")
    same(failed, [], "failed deliveries")
    rows = consume(bootstrap, topic, count)
    same(len({row[3][:8] for row in rows}), count, "distinct values")
    same(len(rows), count, "records")
    for partition in range(3):
        offsets = [row[1] for row in rows if row[0] == partition]
        same(offsets, list(range(len(offsets))), f"offsets of partition {partition}")


@case
def large_and_too_large(bootstrap):
    topic, small = "confluent-large", "confluent-51200"
    create(bootstrap, topic)
    create(bootstrap, small, config={"max.message.bytes": "51200"})
    outcome = {}

    def delivered(error, message):
        outcome[message.topic()] = error
    sender = producer(bootstrap, **{"message.max.bytes": 20_000_000})
    value = bytes(range(256)) * 12288
    sender.produce(topic, value=value, on_delivery=delivered)
    sender.flush(30)
    same(outcome, {topic: None}, "delivery of 3 MiB")
    [row] = consume(bootstrap, topic, 1, **{"fetch.message.max.bytes": 500_000})
    check(row[3] == value, "3 MiB came back changed")
    sender.produce(small, value=bytes(10 << 20), on_delivery=delivered)
    sender.flush(30)
    same(outcome[small].code(), KafkaError.MSG_SIZE_TOO_LARGE, "error for 10 MiB")
    sender.produce(small, value=b"small", on_delivery=delivered)
    sender.flush(30)
    same(outcome[small], None, "error for the next small message")


@case
def acks_0(bootstrap):
    topic = "confluent-acks-0"
    create(bootstrap, topic)
    sender = producer(bootstrap, acks=0)
    for number in range(10_000):
        sender.produce(topic, value=b"%d" % number)
    same(sender.flush(30), 0, "messages left after flush")
    same([row[3] for row in consume(bootstrap, topic, 10_000)], [b"%d" % number for number in range(10_000)], "values")


@case
def every_codec(bootstrap):
    topic = "confluent-codecs"
    create(bootstrap, topic, config={"retention.ms": "-1"})
    for codec in ("none", "gzip", "snappy", "lz4", "zstd"):
        sender = producer(bootstrap, **{"compression.type": codec, "linger.ms": 50})
        for number in range(100):
            sender.produce(topic, key=codec, value=b"%d" % number + b"y" * 200, headers=[("codec", codec), ("none", None)],
                           timestamp=1_600_000_000_000 + number)
        same(sender.flush(30), 0, f"{codec} messages left")
    with Connection(bootstrap) as connection:
        codecs = list(dict.fromkeys(entry["codec"] for entry in connection.fetch_all(topic)))
    same(codecs, [0, 1, 2, 3, 4], "codecs of the batches on disk")
    rows = consume(bootstrap, topic, 500)
    for number, row in enumerate(rows):
        codec = ("none", "gzip", "snappy", "lz4", "zstd")[number // 100]
        wanted = (codec.encode(), b"%d" % (number % 100) + b"y" * 200, [("codec", codec.encode()), ("none", None)],
                  1_600_000_000_000 + number % 100)
        same(row[2:], wanted, f"record {number}")


@case
def unknown_topic_and_auto_creation(bootstrap):
    sender = producer(bootstrap, **{"message.timeout.ms": 10_000})
    outcome = []
    sender.produce("confluent-made-by-producing", value=b"x", on_delivery=lambda error, message: outcome.append((error, message.offset())))
    sender.flush(15)
    same(outcome, [(None, 0)], "delivery to a topic that did not exist")
    same(len(consume(bootstrap, "confluent-made-by-producing", 1)), 1, "records")
    outcome.clear()
    try:
        sender.produce("bad/name", value=b"x", on_delivery=lambda error, _: outcome.append(error.code()))
        sender.flush(15)
    except KafkaException as error:
        outcome.append(error.args[0].code())
    check(outcome and outcome[0] in (KafkaError.TOPIC_EXCEPTION, KafkaError._UNKNOWN_TOPIC, KafkaError._MSG_TIMED_OUT), f"outcome of a bad name: {outcome}")


@case
def consumer_waits_and_wakes(bootstrap):
    """A message reaches a waiting consumer soon, and an idle consumer does not spin."""
    from confluent_kafka import Consumer
    topic = "confluent-wake"
    create(bootstrap, topic)
    reader = Consumer({"bootstrap.servers": bootstrap, "group.id": "wake", "fetch.wait.max.ms": 700, "auto.offset.reset": "earliest"})
    reader.assign([TopicPartition(topic, 0, 0)])
    same(reader.poll(2), None, "message of an empty topic")
    sender, times = producer(bootstrap, **{"linger.ms": 0}), []
    for number in range(10):
        sender.produce(topic, value=b"%d" % number)
        sender.flush(10)
        began = time.monotonic()
        message = reader.poll(5)
        same(message and message.value(), b"%d" % number, "message")
        times.append(time.monotonic() - began)
    reader.close()
    times.sort()
    check(times[5] < 0.2, f"a waiting consumer saw it {times[5] * 1000:.0f} ms after the acknowledgement (median)")
    return f"{times[5] * 1000:.1f} ms after the acknowledgement (median)"


if __name__ == "__main__":
    main()
