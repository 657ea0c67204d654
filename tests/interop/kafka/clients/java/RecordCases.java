import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.RecordTooLargeException;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** Producing and reading with the Java client. */
final class RecordCases {
    static KafkaProducer<byte[], byte[]> producer(String bootstrap, Map<String, Object> more) {
        Map<String, Object> settings = new HashMap<>(Map.of("bootstrap.servers", bootstrap));
        settings.putAll(more);
        return new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer());
    }

    static KafkaConsumer<byte[], byte[]> consumer(String bootstrap, Map<String, Object> more) {
        Map<String, Object> settings = new HashMap<>(Map.of("bootstrap.servers", bootstrap, "auto.offset.reset", "earliest", "enable.auto.commit", false));
        settings.putAll(more);
        return new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    static void create(String bootstrap, String topic, int partitions, Map<String, String> configs) throws Exception {
        try (Admin admin = AdminCases.admin(bootstrap)) {
            admin.createTopics(List.of(new NewTopic(topic, partitions, (short) 1).configs(configs))).all().get();
            Interop.awaitUsable(admin, topic);
        }
    }

    static List<ConsumerRecord<byte[], byte[]>> read(KafkaConsumer<byte[], byte[]> consumer, int count) {
        List<ConsumerRecord<byte[], byte[]>> rows = new ArrayList<>();
        long end = System.nanoTime() + 20_000_000_000L;
        while (rows.size() < count && System.nanoTime() < end) {
            consumer.poll(Duration.ofMillis(200)).forEach(rows::add);
        }
        Interop.same(rows.size(), count, "records");
        return rows;
    }

    static String roundTrip(String bootstrap) throws Exception {
        String topic = "java-records";
        create(bootstrap, topic, 1, Map.of("retention.ms", "-1"));
        byte[][] keys = {null, new byte[0], "key".getBytes()};
        byte[][] values = {null, new byte[0], "value".getBytes()};
        long stamp = 1_600_000_000_000L;
        int sent = 0;
        for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
            try (KafkaProducer<byte[], byte[]> producer = producer(bootstrap, Map.of("compression.type", codec, "linger.ms", 50))) {
                List<Future<RecordMetadata>> pending = new ArrayList<>();
                for (byte[] key : keys) {
                    for (byte[] value : values) {
                        pending.add(producer.send(new ProducerRecord<>(topic, 0, stamp + sent + pending.size(), key, value,
                            List.of(new RecordHeader("codec", codec.getBytes()), new RecordHeader("null", null)))));
                    }
                }
                for (Future<RecordMetadata> one : pending) {
                    RecordMetadata placed = one.get();
                    Interop.same(placed.offset(), (long) sent, "offset");
                    Interop.same(placed.timestamp(), stamp + sent, "timestamp told to the producer");
                    sent++;
                }
            }
        }
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(bootstrap, Map.of())) {
            consumer.assign(List.of(new TopicPartition(topic, 0)));
            List<ConsumerRecord<byte[], byte[]>> rows = read(consumer, sent);
            for (int i = 0; i < sent; i++) {
                ConsumerRecord<byte[], byte[]> row = rows.get(i);
                Interop.same(row.offset(), (long) i, "offset");
                Interop.same(row.timestamp(), stamp + i, "timestamp");
                Interop.check(Arrays.equals(row.key(), keys[i % 9 / 3]), "key of record " + i);
                Interop.check(Arrays.equals(row.value(), values[i % 3]), "value of record " + i);
                Interop.same(row.headers().toArray().length, 2, "headers");
                Interop.same(row.leaderEpoch().orElse(-1), 0, "leader epoch");
            }
        }
        return sent + " records";
    }

    static String tooLarge(String bootstrap) throws Exception {
        String topic = "java-51200";
        create(bootstrap, topic, 1, Map.of("max.message.bytes", "51200"));
        create(bootstrap, "java-3-mib", 1, Map.of());
        Map<String, Object> settings = Map.of("max.request.size", 20_000_000, "buffer.memory", 64_000_000L);
        try (KafkaProducer<byte[], byte[]> producer = producer(bootstrap, settings)) {
            Interop.same(producer.send(new ProducerRecord<>("java-3-mib", 0, null, new byte[3 << 20])).get().offset(), 0L, "offset of 3 MiB");
            try {
                producer.send(new ProducerRecord<>(topic, 0, null, new byte[10 << 20])).get();
                throw new AssertionError("10 MiB were accepted");
            } catch (ExecutionException failure) {
                Interop.check(failure.getCause() instanceof RecordTooLargeException, "10 MiB: " + failure.getCause());
            }
            Interop.same(producer.send(new ProducerRecord<>(topic, 0, null, new byte[10])).get().offset(), 0L, "offset of the next small one");
        }
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(bootstrap, Map.of("max.partition.fetch.bytes", 500_000, "fetch.max.bytes", 500_000))) {
            consumer.assign(List.of(new TopicPartition("java-3-mib", 0)));
            Interop.same(read(consumer, 1).get(0).value().length, 3 << 20, "bytes read");
        }
        return null;
    }

    static String offsetsForTimes(String bootstrap) throws Exception {
        String topic = "java-times";
        create(bootstrap, topic, 1, Map.of("retention.ms", "-1"));
        TopicPartition partition = new TopicPartition(topic, 0);
        long stamp = 1_650_000_000_000L;
        try (KafkaProducer<byte[], byte[]> producer = producer(bootstrap, Map.of("compression.type", "lz4", "linger.ms", 50))) {
            for (int i = 0; i < 10; i++) {
                producer.send(new ProducerRecord<>(topic, 0, stamp + 10 * i, null, "x".getBytes()));
            }
        }
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(bootstrap, Map.of())) {
            Interop.same(consumer.offsetsForTimes(Map.of(partition, stamp + 25)).get(partition).offset(), 3L, "offset for a time");
            Interop.same(consumer.offsetsForTimes(Map.of(partition, stamp + 1000)).get(partition), null, "offset for a time after the data");
            Interop.same(consumer.beginningOffsets(List.of(partition)).get(partition), 0L, "beginning");
            Interop.same(consumer.endOffsets(List.of(partition)).get(partition), 10L, "end");
        }
        return null;
    }

    private RecordCases() {
    }
}
