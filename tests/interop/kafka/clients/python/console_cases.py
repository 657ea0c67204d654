"""Apache Kafka's command line tools, as an operator calls them."""

import json
import os
import re
import subprocess

from case import IS_KAFKA, case, check, eventually, main, same
from wire import GZIP, Connection, batch

TOOLS = {
    "kafka-topics": "org.apache.kafka.tools.TopicCommand",
    "kafka-configs": "kafka.admin.ConfigCommand",
    "kafka-consumer-groups": "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
    "kafka-get-offsets": "org.apache.kafka.tools.GetOffsetShell",
    "kafka-console-producer": "org.apache.kafka.tools.ConsoleProducer",
    "kafka-console-consumer": "org.apache.kafka.tools.consumer.ConsoleConsumer",
    "kafka-broker-api-versions": "org.apache.kafka.tools.BrokerApiVersionsCommand",
    "kafka-delete-records": "org.apache.kafka.tools.DeleteRecordsCommand",
    "kafka-log-dirs": "org.apache.kafka.tools.LogDirsCommand",
}
# Section 1.1 of the contract: what we advertise, by API key.
OURS = {
    0: (0, 13), 1: (4, 18), 2: (1, 10), 3: (0, 13), 8: (2, 9), 9: (1, 9), 10: (0, 6), 11: (0, 9), 12: (0, 4), 13: (0, 5), 14: (0, 5),
    15: (0, 6), 16: (0, 5), 17: (0, 1), 18: (0, 4), 19: (2, 7), 20: (1, 6), 21: (0, 2), 22: (0, 5), 23: (2, 4), 24: (0, 3), 25: (0, 4),
    26: (0, 5), 28: (0, 5), 29: (1, 3), 30: (1, 3), 31: (1, 3), 32: (1, 4), 33: (0, 2), 35: (1, 4), 36: (0, 2), 37: (0, 3), 42: (0, 2),
    43: (0, 2), 44: (0, 1), 46: (0, 0), 47: (0, 0), 48: (0, 1), 49: (0, 1), 50: (0, 0), 51: (0, 0), 60: (0, 2), 61: (0, 0), 65: (0, 0),
    66: (0, 2), 68: (0, 1), 69: (0, 1), 74: (0, 1), 75: (0, 0),
}
# Level A and B, less SASL (only when it is on), transactions and KIP-848 (a later release).
NEEDED = {0, 1, 2, 3, 8, 9, 10, 11, 12, 13, 14, 15, 16, 18, 19, 20, 21, 22, 23, 32, 33, 37, 42, 44, 47, 60}


def command(tool):
    return ["java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dlog4j2.level=ERROR", "-cp",
            os.environ["INTEROP_JARS"] + "/*", TOOLS[tool]]


def run(tool, bootstrap, *arguments, stdin=None, code=0, seconds=40):
    """Output of a tool, standard error included, because the tools mix them."""
    done = subprocess.run([*command(tool), "--bootstrap-server", bootstrap, *arguments], input=stdin, text=True, timeout=seconds,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if code is not None:
        check(done.returncode == code, f"{tool} {' '.join(arguments)}: exit code {done.returncode}: {done.stdout.strip()[:400]}")
    return done.stdout


def made(bootstrap, topic, partitions=1, **configs):
    with Connection(bootstrap) as connection:
        connection.create_topic(topic, partitions, {key.replace("_", "."): value for key, value in configs.items()})


@case
def broker_api_versions(bootstrap):
    text = run("kafka-broker-api-versions", bootstrap)
    found, unsupported = {}, set()
    for name, key, rest in re.findall(r"(\w+)\((\d+)\): ([^\n]+)", text):
        ends = re.match(r"(\d+)(?: to (\d+))?", rest)
        if ends:
            found[int(key)] = (int(ends[1]), int(ends[2] or ends[1]))
        if "UNSUPPORTED" in rest:
            unsupported.add(int(key))
    missing = NEEDED - set(found)
    check(not missing and not NEEDED & unsupported, f"missing {sorted(missing)}, unsupported {sorted(NEEDED & unsupported)}")
    if not IS_KAFKA:
        # Apache Kafka of another release has other ranges; ours are a promise.
        wrong = {key: ends for key, ends in found.items() if OURS.get(key) != ends}
        check(not wrong, f"ranges that differ from the contract: {wrong}")
    return f"{len(found)} APIs"


@case
def console_round_trip(bootstrap):
    topic = "console-records"
    made(bootstrap, topic)
    rows = ["h1:v1,h2:v2\tkey;value", "h:1\tNULL;no key", "h:1\tkey;NULL", "h:1\tempty;", "NULL\tplain;no headers"]
    run("kafka-console-producer", bootstrap, "--topic", topic, "--property", "parse.key=true", "--property", "key.separator=;",
        "--property", "parse.headers=true", "--property", "null.marker=NULL", "--compression-codec", "snappy", stdin="\n".join(rows) + "\n")
    text = run("kafka-console-consumer", bootstrap, "--topic", topic, "--from-beginning", "--max-messages", "5", "--timeout-ms", "15000",
               "--property", "print.key=true", "--property", "print.headers=true", "--property", "print.timestamp=true",
               "--property", "key.separator=;", "--property", "null.literal=NULL", "--property", "headers.separator=,")
    got = [line for line in text.splitlines() if line.startswith("CreateTime:")]
    wanted = ["h1:v1,h2:v2;key;value", "h:1;NULL;no key", "h:1;key;NULL", "h:1;empty;", "NO_HEADERS;plain;no headers"]
    same([line.split(";", 1)[1] for line in got], wanted, f"lines of {text[:300]}")


@case
def get_offsets(bootstrap):
    topic, base = "console-offsets", 1_700_000_000_000
    made(bootstrap, topic, retention_ms=-1)
    with Connection(bootstrap) as connection:
        for start in (100, 0):  # The newest time is not in the last batch.
            connection.produce(topic, 0, batch([(None, b"x", (), base + start + 10 * number) for number in range(10)], codec=GZIP))

    def offset(time):
        text = run("kafka-get-offsets", bootstrap, "--topic", topic, "--time", str(time))
        found = re.search(rf"{topic}:0:(-?\d*)", text)
        return found.group(1) if found else None  # It prints no line where there is no such offset.
    same({time: offset(time) for time in (-1, -2, -3, base + 115, base + 1000)},
         {-1: "20", -2: "0", -3: "9", base + 115: "2", base + 1000: None}, "offsets by time")


@case
def topics(bootstrap):
    topic = "console-topic"
    run("kafka-topics", bootstrap, "--create", "--topic", topic, "--partitions", "2", "--replication-factor", "1", "--config", "retention.ms=1000000")
    text = run("kafka-topics", bootstrap, "--describe", "--topic", topic)
    check(re.search(rf"Topic: {topic}\s+TopicId: \S{{22}}\s+PartitionCount: 2\s+ReplicationFactor: 1\s+Configs: .*retention.ms=1000000", text), text[:400])
    check(re.search(r"Partition: 1\s+Leader: 1\s+Replicas: 1\s+Isr: 1", text), text[:400])
    run("kafka-topics", bootstrap, "--alter", "--topic", topic, "--partitions", "4")
    check("PartitionCount: 4" in run("kafka-topics", bootstrap, "--describe", "--topic", topic), "not grown to 4")
    text = run("kafka-topics", bootstrap, "--create", "--topic", topic, code=1)
    check("already exists" in text, text[:300])
    run("kafka-topics", bootstrap, "--delete", "--topic", topic)
    eventually(lambda: topic not in run("kafka-topics", bootstrap, "--list").split(), 15, "the topic goes")
    check("does not exist" in run("kafka-topics", bootstrap, "--describe", "--topic", topic, code=1), "describing it afterwards")


@case
def configs(bootstrap):
    topic = "console-configs"
    made(bootstrap, topic)

    def entity(*arguments, **options):
        return run("kafka-configs", bootstrap, "--entity-type", "topics", "--entity-name", topic, *arguments, **options)
    entity("--alter", "--add-config", "retention.ms=1000000,cleanup.policy=[compact,delete]")
    text = entity("--describe")
    check("retention.ms=1000000" in text and "cleanup.policy=compact,delete" in text, text[:400])
    entity("--alter", "--delete-config", "retention.ms")
    check("retention.ms=" not in entity("--describe"), "retention.ms is still set")
    check(len(re.findall(r"^\s+[\w.]+=", entity("--describe", "--all"), re.M)) >= 25, "fewer than 25 configs")
    text = entity("--alter", "--add-config", "retention.ms=soon", code=None)
    check("Invalid value soon" in text or "InvalidConfiguration" in text, text[:300])
    return None


@case
def consumer_groups(bootstrap):
    topic, group = "console-groups", "console-group"
    made(bootstrap, topic, 2)
    with Connection(bootstrap) as connection:
        connection.produce(topic, 0, batch([(None, b"x")] * 10))
        connection.produce(topic, 1, batch([(None, b"x")] * 10))

    def groups(*arguments, **options):
        return run("kafka-consumer-groups", bootstrap, *arguments, **options)
    consumer = subprocess.Popen([*command("kafka-console-consumer"), "--bootstrap-server", bootstrap, "--topic", topic, "--group", group,
                                 "--from-beginning", "--consumer-property", "auto.commit.interval.ms=200"],
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with Connection(bootstrap) as connection:
        eventually(lambda: all(connection.offset_fetch(group, topic, partition)[0] == 10 for partition in (0, 1)), 30, "commits")
    check(group in groups("--list").split(), "not listed")
    text = groups("--describe", "--group", group)
    check(re.search(rf"{group}\s+{topic}\s+0\s+10\s+10\s+0\s+console-consumer\S*\s+/127\.0\.0\.1\s+console-consumer", text), text[:600])
    text = groups("--describe", "--group", group, "--members", "--verbose")
    check(re.search(rf"{group}\s+console-consumer\S*\s+/127\.0\.0\.1\s+console-consumer\s+2\s+", text) and topic in text, text[:600])
    text = groups("--describe", "--group", group, "--state")
    check(re.search(rf"{group}\s+\S+\s+\(1\)\s+range\s+Stable\s+1", text), text[:600])
    text = groups("--delete", "--group", group, code=None)
    check("GroupNotEmptyException" in text or "not empty" in text.lower(), f"deleting with a member: {text[:400]}")
    text = groups("--reset-offsets", "--group", group, "--topic", topic, "--to-earliest", "--execute", code=None)
    check("inactive" in text, f"resetting with a member: {text[:400]}")
    consumer.terminate()
    consumer.wait(20)
    with Connection(bootstrap) as connection:
        eventually(lambda: "Empty" in groups("--describe", "--group", group, "--state"), 20, "the group is empty")
        text = groups("--reset-offsets", "--group", group, "--topic", topic, "--to-earliest", "--execute")
        check(re.search(rf"{group}\s+{topic}\s+0\s+0", text), text[:400])
        same(connection.offset_fetch(group, topic)[0], 0, "offset after the reset")
        groups("--delete-offsets", "--group", group, "--topic", f"{topic}:0")
        same(connection.offset_fetch(group, topic)[0], -1, "offset after it was deleted")
        same(connection.offset_fetch(group, topic, 1)[0], 0, "offset that was not deleted")
    check("was successful" in groups("--delete", "--group", group), "deleting")
    check(group not in groups("--list").split(), "still listed")
    text = groups("--describe", "--group", "console-nobody", code=None)
    check("does not exist" in text or "not found" in text, f"describing an unknown group: {text[:400]}")
    text = groups("--delete", "--group", "console-nobody", code=None)
    check("GroupIdNotFoundException" in text or "not found" in text.lower(), f"deleting an unknown group: {text[:400]}")


@case
def delete_records_and_log_dirs(bootstrap):
    topic = "console-trim"
    made(bootstrap, topic)
    with Connection(bootstrap) as connection:
        connection.produce(topic, 0, batch([(None, b"x")] * 10))
        path = os.path.join(os.environ["INTEROP_TMP"], "offsets.json")
        with open(path, "w", encoding="utf-8") as out:
            json.dump({"partitions": [{"topic": topic, "partition": 0, "offset": 4}], "version": 1}, out)
        check("low_watermark: 4" in run("kafka-delete-records", bootstrap, "--offset-json-file", path), "no low watermark of 4")
        same(connection.ends(topic), (4, 10), "log")
    text = run("kafka-log-dirs", bootstrap, "--describe", "--topic-list", topic)
    found = json.loads(next(line for line in text.splitlines() if line.startswith("{")))
    [partition] = [part for broker in found["brokers"] for folder in broker["logDirs"] for part in folder["partitions"]]
    same((partition["partition"], partition["offsetLag"]), (f"{topic}-0", 0), "partition in the log dirs")
    check(partition["size"] > 0, "its size is 0")


if __name__ == "__main__":
    main()
