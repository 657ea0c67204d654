import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;

/** Called as {@code Interop <bootstrap> <case>}; the last line on stdout is the result as JSON. */
public final class Interop {
    interface Case {
        String run(String bootstrap) throws Exception;
    }

    private static final Map<String, Case> CASES = new LinkedHashMap<>();

    static {
        CASES.put("admin-topics", AdminCases::topics);
        CASES.put("admin-configs", AdminCases::configs);
        CASES.put("admin-the-rest", AdminCases::theRest);
        CASES.put("admin-survives-restart", AdminCases::survivesRestart);
        CASES.put("records-round-trip", RecordCases::roundTrip);
        CASES.put("too-large", RecordCases::tooLarge);
        CASES.put("offsets-for-times", RecordCases::offsetsForTimes);
        CASES.put("groups-rebalance", GroupCases::rebalance);
        CASES.put("static-member-keeps-its-generation", GroupCases::staticMember);
    }

    public static void main(String[] arguments) {
        String line;
        try {
            line = result(true, CASES.get(arguments[1]).run(arguments[0]));
        } catch (Throwable failure) {
            failure.printStackTrace();
            line = result(false, failure + (failure.getCause() == null ? "" : ", because " + failure.getCause()));
        }
        System.out.println(line);
        System.out.flush();
        Runtime.getRuntime().halt(0);
    }

    private static String result(boolean ok, String detail) {
        StringBuilder out = new StringBuilder("{\"ok\": " + ok + ", \"detail\": \"");
        for (char c : (detail == null ? "" : detail).toCharArray()) {
            if (c == '"' || c == '\\') {
                out.append('\\').append(c);
            } else {
                out.append(c < ' ' ? ' ' : c);
            }
        }
        return out.append("\"}").toString();
    }

    /** Asks the runner to kill the server and start it again, and waits until it has. */
    static void restartServer() throws Exception {
        System.out.println("{\"ask\": \"restart\"}");
        System.out.flush();
        StringBuilder answer = new StringBuilder();
        for (int c = System.in.read(); c != '\n' && c >= 0; c = System.in.read()) {
            answer.append((char) c);
        }
        check(!answer.toString().contains("error"), "the runner could not restart the server: " + answer);
    }

    static void check(boolean condition, String message) {
        if (!condition) {
            throw new AssertionError(message);
        }
    }

    static void same(Object got, Object wanted, String what) {
        check(got == null ? wanted == null : got.equals(wanted), what + ": got " + got + ", wanted " + wanted);
    }

    static void eventually(int seconds, String what, Callable<Boolean> probe) throws Exception {
        long end = System.nanoTime() + seconds * 1_000_000_000L;
        while (!probe.call()) {
            check(System.nanoTime() < end, "not within " + seconds + " s: " + what);
            Thread.sleep(50);
        }
    }

    /** Apache Kafka takes a moment until a new topic can be used; ours has to be usable at once. */
    static void awaitUsable(Admin admin, String topic) throws Exception {
        if (!"kafka".equals(System.getenv("INTEROP_SERVER"))) {
            return;
        }
        eventually(10, topic + " can be used", () -> {
            try {
                admin.listOffsets(Map.of(new TopicPartition(topic, 0), OffsetSpec.latest())).all().get();
                admin.describeConfigs(List.of(new ConfigResource(ConfigResource.Type.TOPIC, topic))).all().get();
                return true;
            } catch (ExecutionException notYet) {
                return false;
            }
        });
    }

    private Interop() {
    }
}
