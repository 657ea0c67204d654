"""The server under test: azulite, or Apache Kafka as the reference that shows a case to be right.

Owned by the runner alone: started on free ports with a folder of its own, ended by its pid, killed and started again
where a case asks for it.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HERE / "clients" / "python"))
import wire  # noqa: E402

PAGE = os.sysconf("SC_PAGE_SIZE")
TICKS = os.sysconf("SC_CLK_TCK")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class ServerFailed(Exception):
    """The server did not start, or ended by itself."""


class Server:
    """One server process and its folder. Settings are names of the acceptance list's environment, see `SETTINGS`."""

    start_seconds = 30

    def __init__(self, folder, settings=None):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.data = Path((settings or {}).get("data", self.folder / "data"))
        self.settings = settings or {}
        self.port = free_port()
        self.host = self.settings.get("host", "127.0.0.1")
        self.log = self.folder / "server.log"
        self.process = None
        self.starts = 0
        self.lock = threading.Lock()

    @property
    def bootstrap(self):
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self):
        return self.process.pid

    def start(self):
        began = time.monotonic()
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.command(), cwd=self.folder, env=self.environment(), stdout=log, stderr=log,
                                            stdin=subprocess.DEVNULL)
        self.starts += 1
        while not self.answers():
            if self.process.poll() is not None:
                raise ServerFailed(f"ended with {self.process.returncode} while starting: {self.tail()}")
            if time.monotonic() - began > self.start_seconds:
                self.kill()
                raise ServerFailed(f"no answer within {self.start_seconds} s: {self.tail()}")
            time.sleep(0.02)
        return time.monotonic() - began

    def answers(self):
        try:
            with wire.Connection(self.bootstrap, timeout=2) as connection:
                return bool(connection.metadata([])["brokers"])
        except (OSError, ValueError, wire.Closed):
            return False

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def kill(self):
        if self.alive():
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        """Asks it to end, and insists after a while."""
        if not self.alive():
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.kill()

    def restart(self):
        with self.lock:
            self.kill()
            return self.start()

    def rss(self):
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * PAGE

    def cpu(self):
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def disk(self):
        total = 0
        for path in self.data.rglob("*"):
            try:
                total += path.stat().st_blocks * 512
            except FileNotFoundError:
                pass
        return total

    def tail(self, lines=15):
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        except FileNotFoundError:
            return ""

    def panics(self):
        try:
            found = self.log.read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return []
        return [line for line in found if "panicked at" in line]

    def complaints(self):
        """How many warnings and errors it logged, and the first errors."""
        try:
            lines = self.log.read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return "no log"
        errors = [line for line in lines if " ERROR " in line]
        warnings = sum(" WARN " in line for line in lines)
        return f"{warnings} warnings, {len(errors)} errors" + "".join(f"\n    {line[:300]}" for line in errors[:5])

    def environment(self):
        """That of the runner without settings of azulite, which belong to whoever started the runner."""
        return {name: value for name, value in os.environ.items() if not name.startswith("AZULITE")}


class Azulite(Server):
    name = "azulite"

    def __init__(self, folder, settings=None, binary=None):
        super().__init__(folder, settings)
        self.binary = binary
        self.http = free_port()
        lines = ["[logging]", 'level = "info"']
        storage = {"segment_bytes": "16Mi", "clean_interval": "1s", **self.settings.get("storage", {})}
        lines += ["[storage]"] + [f'{key} = "{value}"' for key, value in storage.items()]
        for section, values in self.settings.get("sections", {}).items():
            lines += [f"[{section}]"] + [f"{key} = {value}" for key, value in values.items()]
        (self.folder / "appliance.toml").write_text("\n".join(lines) + "\n")

    def command(self):
        return [str(self.binary), "--config", str(self.folder / "appliance.toml"), "--data-dir", str(self.data), "serve",
                "--http", f"127.0.0.1:{self.http}", "--kafka", f"{self.host}:{self.port}"]


class Kafka(Server):
    """Apache Kafka, one node in combined mode, with the environment of the acceptance list."""

    name = "kafka"
    start_seconds = 90

    def __init__(self, folder, settings=None, jars=None):
        super().__init__(folder, settings)
        self.jars = jars
        self.controller = free_port()
        self.properties = self.folder / "server.properties"
        self.properties.write_text("".join(f"{key}={value}\n" for key, value in self.configuration().items()))
        (self.folder / "log4j2.properties").write_text(LOG4J)

    def configuration(self):
        return {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.bootstrap.servers": f"127.0.0.1:{self.controller}",
            "controller.listener.names": "CONTROLLER",
            "listeners": f"PLAINTEXT://{self.host}:{self.port},CONTROLLER://127.0.0.1:{self.controller}",
            "log.dirs": self.data,
            # Section 7, "Environment equal to upstream's test broker".
            "auto.create.topics.enable": "true",
            "num.partitions": 3,
            "group.initial.rebalance.delay.ms": 0,
            "offsets.topic.replication.factor": 1,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            # Our defaults where they differ on purpose: 8 MiB messages, time stamps of any future (3.2, 6).
            "message.max.bytes": 8 << 20,
            "log.message.timestamp.after.max.ms": 2**63 - 1,
            # Faster housekeeping, so that retention and compaction are seen within a case.
            "log.retention.check.interval.ms": 1000,
            "log.initial.task.delay.ms": 1000,
            "log.cleaner.backoff.ms": 500,
            "log.segment.delete.delay.ms": 1000,
            # DeleteRecords is only as durable as this checkpoint, a minute by default.
            "log.flush.start.offset.checkpoint.interval.ms": 100,
            "log.cleaner.dedupe.buffer.size": 32 << 20,
            # Quick return after kill -9: the old registration has to run out first.
            "broker.session.timeout.ms": 2000,
            "broker.heartbeat.interval.ms": 500,
            "offsets.topic.num.partitions": 1,
            "transaction.state.log.num.partitions": 1,
            **self.settings.get("kafka", {}),
        }

    def answers(self):
        """It answers long before it can do anything: waits for every partition, the coordinator and producer ids."""
        try:
            with wire.Connection(self.bootstrap, timeout=5) as connection:
                topics = connection.metadata(None)
                if not topics["brokers"]:
                    return False
                for name, topic in topics["topics"].items():
                    for partition in topic["partitions"]:
                        if connection.list_offset(name, -1, partition["index"])[0]:
                            return False
                connection.ask(wire.FIND_COORDINATOR, 2, wire.text("warm") + b"\0")
                connection.producer_id()
                return connection.heartbeat("warm", 1, "nobody") == 25
        except (OSError, ValueError, wire.Closed):
            return False

    def java(self, *arguments):
        return ["java", "-Xmx1g", "-Xms256m", "-XX:+UseSerialGC", f"-Dlog4j2.configurationFile={self.folder}/log4j2.properties",
                "-cp", f"{self.jars}/*", *arguments]

    def command(self):
        if not (self.data / "meta.properties").exists():
            subprocess.run(self.java("kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qg", "--standalone", "-c",
                                     str(self.properties)), check=True, stdout=subprocess.DEVNULL, timeout=60)
        return self.java("kafka.Kafka", str(self.properties))


LOG4J = """\
status = error
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = [%d] %p %m (%c)%n
rootLogger.level = WARN
rootLogger.appenderRef.out.ref = out
"""
