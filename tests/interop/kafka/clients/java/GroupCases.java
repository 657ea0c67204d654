import java.time.Duration;
import java.util.Collection;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.FencedInstanceIdException;

/** Classic group membership with the Java client. */
final class GroupCases {
    /** A consumer on a thread of its own. */
    static final class Member extends Thread {
        final AtomicInteger callbacks = new AtomicInteger();
        final Map<String, Object> settings;
        final String bootstrap;
        final String topic;
        volatile Set<Integer> owned = Set.of();
        volatile int generation = -1;
        volatile boolean stopping;
        volatile Exception failure;
        volatile int read;

        Member(String bootstrap, String group, String topic, Map<String, Object> more) {
            this.bootstrap = bootstrap;
            this.topic = topic;
            settings = new HashMap<>(Map.of("group.id", group, "session.timeout.ms", 10000, "heartbeat.interval.ms", 500));
            settings.putAll(more);
            setDaemon(true);
            start();
        }

        @Override
        public void run() {
            try (KafkaConsumer<byte[], byte[]> consumer = RecordCases.consumer(bootstrap, settings)) {
                consumer.subscribe(List.of(topic), new ConsumerRebalanceListener() {
                    @Override
                    public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
                        callbacks.incrementAndGet();
                    }

                    @Override
                    public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
                        callbacks.incrementAndGet();
                    }
                });
                while (!stopping) {
                    read += consumer.poll(Duration.ofMillis(100)).count();
                    Set<Integer> now = new HashSet<>();
                    consumer.assignment().forEach(p -> now.add(p.partition()));
                    generation = consumer.groupMetadata().generationId();
                    owned = now;
                }
                consumer.commitSync();
            } catch (Exception e) {
                failure = e;
            }
        }

        void end() throws Exception {
            stopping = true;
            join(15000);
        }
    }

    static boolean settled(int partitions, Member... members) {
        Set<Integer> all = new HashSet<>();
        int sum = 0;
        for (Member member : members) {
            all.addAll(member.owned);
            sum += member.owned.size();
        }
        return sum == partitions && all.size() == partitions;
    }

    static String rebalance(String bootstrap) throws Exception {
        String topic = "java-group";
        RecordCases.create(bootstrap, topic, 6, Map.of());
        AdminCases.produce(bootstrap, topic, 100);
        Map<String, Object> settings = Map.of("group.protocol", "classic");
        Member one = new Member(bootstrap, "java-group", topic, settings);
        Interop.eventually(20, "all six at the first", () -> settled(6, one));
        Member two = new Member(bootstrap, "java-group", topic, settings);
        Member three = new Member(bootstrap, "java-group", topic, settings);
        Interop.eventually(30, "two each", () -> settled(6, one, two, three) && one.owned.size() == 2 && two.owned.size() == 2);
        one.end();
        Interop.eventually(20, "three each", () -> settled(6, two, three) && two.owned.size() == 3);
        two.end();
        three.end();
        for (Member member : List.of(one, two, three)) {
            Interop.check(member.failure == null, "a member failed: " + member.failure);
        }
        Interop.same(one.read + two.read + three.read >= 100, true, "all records were read");
        return null;
    }

    static String staticMember(String bootstrap) throws Exception {
        String topic = "java-static";
        RecordCases.create(bootstrap, topic, 4, Map.of());
        Map<String, Object> a = Map.of("group.instance.id", "a", "session.timeout.ms", 20000, "group.protocol", "classic");
        Map<String, Object> b = Map.of("group.instance.id", "b", "session.timeout.ms", 20000, "group.protocol", "classic");
        Member one = new Member(bootstrap, "java-static", topic, a);
        Member two = new Member(bootstrap, "java-static", topic, b);
        Interop.eventually(30, "two partitions each", () -> settled(4, one, two) && one.owned.size() == 2 && one.generation == two.generation);
        Set<Integer> held = one.owned;
        int generation = one.generation;
        int callbacks = two.callbacks.get();
        one.end();
        Thread.sleep(1000);
        Member again = new Member(bootstrap, "java-static", topic, a);
        Interop.eventually(15, "the same partitions", () -> again.owned.equals(held));
        Thread.sleep(1500);
        Interop.same(again.generation, generation, "generation");
        Interop.same(two.callbacks.get(), callbacks, "callbacks at the other member");
        Member doubled = new Member(bootstrap, "java-static", topic, a);
        Interop.eventually(20, "the older one fails", () -> again.failure != null);
        Interop.check(again.failure instanceof FencedInstanceIdException, "it failed with " + again.failure);
        Interop.check(doubled.failure == null, "the newer one failed: " + doubled.failure);
        doubled.end();
        two.end();
        return "generation " + generation;
    }

    private GroupCases() {
    }
}
