#!/usr/bin/env python3
"""Runs `azulite bench kafka` against azulite and Apache Kafka, one after the other on this machine, and prints a table.

  benches/kafka.py                                 azulite, Kafka as it comes, Kafka with log.flush.interval.messages=1
  benches/kafka.py --only kafka,kafka-flushed      some of them
  benches/kafka.py -- --size 16Ki --codec lz4      more flags for the measurement

Apache Kafka comes from the jars of tests/interop/kafka (Maven, once); it runs with its own defaults, a heap of 1 GiB and
the garbage collector of its start script. Each server has a new data directory below --dir and runs alone. The binary is
$AZULITE, or target/release/azulite.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.dont_write_bytecode = True
sys.path.insert(0, os.environ.get("AZULITE_INTEROP") or str(ROOT / "tests" / "interop" / "kafka"))

from harness.install import Cache  # noqa: E402
from harness.server import Azulite, Kafka  # noqa: E402

# What bin/kafka-server-start.sh sets.
JVM = ["-Xmx1g", "-Xms1g", "-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:InitiatingHeapOccupancyPercent=35",
       "-XX:+ExplicitGCInvokesConcurrent", "-Djava.awt.headless=true"]


class DefaultAzulite(Azulite):
    """With the configuration it ships with."""

    def __init__(self, folder, settings=None, binary=None):
        super().__init__(folder, settings, binary)
        (self.folder / "appliance.toml").write_text("[logging]\nlevel = \"warn\"\n")


class DefaultKafka(Kafka):
    """One node with nothing set but what one node needs."""

    def configuration(self):
        needed = ("process.roles", "node.id", "controller.quorum.bootstrap.servers", "controller.listener.names", "listeners",
                  "log.dirs", "offsets.topic.replication.factor", "transaction.state.log.replication.factor",
                  "transaction.state.log.min.isr", "share.coordinator.state.topic.replication.factor",
                  "share.coordinator.state.topic.min.isr")
        whole = super().configuration()
        return {**{key: whole[key] for key in needed}, **self.settings.get("kafka", {})}

    def java(self, *arguments):
        return ["java", *JVM, f"-Dlog4j2.configurationFile={self.folder}/log4j2.properties", "-cp", f"{self.jars}/*", *arguments]


def servers(binary, cache):
    return {
        "azulite": lambda folder: DefaultAzulite(folder, binary=binary),
        "kafka": lambda folder: DefaultKafka(folder, jars=cache.jars()),
        "kafka-flushed": lambda folder: DefaultKafka(folder, {"kafka": {"log.flush.interval.messages": 1}}, jars=cache.jars()),
    }


ROWS = [
    ("produce MB/s", "produce_mb_s", 1), ("produce records/s", "produce_rec_s", 0),
    ("consume MB/s", "consume_mb_s", 1), ("consume records/s", "consume_rec_s", 0),
    ("end to end p50 ms", "e2e_p50_ms", 2), ("end to end p99 ms", "e2e_p99_ms", 2),
    ("server CPU s/GB produced", "produce_cpu_s_per_gb", 2), ("server CPU s/GB consumed", "consume_cpu_s_per_gb", 2),
    ("server CPU at the fixed rate, %", "e2e_cpu_percent", 1), ("server resident MiB", "server_peak_rss_mib", 0),
]


def table(results):
    lines = ["| | " + " | ".join(results) + " |", "|---" * (len(results) + 1) + "|"]
    for title, key, digits in ROWS:
        cells = []
        for result in results.values():
            low, high = result["spread"].get(key, (0, 0))
            cells.append(f"{result.get(key, 0):.{digits}f} ({low:.{digits}f}-{high:.{digits}f})")
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="names of servers, separated by commas")
    parser.add_argument("--dir", help="folder on the disk to measure on [default: the one for temporary files]")
    parser.add_argument("--json", type=Path, help="where the results go, one JSON object by name of server")
    parser.add_argument("flags", nargs="*", help="flags of `azulite bench kafka`, behind --")
    options = parser.parse_args()
    binary = Path(os.environ.get("AZULITE") or ROOT / "target" / "release" / "azulite").resolve()
    cache = Cache(os.environ.get("AZULITE_INTEROP_CACHE") or ROOT / "target" / "interop")
    known = servers(binary, cache)
    wanted = options.only.split(",") if options.only else list(known)
    if unknown := set(wanted) - set(known):
        parser.error(f"no such server: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    work = Path(tempfile.mkdtemp(prefix="azulite-bench-", dir=options.dir))
    results = {}
    try:
        for name in wanted:
            server = known[name](work / name)
            server.start()
            try:
                command = [binary, "bench", "kafka", "--bootstrap", server.bootstrap, "--server-pid", str(server.pid), "--json"]
                measured = subprocess.run([*command, *options.flags], stdout=subprocess.PIPE, text=True)
            finally:
                server.stop()
            if measured.returncode:
                print(f"{name}: the measurement failed; the server's last words: {server.tail()}", file=sys.stderr)
                return 1
            results[name] = json.loads(measured.stdout)
            shutil.rmtree(server.folder, ignore_errors=True)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")
    first = next(iter(results.values()))
    machine = first["machine"]
    print(f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_mib']} MiB, Linux {machine['kernel']}, "
          f"{first['size_bytes']} bytes, {first['partitions']} partitions, acks {first['acks']}, codec {first['codec']}; "
          f"median of {first['repetitions']} repetitions of {first['seconds']} s, in brackets least and most\n")
    print(table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
