import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.concurrent.ExecutionException;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.CreateTopicsOptions;
import org.apache.kafka.clients.admin.CreateTopicsResult;
import org.apache.kafka.clients.admin.DescribeConfigsOptions;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.KafkaFuture;
import org.apache.kafka.common.TopicCollection;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.InvalidConfigurationException;
import org.apache.kafka.common.errors.InvalidPartitionsException;
import org.apache.kafka.common.errors.InvalidReplicationFactorException;
import org.apache.kafka.common.errors.InvalidTopicException;
import org.apache.kafka.common.errors.OffsetOutOfRangeException;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.errors.UnknownTopicIdException;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;
import org.apache.kafka.common.quota.ClientQuotaFilter;

/** The Java administration client, whose tools operators use. */
final class AdminCases {
    static Admin admin(String bootstrap) {
        return Admin.create(Map.of("bootstrap.servers", bootstrap, "default.api.timeout.ms", "20000", "request.timeout.ms", "15000"));
    }

    static void refused(KafkaFuture<?> future, Class<? extends Exception> wanted, String what) throws Exception {
        try {
            future.get();
        } catch (ExecutionException failure) {
            Interop.check(wanted.isInstance(failure.getCause()), what + ": " + failure.getCause());
            return;
        }
        throw new AssertionError(what + ": accepted");
    }

    static TopicDescription describe(Admin admin, String topic) throws Exception {
        return admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic);
    }

    static String topics(String bootstrap) throws Exception {
        try (Admin admin = admin(bootstrap)) {
            String topic = "java-admin";
            admin.createTopics(List.of(new NewTopic(topic, 2, (short) 1))).all().get();
            Interop.awaitUsable(admin, topic);

            // One call with good and bad topics: only the bad ones fail.
            NewTopic badConfig = new NewTopic("java-bad-config", 1, (short) 1).configs(Map.of("no.such.config", "1"));
            NewTopic manual = new NewTopic("java-manual", Map.of(0, List.of(1), 1, List.of(1)));
            CreateTopicsResult mixed = admin.createTopics(List.of(
                new NewTopic("java-good", 3, (short) 1).configs(Map.of("retention.ms", "123456")), new NewTopic("java-rf", 1, (short) 3),
                new NewTopic(topic, 2, (short) 1), new NewTopic("bad/name", 1, (short) 1), new NewTopic("java-none", 0, (short) 1),
                badConfig, manual));
            mixed.values().get("java-good").get();
            mixed.values().get("java-manual").get();
            Interop.same(mixed.numPartitions("java-good").get(), 3, "partitions in the answer");
            Interop.same(mixed.config("java-good").get().get("retention.ms").value(), "123456", "config in the answer");
            Interop.check(!mixed.topicId("java-good").get().equals(Uuid.ZERO_UUID), "no topic id in the answer");
            refused(mixed.values().get("java-rf"), InvalidReplicationFactorException.class, "three replicas");
            refused(mixed.values().get(topic), TopicExistsException.class, "a topic that exists");
            refused(mixed.values().get("bad/name"), InvalidTopicException.class, "a bad name");
            refused(mixed.values().get("java-none"), InvalidPartitionsException.class, "no partition");
            refused(mixed.values().get("java-bad-config"), InvalidConfigurationException.class, "a bad config");

            CreateTopicsOptions only = new CreateTopicsOptions().validateOnly(true);
            admin.createTopics(List.of(new NewTopic("java-validated", 1, (short) 1)), only).all().get();
            refused(admin.createTopics(List.of(new NewTopic("java-validated", 1, (short) 3)), only).all(),
                InvalidReplicationFactorException.class, "three replicas, only validated");
            Interop.check(!admin.listTopics().names().get().contains("java-validated"), "validateOnly made a topic");

            admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(5))).all().get();
            Interop.eventually(10, "five partitions", () -> describe(admin, topic).partitions().size() == 5);
            refused(admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(4))).all(), InvalidPartitionsException.class, "fewer partitions");
            refused(admin.createPartitions(Map.of("java-nobody", NewPartitions.increaseTo(4))).all(),
                UnknownTopicOrPartitionException.class, "more partitions of an unknown topic");

            TopicDescription byName = describe(admin, topic);
            TopicDescription byId = admin.describeTopics(TopicCollection.ofTopicIds(List.of(byName.topicId()))).allTopicIds().get().get(byName.topicId());
            Interop.same(byId.name(), topic, "name of the topic described by its id");
            Interop.same(byId.partitions().size(), 5, "partitions of the topic described by its id");
            Interop.same(byName.partitions().get(4).leader().id(), 1, "leader");
            refused(admin.describeTopics(TopicCollection.ofTopicIds(List.of(Uuid.randomUuid()))).allTopicIds(), UnknownTopicIdException.class,
                "description of an unknown id");
            refused(admin.describeTopics(List.of("java-nobody")).allTopicNames(), UnknownTopicOrPartitionException.class, "description of an unknown name");

            admin.deleteTopics(TopicCollection.ofTopicIds(List.of(byName.topicId()))).all().get();
            admin.deleteTopics(List.of("java-good", "java-manual")).all().get();
            Interop.eventually(10, "the topics go", () -> {
                Set<String> names = admin.listTopics().names().get();
                return !names.contains(topic) && !names.contains("java-good");
            });
            refused(admin.deleteTopics(TopicCollection.ofTopicIds(List.of(byName.topicId()))).all(), UnknownTopicIdException.class, "deleting an id again");
            return null;
        }
    }

    static Config config(Admin admin, ConfigResource resource) throws Exception {
        return admin.describeConfigs(List.of(resource), new DescribeConfigsOptions().includeSynonyms(true).includeDocumentation(true))
            .all().get().get(resource);
    }

    static void alter(Admin admin, ConfigResource resource, AlterConfigOp.OpType how, String key, String value) throws Exception {
        admin.incrementalAlterConfigs(Map.of(resource, List.of(new AlterConfigOp(new ConfigEntry(key, value), how)))).all().get();
    }

    static String configs(String bootstrap) throws Exception {
        try (Admin admin = admin(bootstrap)) {
            String topic = "java-configs";
            ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
            admin.createTopics(List.of(new NewTopic(topic, 1, (short) 1).configs(Map.of("retention.ms", "1000000")))).all().get();
            Interop.awaitUsable(admin, topic);
            Config found = config(admin, resource);
            int count = found.entries().size();
            Interop.check(count >= 25, "only " + count + " entries for a topic");
            Interop.same(found.get("retention.ms").source(), ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG, "source of what was set");
            Interop.same(found.get("retention.ms").type(), ConfigEntry.ConfigType.LONG, "type of retention.ms");
            Interop.same(found.get("cleanup.policy").source(), ConfigEntry.ConfigSource.DEFAULT_CONFIG, "source of what was not set");
            Interop.same(found.get("cleanup.policy").type(), ConfigEntry.ConfigType.LIST, "type of cleanup.policy");
            Interop.check(found.get("retention.ms").documentation() != null, "no documentation");

            alter(admin, resource, AlterConfigOp.OpType.SET, "retention.ms", "2000000");
            Interop.eventually(5, "SET", () -> config(admin, resource).get("retention.ms").value().equals("2000000"));
            alter(admin, resource, AlterConfigOp.OpType.DELETE, "retention.ms", "");
            Interop.eventually(5, "DELETE", () -> config(admin, resource).get("retention.ms").isDefault());
            alter(admin, resource, AlterConfigOp.OpType.APPEND, "cleanup.policy", "compact");
            Interop.eventually(5, "APPEND", () -> config(admin, resource).get("cleanup.policy").value().equals("delete,compact"));
            alter(admin, resource, AlterConfigOp.OpType.SUBTRACT, "cleanup.policy", "delete");
            Interop.eventually(5, "SUBTRACT", () -> config(admin, resource).get("cleanup.policy").value().equals("compact"));
            refused(admin.incrementalAlterConfigs(Map.of(resource, List.of(new AlterConfigOp(new ConfigEntry("retention.ms", "soon"),
                AlterConfigOp.OpType.SET)))).all(), InvalidConfigurationException.class, "a number that is none");
            // Accepted without effect, and told back.
            alter(admin, resource, AlterConfigOp.OpType.SET, "segment.jitter.ms", "17");
            Interop.eventually(5, "a config without effect", () -> config(admin, resource).get("segment.jitter.ms").value().equals("17"));

            Config broker = config(admin, new ConfigResource(ConfigResource.Type.BROKER, "1"));
            Interop.check(!broker.entries().isEmpty(), "no entry for the broker");
            config(admin, new ConfigResource(ConfigResource.Type.BROKER, ""));
            return count + " entries for a topic, " + broker.entries().size() + " for the broker";
        }
    }

    static void produce(String bootstrap, String topic, int count) throws Exception {
        try (KafkaProducer<byte[], byte[]> producer = RecordCases.producer(bootstrap, Map.of())) {
            for (int i = 0; i < count; i++) {
                producer.send(new ProducerRecord<>(topic, 0, null, "x".getBytes())).get();
            }
        }
    }

    static String theRest(String bootstrap) throws Exception {
        try (Admin admin = admin(bootstrap)) {
            String topic = "java-rest";
            TopicPartition partition = new TopicPartition(topic, 0);
            admin.createTopics(List.of(new NewTopic(topic, 1, (short) 1))).all().get();
            Interop.awaitUsable(admin, topic);
            produce(bootstrap, topic, 20);
            Interop.same(admin.deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(5))).lowWatermarks().get(partition).get().lowWatermark(), 5L,
                "low watermark");
            refused(admin.deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(99))).all(), OffsetOutOfRangeException.class, "deleting beyond the end");
            Interop.same(admin.listOffsets(Map.of(partition, OffsetSpec.earliest())).partitionResult(partition).get().offset(), 5L, "earliest");
            Interop.same(admin.listOffsets(Map.of(partition, OffsetSpec.latest())).partitionResult(partition).get().offset(), 20L, "latest");
            Interop.same(admin.listOffsets(Map.of(partition, OffsetSpec.earliestLocal())).partitionResult(partition).get().offset(), 5L, "earliest local");
            Interop.same(admin.listOffsets(Map.of(partition, OffsetSpec.latestTiered())).partitionResult(partition).get().offset(), -1L, "latest tiered");

            Interop.same(admin.describeCluster().nodes().get().size(), 1, "nodes");
            Interop.same(admin.describeCluster().controller().get().id(), 1, "controller");
            String cluster = admin.describeCluster().clusterId().get();
            Interop.same(cluster.length(), 22, "length of the cluster id");
            long size = admin.describeLogDirs(List.of(1)).allDescriptions().get().get(1).values().stream()
                .mapToLong(dir -> dir.replicaInfos().get(partition) == null ? 0 : dir.replicaInfos().get(partition).size()).sum();
            Interop.check(size > 0, "size " + size + " in the log dirs");
            int producers = admin.describeProducers(List.of(partition)).all().get().get(partition).activeProducers().size();
            Interop.same(producers, 1, "active producers, for the Java producer is idempotent by default");
            admin.listTransactions().all().get();
            Interop.same(admin.describeClientQuotas(ClientQuotaFilter.all()).entities().get().size(), 0, "quotas");
            var features = admin.describeFeatures().featureMetadata().get();
            Interop.check(features.finalizedFeatures().containsKey("metadata.version"), "features " + features.finalizedFeatures());
            Interop.same(admin.listPartitionReassignments().reassignments().get().size(), 0, "reassignments");
            Collection<?> groups = admin.listGroups().all().get();
            admin.alterConsumerGroupOffsets("java-rest", Map.of(partition, new OffsetAndMetadata(7, "héllo"))).all().get();
            Interop.eventually(5, "the group is listed", () -> admin.listGroups().all().get().stream().anyMatch(g -> g.groupId().equals("java-rest")));
            OffsetAndMetadata committed = admin.listConsumerGroupOffsets("java-rest").partitionsToOffsetAndMetadata().get().get(partition);
            Interop.same(committed.offset() + committed.metadata(), "7héllo", "committed");
            admin.deleteConsumerGroupOffsets("java-rest", Set.of(partition)).all().get();
            admin.deleteConsumerGroups(List.of("java-rest")).all().get();
            return groups.size() + " groups before, features " + features.finalizedFeatures().keySet();
        }
    }

    /** Everything an administrator can see, as text. */
    static TreeMap<String, String> snapshot(Admin admin) throws Exception {
        TreeMap<String, String> seen = new TreeMap<>();
        seen.put("cluster", admin.describeCluster().clusterId().get());
        Set<String> names = new TreeSet<>(admin.listTopics().names().get());
        Map<String, TopicDescription> topics = admin.describeTopics(names).allTopicNames().get();
        Map<TopicPartition, OffsetSpec> earliest = new HashMap<>();
        Map<TopicPartition, OffsetSpec> latest = new HashMap<>();
        for (TopicDescription topic : topics.values()) {
            seen.put("topic " + topic.name(), topic.topicId() + " " + topic.partitions().size());
            topic.partitions().forEach(p -> {
                earliest.put(new TopicPartition(topic.name(), p.partition()), OffsetSpec.earliest());
                latest.put(new TopicPartition(topic.name(), p.partition()), OffsetSpec.latest());
            });
            ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic.name());
            TreeMap<String, String> set = new TreeMap<>();
            config(admin, resource).entries().stream().filter(e -> !e.isDefault()).forEach(e -> set.put(e.name(), e.value()));
            seen.put("config " + topic.name(), set.toString());
        }
        admin.listOffsets(earliest).all().get().forEach((p, o) -> seen.put("start " + p, "" + o.offset()));
        admin.listOffsets(latest).all().get().forEach((p, o) -> seen.put("end " + p, "" + o.offset()));
        for (var group : admin.listGroups().all().get()) {
            admin.listConsumerGroupOffsets(group.groupId()).partitionsToOffsetAndMetadata().get()
                .forEach((p, o) -> seen.put("group " + group.groupId() + " " + p, o == null ? "none" : o.offset() + " " + o.metadata()));
        }
        return seen;
    }

    static String survivesRestart(String bootstrap) throws Exception {
        try (Admin admin = admin(bootstrap)) {
            String topic = "java-lasting";
            TopicPartition partition = new TopicPartition(topic, 0);
            admin.createTopics(List.of(new NewTopic(topic, 2, (short) 1).configs(Map.of("retention.ms", "77777777")))).all().get();
            admin.createTopics(List.of(new NewTopic("java-passing", 1, (short) 1))).all().get();
            produce(bootstrap, topic, 20);
            admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(3))).all().get();
            admin.deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(5))).all().get();
            admin.alterConsumerGroupOffsets("java-lasting", Map.of(partition, new OffsetAndMetadata(9, "note"))).all().get();
            admin.alterConsumerGroupOffsets("java-passing", Map.of(partition, new OffsetAndMetadata(9, "note"))).all().get();
            admin.deleteConsumerGroups(List.of("java-passing")).all().get();
            admin.deleteTopics(List.of("java-passing")).all().get();
            Interop.eventually(10, "the topic goes", () -> !admin.listTopics().names().get().contains("java-passing"));
            TreeMap<String, String> before = snapshot(admin);
            Interop.same(before.get("start " + partition), "5", "log start before");
            Interop.restartServer();
            TreeMap<String, String> after = snapshot(admin);
            // Cases before this one may have left topics whose retention goes on.
            TreeSet<String> differences = new TreeSet<>();
            Set<String> keys = new TreeSet<>(before.keySet());
            keys.addAll(after.keySet());
            for (String key : keys) {
                boolean moves = key.startsWith("start ") && !key.contains(topic) || key.startsWith("end ") && !key.contains(topic) || key.contains("__");
                if (!moves && !String.valueOf(before.get(key)).equals(after.get(key))) {
                    differences.add(key + ": " + before.get(key) + " became " + after.get(key));
                }
            }
            Interop.check(differences.isEmpty(), differences.size() + " differences: " + differences.stream().limit(5).toList());
            produce(bootstrap, topic, 1);
            return before.size() + " facts compared";
        }
    }

    private AdminCases() {
    }
}
