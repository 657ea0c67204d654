"""Puts the pinned clients into the cache folder. Each answers with a command to run, or with why it cannot be had."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
CLIENTS = HERE / "clients"
JAVA_FLAGS = ["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]


class Missing(Exception):
    """The client cannot be installed on this machine; the text says why."""


@dataclass
class Client:
    """How to run a client program, or `missing`: why not."""

    name: str
    version: str = ""
    command: list = field(default_factory=list)
    missing: str = ""


def step(command, timeout=600, **options):
    """Runs an installation step; its failure makes the client missing."""
    try:
        done = subprocess.run(command, timeout=timeout, capture_output=True, text=True, **options)
    except FileNotFoundError as error:
        raise Missing(f"{command[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise Missing(f"{command[0]} took more than {timeout} s") from error
    if done.returncode:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        raise Missing(f"{' '.join(map(str, command[:3]))} failed: {' '.join(lines[-3:])[:300]}")
    return done.stdout


def python_since(*oldest):
    """An interpreter of at least that version, the same one of several for all who ask."""
    beside = sorted(Path.home().glob(".pyenv/versions/3.*/bin/python3"))
    for command in [sys.executable, "python3", *(f"python3.{minor}" for minor in range(oldest[1], 20)), *beside]:
        probe = [command, "-c", f"import sys, venv; sys.exit(sys.version_info < {oldest})"]
        try:
            # A name that pyenv has and does not serve ends with an error of its own.
            if subprocess.run(probe, timeout=30, capture_output=True).returncode == 0:
                return command
        except (FileNotFoundError, subprocess.TimeoutExpired):
            pass
    raise Missing(f"there is no Python {'.'.join(map(str, oldest))} or later")


def digest(*paths):
    total = hashlib.sha256()
    for path in sorted(paths):
        total.update(Path(path).name.encode() + b"\0" + Path(path).read_bytes())
    return total.hexdigest()


class Cache:
    """The folder of installed clients; a stamp beside each says from which pins and sources it was made."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    def once(self, name, sources, make):
        stamp, wanted = self.folder / f"{name}.stamp", digest(*sources)
        if not stamp.exists() or stamp.read_text() != wanted:
            make(self.folder / name)
            stamp.write_text(wanted)
        return self.folder / name

    # Python

    def python(self):
        pins = CLIENTS / "python" / "requirements.txt"

        def make(folder):
            shutil.rmtree(folder, ignore_errors=True)
            step([sys.executable, "-m", "venv", folder])
            step([folder / "bin" / "pip", "install", "--quiet", "--requirement", pins])
        return self.once("python", [pins], make) / "bin" / "python"

    def python_client(self, program, package=None):
        version = ""
        if package:
            pins = dict(line.split("==") for line in (CLIENTS / "python" / "requirements.txt").read_text().split())
            version = pins[package]
        return Client(program, version, [str(self.python()), str(CLIENTS / "python" / f"{program}_cases.py")])

    # Debian

    def kcat(self):
        if not shutil.which("kcat"):
            if os.geteuid() or not shutil.which("apt-get"):
                raise Missing("kcat is not installed, and this is not root with apt")
            install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "kcat"]
            quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
            try:
                step(install, env=quiet)
            except Missing:
                step(["apt-get", "update", "-qq"], env=quiet)
                step(install, env=quiet)
        text = step(["kcat", "-V"])
        client = self.python_client("kcat")
        client.version = text.split("Version ")[1].split()[0] + ", librdkafka " + text.split("librdkafka ")[1].split()[0]
        return client

    # JVM

    def jars(self):
        pins = CLIENTS / "java" / "pom.xml"

        def make(folder):
            shutil.rmtree(folder, ignore_errors=True)
            step(["mvn", "-q", "-B", "-f", pins, "dependency:copy-dependencies", f"-DoutputDirectory={folder}",
                  "-DincludeScope=runtime"])
        return self.once("jars", [pins], make)

    def kafka_version(self):
        return next(self.jars().glob("kafka-clients-*.jar")).stem.rsplit("-", 1)[1]

    def java(self):
        jars, sources = self.jars(), sorted((CLIENTS / "java").glob("*.java"))

        def make(folder):
            shutil.rmtree(folder, ignore_errors=True)
            step(["javac", "-nowarn", "-cp", f"{jars}/*", "-d", folder, *sources])
        classes = self.once("classes", [*sources, CLIENTS / "java" / "pom.xml"], make)
        return Client("java", self.kafka_version(), ["java", *JAVA_FLAGS, "-cp", f"{classes}:{jars}/*", "Interop"])

    def console(self):
        self.jars()
        client = self.python_client("console")
        client.version = self.kafka_version()
        return client

    # Node

    def kafkajs(self):
        pins = [CLIENTS / "node" / "package.json", CLIENTS / "node" / "package-lock.json"]

        def make(folder):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            for pin in pins:
                shutil.copy(pin, folder)
            step(["npm", "ci", "--silent"], cwd=folder)
        folder = self.once("node", pins, make)
        # Modules are looked for beside the program, so the program runs from the cache.
        for source in (CLIENTS / "node").glob("*.js"):
            shutil.copy(source, folder)
        version = json.loads(pins[0].read_text())["dependencies"]["kafkajs"]
        return Client("kafkajs", version, ["node", str(folder / "kafkajs.js")])

    def native_js(self):
        raise Missing("@confluentinc/kafka-javascript 1.10.1 and node-rdkafka 3.6.1 carry no binary in the package: their install "
                      "scripts fetch one from outside the registry, or compile librdkafka for minutes")

    # Go

    def go_client(self, name, module):
        source = CLIENTS / "go"
        binary = self.folder / f"go-{name}"
        step(["go", "build", "-o", binary, f"./{name}"], cwd=source)
        version = next(line.split()[1] for line in (source / "go.mod").read_text().splitlines() if line.strip().startswith(module))
        return Client(name, version.lstrip("v"), [str(binary)])

    def clients(self):
        """Every client by its name in the list of cases."""
        makers = {
            "raw": lambda: self.python_client("raw"),
            "kcat": self.kcat,
            "confluent": lambda: self.python_client("confluent", "confluent-kafka"),
            "kafka-python": lambda: self.python_client("kafka_python", "kafka-python"),
            "aiokafka": lambda: self.python_client("aiokafka", "aiokafka"),
            "kafkajs": self.kafkajs,
            "confluent-js": self.native_js,
            "java": self.java,
            "console": self.console,
            "sarama": lambda: self.go_client("sarama", "github.com/IBM/sarama "),
            "franz-go": lambda: self.go_client("franz", "github.com/twmb/franz-go "),
        }
        return makers

    def client(self, name):
        try:
            found = self.clients()[name]()
        except Missing as missing:
            found = Client(name, missing=str(missing))
        found.name = name
        return found
