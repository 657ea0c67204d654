"""A range that is advertised is a promise for every version in it: each one is asked for and its answer read strictly."""

import uuid

import wire
from case import case, check, same
from schema import Schema, codes
from wire import Connection, batch

TOPIC, ZERO = "schemas", uuid.UUID(int=0)
# What the APIs below are called in the schema files.
NAMES = {
    0: "Produce", 1: "Fetch", 2: "ListOffsets", 3: "Metadata", 8: "OffsetCommit", 9: "OffsetFetch", 10: "FindCoordinator",
    11: "JoinGroup", 12: "Heartbeat", 13: "LeaveGroup", 14: "SyncGroup", 15: "DescribeGroups", 16: "ListGroups", 18: "ApiVersions",
    19: "CreateTopics", 20: "DeleteTopics", 21: "DeleteRecords", 22: "InitProducerId", 23: "OffsetForLeaderEpoch",
    29: "DescribeAcls", 32: "DescribeConfigs", 33: "AlterConfigs", 35: "DescribeLogDirs", 37: "CreatePartitions", 42: "DeleteGroups",
    43: "ElectLeaders", 44: "IncrementalAlterConfigs", 46: "ListPartitionReassignments", 47: "OffsetDelete", 48: "DescribeClientQuotas",
    49: "AlterClientQuotas", 50: "DescribeUserScramCredentials", 60: "DescribeCluster", 61: "DescribeProducers",
    65: "DescribeTransactions", 66: "ListTransactions", 74: "ListConfigResources", 75: "DescribeTopicPartitions",
}
# Level A and B of the contract that every release must have; transactions and SASL are not among them yet.
NEEDED = {0, 1, 2, 3, 8, 9, 10, 11, 12, 13, 14, 15, 16, 18, 19, 20, 21, 22, 23, 32, 33, 37, 42, 44, 47, 60}
# Error codes that are the right answer to what is asked.
EXPECTED = {20: {0}, 29: {0, 54}, 42: {69}, 43: {0, 84}, 48: {0}, 50: {0, 91}, 65: {105, 48, 0}}


class Caller:
    """Asks one API at one version and returns the decoded answer."""

    def __init__(self, bootstrap):
        self.connection = Connection(bootstrap)
        self.schemas = {}

    def schema(self, key, kind):
        name = NAMES[key] + kind
        if name not in self.schemas:
            self.schemas[name] = Schema(name)
        return self.schemas[name]

    def call(self, key, version, values):
        request, response = self.schema(key, "Request"), self.schema(key, "Response")
        flexible = request.flexible(version)
        reader = self.connection.ask(key, version, request.encode(version, values), flexible)
        if flexible and key != wire.API_VERSIONS:
            same(reader.uvarint(), 0, f"tagged fields in the header of {NAMES[key]} {version}")
        return response.decode(version, reader.data, reader.at)

    def joined(self, version, group):
        """Joins a group at JoinGroup `version`, in two steps where that is the rule."""
        values = dict(groupId=group, sessionTimeoutMs=10000, protocolType="consumer", protocols=[dict(name="range", metadata=b"m")])
        if version >= 1:
            values["rebalanceTimeoutMs"] = 10000
        answer = self.call(11, version, values)
        if version >= 4:
            same(answer["errorCode"], 79, f"first JoinGroup {version} without a member id")
            answer = self.call(11, version, {**values, "memberId": answer["memberId"]})
        same(answer["errorCode"], 0, f"JoinGroup {version}")
        return answer


def in_group(caller, key, version):
    """Sync, heartbeat and leave need a member first."""
    group = f"schemas-{key}-{version}"
    joined = caller.joined(5, group)
    member, generation = joined["memberId"], joined["generationId"]
    sync = dict(groupId=group, generationId=generation, memberId=member, assignments=[dict(memberId=member, assignment=b"a")])
    if key != 14:
        caller.call(14, 3, sync)
        if key == 12:
            return caller.call(12, version, dict(groupId=group, generationId=generation, memberId=member))
        leave = dict(memberId=member) if version < 3 else dict(members=[dict(memberId=member)])
        return caller.call(13, version, dict(groupId=group, **leave))
    if version >= 5:
        sync.update(protocolType="consumer", protocolName="range")
    answer = caller.call(14, version, sync)
    same(answer["assignment"], b"a", f"assignment of SyncGroup {version}")
    return answer


def requests(topic_id):
    """API key to a function from version to field values. Names for old versions, ids for new ones."""
    data = batch([(b"k", b"v")])
    pair = [dict(topic=TOPIC, partitions=[0])]

    def named(version, first, name="name", **rest):
        return {**({name: TOPIC} if version < first else {"topicId": topic_id}), **rest}
    return {
        0: lambda v: dict(transactionalId=None, acks=-1, timeoutMs=5000, topicData=[
            named(v, 13, partitionData=[dict(index=0, records=data)])]),
        1: lambda v: dict(maxWaitMs=0, minBytes=1, maxBytes=1 << 20, isolationLevel=1, sessionId=0, sessionEpoch=-1, topics=[
            named(v, 13, "topic", partitions=[dict(partition=0, fetchOffset=0, partitionMaxBytes=1 << 20)])]),
        2: lambda v: dict(replicaId=-1, topics=[dict(name=TOPIC, partitions=[dict(partitionIndex=0, timestamp=-1)])]),
        3: lambda v: dict(topics=[dict(topicId=ZERO, name=TOPIC)], allowAutoTopicCreation=False),
        8: lambda v: dict(groupId="schemas-offsets", topics=[
            named(v, 10, partitions=[dict(partitionIndex=0, committedOffset=v, committedMetadata="m")])],
            **(dict(generationIdOrMemberEpoch=-1) if v >= 1 else {})),
        9: lambda v: dict(groupId="schemas-offsets", topics=[dict(name=TOPIC, partitionIndexes=[0])]) if v < 8 else
        dict(groups=[dict(groupId="schemas-offsets", topics=[named(v, 10, partitionIndexes=[0])])]),
        10: lambda v: dict(key="g") if v < 4 else dict(coordinatorKeys=["g", "h"]),
        15: lambda v: dict(groups=["schemas-described"]),
        16: lambda v: {},
        18: lambda v: dict(clientSoftwareName="schemas", clientSoftwareVersion="1.0") if v >= 3 else {},
        19: lambda v: dict(topics=[dict(name=f"schemas-made-{v}", numPartitions=1, replicationFactor=1,
                                        configs=[dict(name="retention.ms", value="100000")])], timeoutMs=10000),
        20: lambda v: dict(topicNames=[f"schemas-gone-{v}"], timeoutMs=10000) if v < 6 else
        dict(topics=[dict(name=f"schemas-gone-{v}", topicId=ZERO)], timeoutMs=10000),
        21: lambda v: dict(topics=[dict(name=TOPIC, partitions=[dict(partitionIndex=0, offset=0)])], timeoutMs=5000),
        22: lambda v: dict(transactionalId=None, transactionTimeoutMs=60000),
        23: lambda v: dict(replicaId=-1, topics=[dict(topic=TOPIC, partitions=[dict(partition=0, leaderEpoch=0)])]),
        29: lambda v: dict(resourceTypeFilter=1, patternTypeFilter=1, operation=1, permissionType=1),
        32: lambda v: dict(resources=[dict(resourceType=2, resourceName=TOPIC, configurationKeys=None)], includeSynonyms=True,
                           **(dict(includeDocumentation=True) if v >= 3 else {})),
        33: lambda v: dict(resources=[dict(resourceType=2, resourceName=TOPIC, configs=[dict(name="retention.ms", value="200000")])]),
        35: lambda v: dict(topics=[dict(topic=TOPIC, partitions=[0])]),
        37: lambda v: dict(topics=[dict(name=TOPIC, count=4, assignments=None)], timeoutMs=5000, validateOnly=True),
        42: lambda v: dict(groupsNames=["schemas-nobody"]),
        43: lambda v: dict(topicPartitions=pair, timeoutMs=5000),
        44: lambda v: dict(resources=[dict(resourceType=2, resourceName=TOPIC, configs=[
            dict(name="retention.ms", configOperation=0, value="300000")])]),
        46: lambda v: dict(timeoutMs=5000, topics=None),
        47: lambda v: dict(groupId="schemas-offsets", topics=[dict(name=TOPIC, partitions=[dict(partitionIndex=0)])]),
        48: lambda v: dict(components=[], strict=False),
        49: lambda v: dict(entries=[], validateOnly=True),
        50: lambda v: dict(users=None),
        60: lambda v: {},
        61: lambda v: dict(topics=[dict(name=TOPIC, partitionIndexes=[0])]),
        65: lambda v: dict(transactionalIds=["schemas-nobody"]),
        66: lambda v: {},
        74: lambda v: {},
        75: lambda v: dict(topics=[dict(name=TOPIC)], responsePartitionLimit=100),
    }


def advertised(connection):
    reader = connection.api_versions(0)
    same(reader.i16(), 0, "error of ApiVersions")
    return {key: (low, high) for key, low, high in reader.array(lambda: (reader.i16(), reader.i16(), reader.i16()))}


@case
def every_advertised_version(bootstrap):
    caller = Caller(bootstrap)
    ranges = advertised(caller.connection)
    caller.connection.create_topic(TOPIC)
    missing = NEEDED - set(ranges)
    check(not missing, f"not advertised: {sorted(missing)}")
    topic_id = caller.call(3, 12, dict(topics=[dict(topicId=ZERO, name=TOPIC)], allowAutoTopicCreation=False))["topics"][0]["topicId"]
    check(topic_id != ZERO, "the topic has no id")
    caller.joined(5, "schemas-described")
    made, faults, asked = requests(topic_id), [], 0
    for key, (low, high) in sorted(ranges.items()):
        if key not in NAMES:
            continue
        # Produce 0 to 2 are advertised for old librdkafka, and not served.
        low = 3 if key == 0 else low
        for version in range(low, min(high, caller.schema(key, "Request").high) + 1):
            asked += 1
            try:
                if key == 20:
                    caller.connection.create_topic(f"schemas-gone-{version}")
                if key == 11:
                    answer = caller.joined(version, f"schemas-11-{version}")
                elif key in (12, 13, 14):
                    answer = in_group(caller, key, version)
                else:
                    answer = caller.call(key, version, made[key](version))
                found = set(codes(answer))
                if key == 65:
                    continue
                check(found <= EXPECTED.get(key, {0}), f"error codes {sorted(found)}")
            except Exception as error:  # noqa: BLE001: all faults are wanted, not only the first
                faults.append(f"{NAMES[key]} {version}: {type(error).__name__} {error}")
                caller = Caller(bootstrap)
    check(not faults, f"{len(faults)} of {asked}: " + "; ".join(faults[:12]))
    return f"{asked} versions of {sum(key in NAMES for key in ranges)} APIs"


@case
def answers_mean_the_same_in_every_version(bootstrap):
    """What Metadata, Fetch and ListOffsets say does not depend on the version that asks."""
    caller, topic = Caller(bootstrap), "schemas-same"
    ranges = advertised(caller.connection)
    caller.connection.create_topic(topic, partitions=2)
    data = batch([(b"k", b"v"), (b"l", None)])
    same(caller.connection.produce(topic, 0, data)["error"], 0, "produce")
    topic_id = None
    for version in range(ranges[3][1], -1, -1):
        values = dict(topics=[dict(name=topic)] if version < 10 else [dict(topicId=ZERO, name=topic)])
        answer = caller.call(3, version, values)
        [found] = answer["topics"]
        topic_id = topic_id or found.get("topicId")
        same((found["errorCode"], found["name"], sorted(part["partitionIndex"] for part in found["partitions"])),
             (0, topic, [0, 1]), f"topic in Metadata {version}")
        same(answer["brokers"][0]["nodeId"], 1, f"broker in Metadata {version}")
        if version >= 1:
            same(answer["controllerId"], 1, f"controller in Metadata {version}")
        if version >= 10:
            check(found["topicId"] == topic_id != ZERO, f"id in Metadata {version}")
        if version >= 12:
            [found] = caller.call(3, version, dict(topics=[dict(topicId=topic_id, name=None)]))["topics"]
            same((found["errorCode"], found["name"]), (0, topic), f"topic by id in Metadata {version}")
            [found] = caller.call(3, version, dict(topics=[dict(topicId=uuid.uuid4(), name=None)]))["topics"]
            same(found["errorCode"], 100, f"unknown id in Metadata {version}")
    seen = set()
    for version in range(4, ranges[1][1] + 1):
        entry = dict(topic=topic) if version < 13 else dict(topicId=topic_id)
        part = dict(partition=0, fetchOffset=1, partitionMaxBytes=1 << 20)
        answer = caller.call(1, version, dict(maxBytes=1 << 20, sessionEpoch=-1, topics=[{**entry, "partitions": [part]}])
                             if version >= 7 else dict(maxBytes=1 << 20, topics=[{**entry, "partitions": [part]}]))
        [[found]] = [entry["partitions"] for entry in answer["responses"]]
        same((found["errorCode"], found["highWatermark"], found["lastStableOffset"]), (0, 2, 2), f"partition in Fetch {version}")
        seen.add(bytes(found["records"]))
    same(len(seen), 1, "different record sets among the versions of Fetch")
    [found] = wire.batches(seen.pop())
    same([row[:3] for row in found["records"]], [(0, b"k", b"v"), (1, b"l", None)], "records")
    for version in range(1, ranges[2][1] + 1):
        answer = caller.call(2, version, dict(replicaId=-1, topics=[dict(name=topic, partitions=[dict(partitionIndex=0, timestamp=-1)])]))
        same(answer["topics"][0]["partitions"][0]["offset"], 2, f"log end in ListOffsets {version}")
    for version in range(13, ranges[1][1] + 1):
        answer = caller.call(1, version, dict(maxBytes=1 << 20, sessionEpoch=-1, topics=[
            dict(topicId=uuid.uuid4(), partitions=[dict(partition=0, fetchOffset=0, partitionMaxBytes=1 << 20)])]))
        same(set(codes(answer)), {0, 100}, f"unknown id in Fetch {version}")
