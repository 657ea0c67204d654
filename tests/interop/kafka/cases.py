"""The list of cases: number in the acceptance list, client, name in the client program, what it claims.

`alone` cases need the server for themselves: they restart it, measure it, or start another one. `not_for` says for
which server a case has no meaning, `gap` what a server is known not to do yet; both with the reason.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Case:
    number: str
    client: str
    name: str
    claim: str
    seconds: int = 60
    alone: bool = False
    not_for: dict = field(default_factory=dict)
    gap: dict = field(default_factory=dict)

    @property
    def key(self):
        return f"{self.client}/{self.name}"


RAW = [
    Case("3", "raw", "api-versions-0-to-5", "ApiVersions 0 to 4 answer, 5 answers in the layout of 0 and steps down"),
    Case("3", "raw", "client-software-name", "a malformed software name is INVALID_REQUEST and keeps the connection"),
    Case("3", "raw", "unserved-requests-close-the-connection", "unknown APIs and versions close the connection"),
    Case("5", "raw", "wildcard-is-never-advertised", "0.0.0.0 is warned about and never told to a client", alone=True),
    Case("14", "raw", "fetch-returns-whole-batches", "a fetch inside a batch, and under any limit, returns the whole batch"),
    Case("14", "raw", "empty-partition-reports-high-watermark-0", "an empty partition has high watermark 0"),
    Case("15", "raw", "long-poll-keeps-its-time", "an idle fetch takes 700 ms, a produce wakes it in 10 ms", alone=True),
    Case("16", "raw", "acks-0-has-no-answer", "acks=0 is silent and does not disturb the order of answers"),
    Case("16", "raw", "answers-come-in-order", "a parked fetch delays its own connection only"),
    Case("17", "raw", "refused-batches", "damaged, double, empty and control batches are refused and append nothing"),
    Case("17", "raw", "many-topics-in-one-produce", "a bad partition does not spoil its neighbours"),
    Case("18", "raw", "time-in-a-compressed-batch", "a time is found to the record, in every codec"),
    Case("20", "raw", "group-errors", "group errors are those of the protocol"),
    Case("20", "raw", "member-left-out-gets-an-empty-assignment", "a member without assignment gets an empty one"),
    Case("31", "raw", "idempotent-sequences", "repeated, missing and outdated sequences"),
    Case("31", "raw", "five-in-flight", "requests back to back are checked against each other"),
    Case("31", "raw", "idempotence-survives-restart", "a repeated batch is known after kill -9", alone=True),
    Case("37", "raw", "retention-by-time", "retention.ms moves the log start and frees the disk", seconds=120, alone=True),
    Case("38", "raw", "retention-by-size", "retention.bytes keeps at most twice its bound, and the newest"),
    Case("39", "raw", "compaction", "compaction keeps the last value of each key, tombstones go", seconds=180),
    Case("30", "raw", "all-records-survive-restart", "every record of every topic is the same after kill -9", seconds=300, alone=True),
    Case("41", "raw", "full-disk", "a full disk refuses writes, serves reads, and recovers without restart", seconds=180, alone=True),
    Case("47", "raw", "thousand-topics", "1000 topics: quick to make, list and restart, small", seconds=180, alone=True),
    Case("48", "raw", "five-hundred-groups", "500 heartbeating groups take under 5 % of a core", seconds=120, alone=True),
    Case("49", "raw", "two-thousand-connections", "2000 idle connections take under 100 MB", seconds=120, alone=True),
    Case("50", "raw", "random-and-mutated-frames", "fuzzed frames neither end it nor make it grow", seconds=900, alone=True),
    Case("50", "raw", "garbage-closes-the-connection", "garbage closes the connection"),
    Case("50", "raw", "half-requests-do-no-harm", "a request cut anywhere appends nothing"),
    Case("50", "raw", "lying-lengths", "lengths beyond the frame are refused and allocate nothing", alone=True),
    Case("50", "raw", "compression-bombs", "batches that unpack to 256 MiB do not take that memory", seconds=120, alone=True),
    Case("50", "raw", "thousand-hostile-connections", "1000 half requests take little and block nobody", seconds=120, alone=True),
    Case("50", "raw", "slow-sender-does-not-block", "a sender of single bytes blocks nobody"),
]

KCAT = [
    Case("1", "kcat", "one-broker", "kcat -L shows one broker, the controller, without a warning"),
    Case("2", "kcat", "features", "librdkafka sees MsgVer2, ZSTD and IdempotentProducer"),
    Case("6", "kcat", "every-codec", "an old librdkafka compresses with every codec, and reads all back in order"),
    Case("14", "kcat", "fetch-inside-a-batch", "offsets inside a batch, at the end and beyond it"),
    Case("16", "kcat", "acks-0", "10,000 records with acks=0 all arrive"),
    Case("18", "kcat", "offsets-for-times", "times before, inside and after the data; an interval of times (19)"),
    Case("20", "kcat", "group-of-three", "three members share, two take over, every record once"),
]

CONFLUENT = [
    Case("7", "confluent", "survives-kill", "100,000 idempotent messages and a kill -9: each once, offsets dense", seconds=240, alone=True),
    Case("K", "confluent", "many-kills", "killed 30 times: nothing acknowledged is lost, doubled or taken back", seconds=1800, alone=True),
    Case("13", "confluent", "large-and-too-large", "3 MiB pass through small fetches, 10 MiB are refused and harm nothing"),
    Case("16", "confluent", "acks-0", "10,000 records with acks=0 all arrive"),
    Case("6", "confluent", "every-codec", "every codec, headers, keys and timestamps round trip"),
    Case("8", "confluent", "unknown-topic-and-auto-creation", "producing makes a topic, but not one with a bad name"),
    Case("15", "confluent", "consumer-waits-and-wakes", "a waiting consumer gets a message at once"),
    Case("21", "confluent", "cooperative-sticky", "a second member takes only what moves"),
    Case("22", "confluent", "static-member-returns", "a static member returns unnoticed; its double fences it", seconds=90),
    Case("24", "confluent", "commits-survive-restart", "offset, leader epoch and text of a commit survive kill -9", alone=True),
    Case("40", "confluent", "deleted-records-stay-deleted", "a consumer at 0 starts at the log start, also after kill -9", alone=True),
    Case("30", "confluent", "members-survive-restart", "members go on after kill -9", seconds=120, alone=True),
    Case("28", "confluent", "topics", "AdminClient: create, grow, describe, delete topics"),
    Case("28", "confluent", "configs", "AdminClient: describe and alter configs"),
    Case("28", "confluent", "offsets-and-records", "AdminClient: list offsets, delete records"),
    Case("28", "confluent", "groups", "AdminClient: list, describe, alter and delete groups"),
    Case("28", "confluent", "cluster", "AdminClient: describe the cluster"),
]

PYTHON = [
    Case("8", "kafka-python", "produce-consume-resume", "default producer, group; a second run goes on where the first ended"),
    Case("6", "kafka-python", "every-codec", "plain and gzip batches, beginning and end, offset for a time"),
    Case("20", "kafka-python", "rebalance-between-two", "two members share, one takes over"),
    Case("28", "kafka-python", "admin", "create, describe, list and delete topics"),
    Case("1.1", "kafka-python", "every-advertised-version", "every version in every advertised range answers, byte for byte by its schema"),
    Case("1.1", "kafka-python", "answers-mean-the-same-in-every-version", "Metadata, Fetch and ListOffsets agree across versions"),
    Case("9", "aiokafka", "produce-consume-restart", "commit, restart the consumer: nothing twice, nothing lost"),
    Case("6", "aiokafka", "idempotent-and-codecs", "idempotent producer with every codec"),
    Case("20", "aiokafka", "two-members", "two members share, one takes over"),
    Case("28", "aiokafka", "admin", "create, grow, describe, list and delete"),
    Case("18", "aiokafka", "offsets", "beginning, end and offset for a time"),
]

JS = [
    Case("10", "kafkajs", "produce-and-consume", "1000 messages, group, commits, topic offsets"),
    Case("6", "kafkajs", "gzip-and-idempotent", "idempotent producer with gzip"),
    Case("29", "kafkajs", "alter-configs-replaces", "legacy AlterConfigs resets what it does not name"),
    Case("28", "kafkajs", "admin", "topics, partitions, records, groups, offsets"),
    Case("15", "kafkajs", "long-poll-and-heartbeat", "a long-poll on the same connection costs no session", seconds=90),
    Case("11", "confluent-js", "produce-and-consume", "as kafkajs, over librdkafka"),
]

GO = [
    Case("44", "sarama", "dispatcher-round", "the dispatcher's requests: create, alter, grow, 3 MiB, consume, delete group and topic"),
    Case("44", "sarama", "topic-lister", "the dispatcher's topic lister at the library's default version"),
    Case("44", "sarama", "waiting-consumer", "a message reaches a waiting member within a second"),
    Case("20", "sarama", "two-members-share", "sticky members share and take over within 10 s", seconds=90),
    Case("44", "sarama", "start-up-runs-twice", "all topics of the dispatcher made, then altered only"),
    Case("44", "sarama", "empty-partition-is-ready", "an empty partition reports high watermark 0"),
    Case("6", "franz-go", "produce-and-consume", "newest versions, every codec, headers"),
    Case("28", "franz-go", "admin", "topics, configs, groups, lag"),
    Case("23", "franz-go", "chained-groups", "three chained groups with bouncing members: each record once", seconds=300),
    Case("27", "franz-go", "recreated-topic", "a topic made again has a new id and starts at 0"),
    Case("40", "franz-go", "delete-records-reset", "a consumer below the log start goes on at the log start"),
]

JAVA = [
    Case("27", "java", "admin-topics", "Admin: good and bad topics in one call, by name and id, validateOnly, growth, deletion"),
    Case("27", "java", "admin-configs", "Admin: SET, DELETE, APPEND, SUBTRACT; sources, types, documentation"),
    Case("27", "java", "admin-the-rest", "Admin: records, log dirs, producers, transactions, quotas, features, groups"),
    Case("30", "java", "admin-survives-restart", "all that Admin can see is the same after kill -9", seconds=120, alone=True),
    Case("12", "java", "records-round-trip", "null and empty keys and values, headers, timestamps, in every codec"),
    Case("13", "java", "too-large", "3 MiB pass, 10 MiB are RecordTooLarge, the next record passes"),
    Case("18", "java", "offsets-for-times", "times inside and after a batch"),
    Case("20", "java", "groups-rebalance", "three members share and take over", seconds=90),
    Case("22", "java", "static-member-keeps-its-generation", "a static member returns into the same generation; its double fences it", seconds=120),
    Case("4", "console", "broker-api-versions", "kafka-broker-api-versions lists the ranges of the contract"),
    Case("12", "console", "console-round-trip", "console producer and consumer: keys, headers, nulls", seconds=90),
    Case("18", "console", "get-offsets", "kafka-get-offsets by time", seconds=90),
    Case("27", "console", "topics", "kafka-topics: create, describe, alter, list, delete", seconds=120),
    Case("27", "console", "configs", "kafka-configs: alter, describe, refuse", seconds=90),
    Case("25", "console", "consumer-groups", "kafka-consumer-groups: list, describe, reset, delete offsets, delete", seconds=240),
    Case("40", "console", "delete-records-and-log-dirs", "kafka-delete-records, kafka-log-dirs", seconds=90),
]

CASES = RAW + KCAT + CONFLUENT + PYTHON + JS + GO + JAVA
