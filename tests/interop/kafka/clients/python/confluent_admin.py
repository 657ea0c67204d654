"""The administration calls of librdkafka, one after the other, with what each must leave behind."""

import uuid

from case import case, check, eventually, same
from confluent_common import admin, create, send
from confluent_kafka import (Consumer, ConsumerGroupState, ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicCollection,
                             TopicPartition)
from confluent_kafka.admin import (AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic, OffsetSpec, ResourceType)


def result(futures):
    """The only result of a call about one thing."""
    [future] = futures.values()
    return future.result(20)


def refused(futures, code, what):
    try:
        result(futures)
    except KafkaException as error:
        same(error.args[0].code(), code, what)
        return
    raise AssertionError(f"{what}: accepted")


def setting_of(client, topic, key):
    found = result(client.describe_configs([ConfigResource(ResourceType.TOPIC, topic)]))
    return found[key].value


@case
def topics(bootstrap):
    client, topic = admin(bootstrap), "confluent-admin"
    result(client.create_topics([NewTopic(topic, 2, 1, config={"retention.ms": "3600000"})]))
    refused(client.create_topics([NewTopic(topic, 2, 1)]), KafkaError.TOPIC_ALREADY_EXISTS, "the same topic again")
    refused(client.create_topics([NewTopic("confluent-rf", 1, 3)]), KafkaError.INVALID_REPLICATION_FACTOR, "three replicas")
    refused(client.create_topics([NewTopic("bad name", 1, 1)]), KafkaError.TOPIC_EXCEPTION, "a bad name")
    refused(client.create_topics([NewTopic("confluent-cfg", 1, 1, config={"no.such": "1"})]), KafkaError.INVALID_CONFIG, "a bad config")
    refused(client.create_topics([NewTopic("confluent-zero", 0, 1)]), KafkaError.INVALID_PARTITIONS, "no partition")
    result(client.create_topics([NewTopic("confluent-not-made", 1, 1)], validate_only=True))
    check("confluent-not-made" not in client.list_topics(timeout=10).topics, "validate_only made a topic")
    refused(client.create_partitions([NewPartitions(topic, 1)]), KafkaError.INVALID_PARTITIONS, "fewer partitions")
    result(client.create_partitions([NewPartitions(topic, 5)]))
    same(len(client.list_topics(topic, timeout=10).topics[topic].partitions), 5, "partitions")
    described = result(client.describe_topics(TopicCollection([topic])))
    same((described.name, len(described.partitions), described.is_internal), (topic, 5, False), "description")
    check(described.partitions[4].leader.id == 1 and [node.id for node in described.partitions[4].isr] == [1], "leader and replicas")
    result(client.delete_topics(["confluent-admin"], operation_timeout=10))
    eventually(lambda: topic not in client.list_topics(timeout=10).topics, 10, "the topic goes")
    refused(client.delete_topics([topic], operation_timeout=10), KafkaError.UNKNOWN_TOPIC_OR_PART, "deleting it again")


@case
def configs(bootstrap):
    client, topic = admin(bootstrap), "confluent-configs"
    create(bootstrap, topic, config={"retention.ms": "3600000", "min.insync.replicas": "1"})
    found = result(client.describe_configs([ConfigResource(ResourceType.TOPIC, topic)]))
    check(len(found) >= 25, f"only {len(found)} entries for a topic")
    same((found["retention.ms"].value, found["retention.ms"].source), ("3600000", 1), "what was set, and that it is the topic's")
    check(found["cleanup.policy"].value == "delete" and found["cleanup.policy"].is_default, "what was not set is a default")

    def alter(key, value, how):
        entry = ConfigEntry(key, value, incremental_operation=how)
        return client.incremental_alter_configs([ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])])
    result(alter("retention.ms", "7200000", AlterConfigOpType.SET))
    same(setting_of(client, topic, "retention.ms"), "7200000", "retention.ms after SET")
    result(alter("retention.ms", None, AlterConfigOpType.DELETE))
    same(setting_of(client, topic, "retention.ms"), "604800000", "retention.ms after DELETE")
    result(alter("cleanup.policy", "compact", AlterConfigOpType.APPEND))
    same(set(setting_of(client, topic, "cleanup.policy").split(",")), {"delete", "compact"}, "cleanup.policy after APPEND")
    result(alter("cleanup.policy", "delete", AlterConfigOpType.SUBTRACT))
    same(setting_of(client, topic, "cleanup.policy"), "compact", "cleanup.policy after SUBTRACT")
    refused(alter("retention.ms", "5", AlterConfigOpType.APPEND), KafkaError.INVALID_CONFIG, "APPEND to a number")
    refused(alter("retention.ms", "soon", AlterConfigOpType.SET), KafkaError.INVALID_CONFIG, "a number that is none")
    broker = result(client.describe_configs([ConfigResource(ResourceType.BROKER, "1")]))
    check(broker, "no entry for the broker")
    nobody = client.describe_configs([ConfigResource(ResourceType.TOPIC, "confluent-nobody")])
    refused(nobody, KafkaError.UNKNOWN_TOPIC_OR_PART, "configs of an unknown topic")
    return f"{len(found)} entries for a topic, {len(broker)} for the broker"


@case
def offsets_and_records(bootstrap):
    client, topic = admin(bootstrap), "confluent-offsets"
    create(bootstrap, topic)
    send(bootstrap, topic, [b"x"] * 20)
    place = TopicPartition(topic, 0)

    def offset(spec):
        return result(client.list_offsets({place: spec})).offset
    same((offset(OffsetSpec.earliest()), offset(OffsetSpec.latest())), (0, 20), "earliest and latest")
    check(offset(OffsetSpec.max_timestamp()) in range(20), "no offset for the largest timestamp")
    same(offset(OffsetSpec.for_timestamp(1)), 0, "offset for a time before the data")
    same(result(client.delete_records([TopicPartition(topic, 0, 5)])).low_watermark, 5, "low watermark")
    same((offset(OffsetSpec.earliest()), offset(OffsetSpec.latest())), (5, 20), "earliest and latest after deleting 5")
    refused(client.delete_records([TopicPartition(topic, 0, 99)]), KafkaError.OFFSET_OUT_OF_RANGE, "deleting beyond the end")
    same(result(client.delete_records([TopicPartition(topic, 0, 2)])).low_watermark, 5, "deleting below the log start")
    same(result(client.delete_records([TopicPartition(topic, 0, -1)])).low_watermark, 20, "deleting all")


@case
def groups(bootstrap):
    client, topic, group = admin(bootstrap), "confluent-admin-groups", "confluent-admin-group"
    create(bootstrap, topic)
    send(bootstrap, topic, [b"x"] * 20)
    reader = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False,
                       "client.id": "someone"})
    reader.subscribe([topic])
    message = eventually(lambda: reader.poll(0.5), 20, "a message")
    reader.commit(message=message, asynchronous=False)
    listed = {entry.group_id: entry for entry in client.list_consumer_groups().result(10).valid}
    check(group in listed, f"not listed: {sorted(listed)}")
    same(listed[group].state, ConsumerGroupState.STABLE, "its state")
    described = result(client.describe_consumer_groups([group]))
    same((described.state, len(described.members)), (ConsumerGroupState.STABLE, 1), "state and members")
    member = described.members[0]
    same((member.client_id, [entry.partition for entry in member.assignment.topic_partitions]), ("someone", [0]), "the member")
    check(member.host.strip("/").startswith("127.0.0.1"), f"host {member.host}")
    [found] = result(client.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])).topic_partitions
    same((found.topic, found.offset), (topic, 1), "committed")
    refused(client.delete_consumer_groups([group]), KafkaError.NON_EMPTY_GROUP, "deleting a group with members")
    change = [ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 0, 11)])]
    try:
        [entry] = result(client.alter_consumer_group_offsets(change)).topic_partitions
        same(entry.error.code(), KafkaError.UNKNOWN_MEMBER_ID, "altering offsets under a live member")
    except KafkaException as error:
        same(error.args[0].code(), KafkaError.UNKNOWN_MEMBER_ID, "altering offsets under a live member")
    reader.close()
    eventually(lambda: result(client.describe_consumer_groups([group])).state == ConsumerGroupState.EMPTY, 10, "the group is empty")
    [altered] = result(client.alter_consumer_group_offsets(change)).topic_partitions
    same(altered.error, None, "error of altering offsets")
    [found] = result(client.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])).topic_partitions
    same(found.offset, 11, "altered offset")
    result(client.delete_consumer_groups([group]))
    check(group not in {entry.group_id for entry in client.list_consumer_groups().result(10).valid}, "still listed")
    refused(client.delete_consumer_groups([f"nobody-{uuid.uuid4()}"]), KafkaError.GROUP_ID_NOT_FOUND, "deleting an unknown group")


@case
def cluster(bootstrap):
    client = admin(bootstrap)
    described = client.describe_cluster().result(10)
    same([node.id for node in described.nodes], [1], "nodes")
    same(described.controller.id, 1, "controller")
    check(len(described.cluster_id) == 22, f"cluster id {described.cluster_id!r}")
    same(f"{described.nodes[0].host}:{described.nodes[0].port}", bootstrap, "address")
