"""Starts azulite and lets unmodified plugins of Azul's own runner work against it; once for each pinned version of the runner.

Usage: drive.py AZULITE [VERSION]... . Installed runners stay in $AZULITE_INTEROP_CACHE (target/interop).
The last line on stdout says how it went; exit code 0 passed, 1 failed, 77 skipped.
"""
import collections, email, hashlib, json, os, pathlib, shutil, signal, subprocess, sys, tempfile, time, urllib.error, urllib.request

HERE = pathlib.Path(__file__).resolve().parent
sys.dont_write_bytecode = True
sys.path.insert(0, str(HERE.parent / "kafka"))
from harness.install import Cache, Missing, python_since, step  # noqa: E402

AZULITE, ONLY = sys.argv[1], sys.argv[2:]
VERSIONS = {pins.stem.removeprefix("requirements-"): pins for pins in sorted(HERE.glob("requirements-*.txt"))}
SOON = 75
LETTERS = ["\u00e4", "\U0001f9ea", '"\\']
CONFIG = """[http]
listen = "127.0.0.1:0"
[kafka]
listen = "off"
[events]
topic_prefix = "interop"
lost_tasks_check = "1s"
[delivery]
max_attempts = 1
retry_delay = "1s"
[consumers.Slow]
lease = "3s"
[consumers.Parts]
lease = "3s"
[consumers.Killed]
lease = "3s"
[sources.usr]
"""
# The statuses of a job by what the plugin is told to do, heartbeats aside; where none is given the plugin opts out.
COMPLETED = ["completed"]
STATUSES = {
    "empty": ["completed-empty"],
    "malformed": ["completed-with-errors"],
    "too_many": ["completed-with-errors"],
    "fail": ["error-exception"] * 2,
    "fail_once": ["error-exception", "completed"],
    "undeclared": ["error-output"],
    "hang": ["error-timeout"] * 2,
    "hang_once": ["error-timeout", "completed"],
    ("Killed", "hang_once"): ["error-network", "completed"],
    # A part that fails is no failure of the plugin, a part that is killed is one: both parts run again.
    ("Parts-one", "fail"): ["error-exception"],
    ("Parts-one", "empty"): ["completed-empty"] * 2,
    None: ["opt-out"],
}
# Each file by what it tells whom. Those of LATE come when all plugins wait for work.
FILES = [
    {"Worker": "digest", "Parts": "digest", "Parts-one": "fail", "Parts-two": "text"},
    {"Worker": "text"},
    {"Worker": "children"},
    {"Worker": "nest"},
    {"Worker": "empty"},
    {"Worker": "malformed"},
    {"Worker": "fail"},
    {"Worker": "undeclared"},
    {"Stopped": "digest"},
    {"Slow": "wait", "Stopped": "wait"},
    {"Killed": "hang_once", "Timeout": "hang_once"},
    {"Timeout": "hang"},
    {"Parts": "empty", "Parts-one": "digest", "Parts-two": "wait"},
    {"Parts": "text", "Parts-one": "empty", "Parts-two": "hang_once"},
]
LATE = [{"Worker": "too_many"}, {"Worker": "fail_once", "Timeout": "digest"}, {"Slow": "digest", "Killed": "text"}]
LARGE = {"Worker": "digest", "Slow": "digest"}
# What the plugins extract: 3 from one file, and one from another down to the depth that nobody works on.
EXTRACTED, DEPTH = 3 + 9, 10
PLUGINS = {
    "Worker": {},
    "Parts": {"run_timeout": "6"},
    "Slow": {"filter_max_content_size": "1MiB"},
    "Timeout": {"run_timeout": "2"},
    "Killed": {},
    "Stopped": {},
}
PARTS = {name: [name] for name in PLUGINS} | {"Parts": ["Parts", "Parts-one", "Parts-two"]}


class Failed(Exception):
    """A claim that does not hold."""


class Server:
    """A server, and what it says."""

    def __init__(self, folder):
        config, data = folder / "azulite.toml", folder / "data"
        config.write_text(CONFIG)
        self.where, self.log = ["--config", config, "--data-dir", data], folder / "server.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen([AZULITE, "serve", *self.where], stdout=log, stderr=log)
        for _ in range(600):
            if self.process.poll() is not None:
                break
            try:
                words = (data / "LOCK").read_text().split()
                if len(words) > 1 and words[0] == f"pid={self.process.pid}":
                    self.url = "http://" + words[1].removeprefix("http=")
                    self.get("/readyz")
                    return
            except (OSError, Failed):
                pass
            time.sleep(0.05)
        self.process.kill()
        raise SystemExit(f"the server did not become ready: {self.log.read_text(errors='replace')[-2000:]}")

    def get(self, path, body=None):
        return self.ask(path, body)[0]

    def ask(self, path, body=None):
        """The body of an answer and its type."""
        try:
            with urllib.request.urlopen(self.url + path, body, timeout=60) as answer:
                return answer.read(), answer.headers["Content-Type"]
        except urllib.error.HTTPError as refused:
            raise Failed(f"{path}: {refused.code} {refused.read()[:500]}") from refused

    def run(self, *words, **options):
        return subprocess.run([AZULITE, *words, *self.where], check=True, timeout=60, stdout=subprocess.PIPE, **options).stdout

    def events(self, model):
        """The events of a model that have come since the last call."""
        events = []
        while True:
            query = f"/api/v2/event/{model}/passive?name=driver&version=1&count=1000&deadline=0&r-historic=true"
            body, kind = self.ask(query)
            parts = email.message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + body).get_payload()
            batch = json.loads(parts[1].get_payload(decode=True))["events"]
            if not batch:
                return events
            events += batch

    def publish(self, content):
        """What a submitting client does: uploads the content and publishes its sourced event."""
        stream = json.loads(self.get("/api/v3/stream/usr/content", content))["data"]
        author, at = {"name": "driver", "version": "1", "category": "user"}, "2026-01-02T03:04:05Z"
        node = {"author": author, "action": "sourced", "sha256": stream["sha256"], "timestamp": at, "size": stream["size"]}
        event = {"model_version": 6, "kafka_key": "tmp", "timestamp": at, "author": author, "action": "sourced",
                 "source": {"name": "usr", "references": {"by": "hand"}, "timestamp": at, "path": [node]},
                 "entity": stream | {"datastreams": [stream]}}
        for member in ("label", "identify_version", "language"):
            event["entity"].pop(member, None)
        answer = json.loads(self.get("/api/v2/event?model=binary", json.dumps([event]).encode()))
        if answer != {"total_ok": 1, "total_failures": 0, "failures": []}:
            raise Failed(f"published: {answer}")

    def ledger(self):
        """The ledger by consumer. It always adds up."""
        ledger = {}
        for line in self.get("/metrics").decode().splitlines():
            if line.startswith("azulite_ledger{"):
                _, name, _, state, count = line.split('"')
                ledger.setdefault(name, collections.Counter())[state] = int(count.removeprefix("} "))
        for name, counts in ledger.items():
            if counts["taken_in"] != counts["finished"] + counts["waiting"] + counts["dead"] + counts["deleted"]:
                raise Failed(f"the ledger of {name} does not add up: {counts}")
        return ledger


class Plugins:
    """The processes of the plugins; each has a folder for temporary files, which the runner empties."""

    def __init__(self, python, folder, url):
        self.python, self.folder, self.url, self.running = python, folder, url, []
        self.jobs = folder / "jobs"
        self.jobs.touch()

    def start(self, name):
        temporary = pathlib.Path(tempfile.mkdtemp(dir=self.folder))
        settings = {"events_url": self.url, "data_url": self.url, "heartbeat_interval": "1"} | PLUGINS[name]
        environment = {key: value for key, value in os.environ.items() if not key.lower().startswith(("plugin_", "runner_"))}
        environment |= {f"PLUGIN_{key.upper()}": value for key, value in settings.items()}
        environment |= {"INTEROP_JOBS": str(self.jobs), "TMPDIR": str(temporary), "PYTHONDONTWRITEBYTECODE": "1"}
        with open(self.folder / "plugins.log", "ab") as log:
            process = subprocess.Popen([self.python, HERE / "plugins.py", name], env=environment, cwd=temporary, stdout=log,
                                       stderr=log, start_new_session=True)
        self.running.append(process)
        return process

    def working(self, name, sha256):
        return f"{name} {sha256} " in self.jobs.read_text()

    def end(self):
        for process in self.running:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()


class Seen:
    """All that the server has stored so far."""

    def __init__(self, server):
        self.server, self.binaries, self.statuses, self.orders = server, {}, [], {}

    def look(self):
        self.statuses += self.server.events("status")
        for event in self.server.events("binary"):
            self.binaries[event["kafka_key"]] = event
            sha256 = event["entity"]["sha256"]
            if sha256 not in self.orders:
                content = self.server.get(f"/api/v3/stream/usr/content/{sha256}")
                if hashlib.sha256(content).hexdigest() != sha256:
                    raise Failed(f"the content {sha256} has other bytes")
                self.orders[sha256] = json.loads(content.split(b"\n")[0])

    def jobs(self):
        """The events that plugins are to work on, and what each is to say of them: author, order and statuses."""
        for key, event in self.binaries.items():
            if event["action"] not in ("sourced", "extracted"):
                continue
            # What lies as deep as may be, the runner opts out of by itself.
            orders = self.orders[event["entity"]["sha256"]] if len(event["source"]["path"]) < DEPTH else {}
            for name in PLUGINS:
                if name == "Slow" and event["entity"]["size"] > 1 << 20:
                    continue
                for author in PARTS[name] if orders.get(name) else [name]:
                    order = orders.get(author)
                    yield key, author, order, STATUSES.get((author, order)) or STATUSES.get(order, COMPLETED)

    def missing(self):
        """The jobs that have other statuses than they are to have."""
        found = collections.defaultdict(list)
        for status in self.statuses:
            if status["entity"]["status"] != "heartbeat":
                found[status["entity"]["input"]["kafka_key"], status["author"]["name"]].append(status["entity"]["status"])
        wanted = {(key, author): statuses for key, author, _, statuses in self.jobs()}
        missing = [f"{author} said {found[key, author]} of {self.orders[self.binaries[key]['entity']['sha256']]}, not {statuses}"
                   for (key, author), statuses in wanted.items() if found[key, author] != statuses]
        return missing + [f"{author} said {found[key, author]} of what it was not to get"
                          for key, author in found if found[key, author] and (key, author) not in wanted]

    def unsettled(self):
        """Why the jobs have not all ended."""
        self.look()
        extracted = sum(event["action"] == "extracted" for event in self.binaries.values())
        why = [] if extracted == EXTRACTED else [f"{extracted} extracted, not {EXTRACTED}"]
        waiting = {name: counts for name, counts in self.server.ledger().items() if counts["waiting"]}
        return why + ([f"the ledger is {waiting}"] if waiting else []) + self.missing()


def until(condition, what, seconds=SOON):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise Failed(f"{what}: not within {seconds} s")
        time.sleep(0.3)


def claim(condition, what):
    if not condition:
        raise Failed(what)


def content_of(orders, size=0):
    return json.dumps(orders).encode() + b"\n" + bytes(range(256)) * (size >> 8)


def sha256_of(orders):
    return hashlib.sha256(content_of(orders)).hexdigest()


def work(server, plugins, folder):
    """Hands in the files and runs the plugins, until every job has ended. Answers with all that is stored then."""
    files = folder / "files"
    files.mkdir()
    for number, orders in enumerate(FILES):
        if number % 2:
            server.publish(content_of(orders))
        else:
            (files / f"{number}.json").write_bytes(content_of(orders))
    (files / "large").write_bytes(content_of(LARGE, 3 << 20))
    server.run("ingest", files, "--source", "usr", "--quiet")
    started = {name: plugins.start(name) for name in PLUGINS}
    seen = Seen(server)
    later, waits, hangs = FILES[8:11]
    until(lambda: plugins.working("Stopped", sha256_of(waits)), "a job of Stopped")
    started["Stopped"].terminate()
    until(lambda: plugins.working("Killed", sha256_of(hangs)), "a job of Killed")
    os.killpg(started["Killed"].pid, signal.SIGKILL)
    plugins.start("Killed")
    # It ends the job first.
    started["Stopped"].wait(timeout=SOON)
    claim(not plugins.working("Stopped", sha256_of(later)), "Stopped went on after SIGTERM")
    plugins.start("Stopped")
    for orders in LATE:
        server.publish(content_of(orders))
    try:
        until(lambda: not seen.unsettled(), "all jobs have ended")
    except Failed as failed:
        raise Failed("; ".join([str(failed), *seen.unsettled()[:9]])) from failed
    # Nothing comes after the end.
    time.sleep(2)
    claim(not seen.unsettled(), f"after the end: {seen.unsettled()[:3]}")
    return seen


def check(server, seen):
    """What the statuses do not tell: registrations, results, streams, heartbeats, the ledger, dead letters, reasons."""
    registered = {event["entity"]["name"] for event in server.events("plugin")}
    claim(registered == {part for parts in PARTS.values() for part in parts}, f"registered are {registered}")
    streams = 0
    for event in seen.binaries.values():
        for stream in event["entity"].get("datastreams", []):
            address = f"/api/v3/stream/usr/{stream['label']}/{stream['sha256']}"
            claim(hashlib.sha256(server.get(address)).hexdigest() == stream["sha256"], f"{address} has other bytes")
            streams += 1
    results = collections.Counter((event["author"]["name"], event["action"]) for event in seen.binaries.values()
                                  if event["author"]["category"] == "plugin")
    claim(results["Worker", "extracted"] == EXTRACTED, f"results are {results}")
    ledger, dead, taken = server.ledger(), set(), collections.Counter()
    for key, author, order, statuses in seen.jobs():
        sha256 = seen.binaries[key]["entity"]["sha256"]
        if author in PLUGINS:
            taken[author] += 1
            if statuses[-1].startswith("error"):
                dead.add((author, sha256, statuses[-1]))
        of_job = [status for status in seen.statuses
                  if status["author"]["name"] == author and status["entity"]["input"]["kafka_key"] == key]
        if order in ("wait", "hang", "hang_once") and author not in ("Killed", "Stopped"):
            claim(any(status["entity"]["status"] == "heartbeat" for status in of_job), f"{author} sent no heartbeat in {order}")
        if order in ("digest", "fail_once", "wait", "hang_once"):
            check_digest(seen, author, sha256, len(statuses) - 1)
    for name, counts in ledger.items():
        gone = sum(author == name for author, _, _ in dead)
        wanted = {"taken_in": taken[name], "finished": taken[name] - gone, "dead": gone}
        claim(+counts == +collections.Counter(wanted), f"the ledger of {name} is {counts}, not {wanted}")
    letters = {(letter["consumer"], letter["sha256"], letter["status"])
               for letter in json.loads(server.run("dead", "list", "--json"))["letters"]}
    claim(letters == dead, f"dead letters are {letters}, not {dead}")
    large = next(sha256 for sha256, orders in seen.orders.items() if orders == LARGE)
    why = server.run("explain", large, "--plugin", "Slow").decode()
    claim("1048576" in why, f"the reason is not told: {why}")
    return f"{len(seen.statuses)} statuses, {len(seen.binaries)} events, {streams} streams, {len(dead)} dead letters"


def check_digest(seen, author, sha256, retries):
    """The features of an enriched event: those that the plugin gave."""
    features = [{(feature["name"], feature["value"]) for feature in event["entity"]["features"]}
                for event in seen.binaries.values() if event["action"] == "enriched"
                and event["author"]["name"] == author and event["entity"]["sha256"] == sha256]
    wanted = {("digest", sha256), ("retries", str(retries)), *(("letter", text) for text in LETTERS)}
    claim(len(features) == 1 and features[0] >= wanted, f"{author} found {features} in {sha256}, not {wanted}")


def interpreter(cache, version, pins):
    """A Python with the runner."""
    python = python_since(3, 12)

    def make(folder):
        shutil.rmtree(folder, ignore_errors=True)
        step([python, "-m", "venv", folder])
        step([folder / "bin" / "pip", "install", "--quiet", "--requirement", pins])
    return cache.once(f"runner-{version}", [pins], make) / "bin" / "python"


def run(python, version):
    """What came of it, and whether it went well."""
    with tempfile.TemporaryDirectory(prefix="azulite-interop-") as name:
        folder = pathlib.Path(name)
        server = Server(folder)
        plugins = Plugins(python, folder, server.url)
        began = time.monotonic()
        try:
            counts = check(server, work(server, plugins, folder))
            plugins.end()
            server.process.send_signal(signal.SIGTERM)
            claim(server.process.wait(timeout=15) == 0, f"exit code {server.process.returncode} after SIGTERM")
            return f"{counts} in {time.monotonic() - began:.0f} s", True
        except (Failed, OSError, subprocess.SubprocessError) as failed:
            logs = [folder / "plugins.log", server.log]
            print(*(log.read_text(errors="replace")[-3000:] for log in logs if log.exists()), sep="\n", file=sys.stderr)
            return str(failed), False
        finally:
            plugins.end()
            server.process.kill()
            server.process.wait()


def main():
    cache = Cache(os.environ.get("AZULITE_INTEROP_CACHE") or HERE.parent.parent.parent / "target" / "interop")
    try:
        pythons = {version: interpreter(cache, version, pins) for version, pins in VERSIONS.items() if not ONLY or version in ONLY}
    except Missing as missing:
        print(f"azul-runner: {missing}")
        return 77
    failures, reasons = 0, []
    for version, python in pythons.items():
        reason, well = run(python, version)
        failures += not well
        reasons.append(f"azul-runner {version}: {reason}")
        print(reasons[-1], flush=True)
    print("; ".join(reasons))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
