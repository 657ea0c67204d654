"""kcat as a person uses it, with the librdkafka that Debian ships."""

import json
import os
import re
import signal
import subprocess
import time

from case import case, check, eventually, main, same
from wire import CODEC_NAMES, GZIP, Connection, batch


def kcat(bootstrap, *arguments, stdin=None, seconds=30, code=0):
    done = subprocess.run(["kcat", "-b", bootstrap, *arguments], input=stdin, capture_output=True, text=True, timeout=seconds)
    if code is not None:
        check(done.returncode == code, f"kcat {' '.join(arguments)}: exit code {done.returncode}: {done.stderr.strip()[:300]}")
    return done


def lines(done):
    return done.stdout.splitlines()


@case
def one_broker(bootstrap):
    done = kcat(bootstrap, "-L")
    check(f"broker 1 at {bootstrap} (controller)" in done.stdout, f"no such broker in: {done.stdout[:300]}")
    check(" 1 brokers:" in done.stdout, f"not one broker in: {done.stdout[:300]}")
    same(done.stderr, "", "warnings")


@case
def features(bootstrap):
    done = kcat(bootstrap, "-L", "-X", "api.version.request=true", "-d", "feature")
    found = set(re.findall(r"Enabling feature (\w+)", done.stderr))
    final = re.findall(r"Updated enabled protocol features to ([\w,]+)", done.stderr)
    if final:
        found = set(final[-1].split(","))
    missing = {"MsgVer2", "ZSTD", "IdempotentProducer"} - found
    check(not missing, f"{missing} not among {sorted(found)}")
    return ",".join(sorted(found))


@case
def every_codec(bootstrap):
    topic = "kcat-codecs"
    with Connection(bootstrap) as connection:
        connection.create_topic(topic)
        for codec in CODEC_NAMES:
            # Long enough that compressing pays: librdkafka sends a batch as it is otherwise.
            text = f"{codec}-a{'x' * 2000}\n{codec}-b{'x' * 2000}\n"
            kcat(bootstrap, "-P", "-t", topic, "-z", codec, stdin=text)
        found = connection.fetch_all(topic)
    # It may send its two messages as one batch or as two.
    same(list(dict.fromkeys(entry["codec"] for entry in found)), list(range(5)), "codecs of the batches on disk")
    got = [line.rstrip("x") for line in lines(kcat(bootstrap, "-C", "-t", topic, "-e", "-q", "-o", "beginning"))]
    same(got, [f"{codec}-{end}" for codec in CODEC_NAMES for end in "ab"], "lines")


@case
def fetch_inside_a_batch(bootstrap):
    topic = "kcat-middle"
    with Connection(bootstrap) as connection:
        connection.create_topic(topic)
        connection.produce(topic, 0, batch([(None, b"%d" % number) for number in range(10)]))
    same(lines(kcat(bootstrap, "-C", "-t", topic, "-p", "0", "-o", "7", "-c", "3", "-q")), ["7", "8", "9"], "from offset 7")
    process = subprocess.Popen(["kcat", "-b", bootstrap, "-C", "-t", topic, "-p", "0", "-o", "10", "-c", "1", "-q", "-u"],
                               stdout=subprocess.PIPE, text=True)
    time.sleep(1.5)
    same(process.poll(), None, "exit code of a consumer at the log end")
    with Connection(bootstrap) as connection:
        connection.produce(topic, 0, batch([(None, b"ten")]))
    same(process.communicate(timeout=10)[0].splitlines(), ["ten"], "what it waited for")
    done = kcat(bootstrap, "-C", "-t", topic, "-p", "0", "-o", "12", "-e", "-X", "topic.auto.offset.reset=error", code=None, seconds=15)
    check("out of range" in done.stderr.lower(), f"offset 12 of 11: {done.stderr[:300]}")


@case
def offsets_for_times(bootstrap):
    topic, base = "kcat-times", 1_700_000_000_000
    with Connection(bootstrap) as connection:
        connection.create_topic(topic, configs={"retention.ms": -1})
        for start in (0, 100):
            rows = [(None, b"%d" % (start + number), (), base + start + 10 * number) for number in range(10)]
            connection.produce(topic, 0, batch(rows, codec=GZIP))

    def query(stamp):
        done = kcat(bootstrap, "-Q", "-t", f"{topic}:0:{stamp}")
        return int(re.search(r"\[0\] offset (-?\d+)", done.stdout).group(1))
    same(query(base - 1000), 0, "before the data")
    same(query(base + 20), 2, "third record of a compressed batch")
    same(query(base + 15), 2, "between two records")
    same(query(base + 120), 12, "third record of the second batch")
    # kcat prints OFFSET_END as -1.
    same(query(base + 100_000), -1, "after the data")
    got = lines(kcat(bootstrap, "-C", "-t", topic, "-p", "0", "-o", f"s@{base + 30}", "-o", f"e@{base + 130}", "-q"))
    same(got, ["3", "4", "5", "6", "7", "8", "9", "100", "101", "102"], "records of the interval")


@case
def acks_0(bootstrap):
    topic = "kcat-acks-0"
    with Connection(bootstrap) as connection:
        connection.create_topic(topic)
        kcat(bootstrap, "-P", "-t", topic, "-X", "topic.acks=0", stdin="".join(f"{number}\n" for number in range(10_000)))
        eventually(lambda: connection.ends(topic) == (0, 10_000), 10, "10,000 records")
    same(lines(kcat(bootstrap, "-C", "-t", topic, "-e", "-q")), [str(number) for number in range(10_000)], "lines")


class Member:
    """One `kcat -G` and what it prints."""

    def __init__(self, bootstrap, group, topic, folder, number):
        self.out = os.path.join(folder, f"member-{number}")
        with open(self.out, "wb") as out, open(self.out + ".err", "wb") as err:
            self.process = subprocess.Popen(
                ["kcat", "-b", bootstrap, "-G", group, "-J", "-u", "-X", "session.timeout.ms=6000", "-X", "heartbeat.interval.ms=500",
                 "-X", "auto.offset.reset=earliest", "-X", "auto.commit.interval.ms=200", topic], stdout=out, stderr=err)

    def partitions(self):
        """Partitions it says it was assigned last."""
        with open(self.out + ".err", encoding="utf-8") as err:
            found = [line for line in err if "assigned:" in line or "revoked:" in line]
        if not found or "revoked:" in found[-1]:
            return set()
        return set(re.findall(r"\[(\d+)\]", found[-1].split("assigned:")[1]))

    def records(self):
        out = []
        with open(self.out, encoding="utf-8") as text:
            for line in text:
                try:
                    row = json.loads(line)
                except ValueError:
                    continue  # The line it was writing when it was killed.
                out.append((row["partition"], row["offset"]))
        return out


@case
def group_of_three(bootstrap):
    topic, group, folder = "kcat-group", "kcat-g1", os.environ["INTEROP_TMP"]
    with Connection(bootstrap) as connection:
        connection.create_topic(topic, partitions=6)

        def write(count):
            for partition in range(6):
                connection.produce(topic, partition, batch([(None, b"x")] * count))
        write(10)
        members = [Member(bootstrap, group, topic, folder, number) for number in range(3)]
        wanted = {str(number) for number in range(6)}

        def shared(among, each):
            parts = [member.partitions() for member in among]
            return all(len(part) == each for part in parts) and set().union(*parts) == wanted
        eventually(lambda: shared(members, 2), 20, "two partitions each")
        write(10)
        eventually(lambda: sum(len(member.records()) for member in members) >= 120, 10, "120 records")
        eventually(lambda: all(connection.offset_fetch(group, topic, partition)[0] == 20 for partition in range(6)), 10, "commits")
        members[0].process.send_signal(signal.SIGKILL)
        began = time.monotonic()
        eventually(lambda: shared(members[1:], 3), 15, "three partitions each after a member died")
        took = time.monotonic() - began
        check(took < 9, f"the rest took over after {took:.1f} s with a session of 6 s")
        write(10)
        eventually(lambda: sum(len(member.records()) for member in members) >= 180, 10, "180 records")
        time.sleep(0.5)
        for member in members[1:]:
            member.process.terminate()
        for member in members:
            member.process.wait(15)
        found = sorted(row for member in members for row in member.records())
        same(found, [(partition, offset) for partition in range(6) for offset in range(30)], "records, each once")
    return f"took over after {took:.1f} s"


if __name__ == "__main__":
    main()
