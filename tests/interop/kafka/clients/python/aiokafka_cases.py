"""aiokafka: never a flexible version, and versions from years ago."""

import asyncio

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from case import case, check, main, same
from wire import CODEC_NAMES, Connection


def made(bootstrap, topic, partitions=1):
    with Connection(bootstrap) as connection:
        # Some records here are dated years ago.
        connection.create_topic(topic, partitions, {"retention.ms": -1})


async def read(bootstrap, topic, group, count):
    """Reads `count` records in a group, commits and leaves."""
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, group_id=group, auto_offset_reset="earliest", enable_auto_commit=False)
    await consumer.start()
    rows = []
    try:
        async with asyncio.timeout(25):
            while len(rows) < count:
                for found in (await consumer.getmany(timeout_ms=500)).values():
                    rows += found
        await consumer.commit()
    finally:
        await consumer.stop()
    return rows


@case
def produce_consume_restart(bootstrap):
    topic = "aio-basic"
    made(bootstrap, topic, 2)

    async def go():
        producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
        await producer.start()
        for number in range(300):
            done = await producer.send_and_wait(topic, b"%d" % number, key=b"k", partition=number % 2, headers=[("h", b"%d" % number)])
            same((done.partition, done.offset), (number % 2, number // 2), "where it went")
        rows = await read(bootstrap, topic, "aio-basic", 300)
        same(sorted(int(row.value) for row in rows), list(range(300)), "values of the first run")
        check(all(row.headers == (("h", row.value),) for row in rows), "headers")
        for number in range(300, 400):
            await producer.send(topic, b"%d" % number)
        await producer.stop()
        rows = await read(bootstrap, topic, "aio-basic", 100)
        same(sorted(int(row.value) for row in rows), list(range(300, 400)), "values of the second run")
    asyncio.run(go())


@case
def idempotent_and_codecs(bootstrap):
    topic = "aio-codecs"
    made(bootstrap, topic)

    async def go():
        for codec in CODEC_NAMES:
            producer = AIOKafkaProducer(bootstrap_servers=bootstrap, compression_type=None if codec == "none" else codec,
                                        enable_idempotence=True, linger_ms=20)
            await producer.start()
            for future in [await producer.send(topic, codec.encode() + b"x" * 500) for _ in range(50)]:
                await future
            await producer.stop()
        rows = await read(bootstrap, topic, "aio-codecs", 250)
        same([row.offset for row in rows], list(range(250)), "offsets")
        same([row.value[:3] for row in rows[::50]], [codec.encode()[:3] for codec in CODEC_NAMES], "values")
    asyncio.run(go())
    with Connection(bootstrap) as connection:
        codecs = list(dict.fromkeys(entry["codec"] for entry in connection.fetch_all(topic)))
    same(codecs, [0, 1, 2, 3, 4], "codecs of the batches on disk")


@case
def two_members(bootstrap):
    topic = "aio-two"
    made(bootstrap, topic, 4)

    async def go():
        members = [AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, group_id="aio-two", session_timeout_ms=6000,
                                    heartbeat_interval_ms=500) for _ in range(2)]
        for member in members:
            await member.start()
        async with asyncio.timeout(30):
            while not all(len(member.assignment()) == 2 for member in members):
                await asyncio.sleep(0.1)
            await members[0].stop()
            while len(members[1].assignment()) != 4:
                await asyncio.sleep(0.1)
        await members[1].stop()
    asyncio.run(go())


@case
def admin(bootstrap):
    async def go():
        client = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
        await client.start()
        await client.create_topics([NewTopic("aio-admin", 2, 1, topic_configs={"retention.ms": "1000000"})])
        check("aio-admin" in await client.list_topics(), "the topic is not listed")
        await client.create_partitions({"aio-admin": NewPartitions(4)})
        [described] = await client.describe_topics(["aio-admin"])
        same(len(described["partitions"]), 4, "partitions")
        await client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, "aio-admin")])
        await client.list_consumer_groups()
        await client.delete_topics(["aio-admin"])
        await client.close()
    asyncio.run(go())


@case
def offsets(bootstrap):
    topic, place = "aio-offsets", TopicPartition("aio-offsets", 0)
    made(bootstrap, topic)

    async def go():
        producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all")
        await producer.start()
        for number in range(10):
            await producer.send_and_wait(topic, b"x", timestamp_ms=1_700_000_000_000 + 10 * number)
        await producer.stop()
        consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap)
        await consumer.start()
        consumer.assign([place])
        same((await consumer.beginning_offsets([place]))[place], 0, "beginning")
        same((await consumer.end_offsets([place]))[place], 10, "end")
        found = (await consumer.offsets_for_times({place: 1_700_000_000_025}))[place]
        same((found.offset, found.timestamp), (3, 1_700_000_000_030), "offset for a time")
        await consumer.stop()
    asyncio.run(go())


if __name__ == "__main__":
    main()
