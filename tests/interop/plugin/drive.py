"""Starts azulite, gives it 500 real files of this machine, runs the plugin over them and checks what came out.

Usage: drive.py AZULITE PLUGIN. The last line on stdout says how it went; exit code 0 passed, 1 failed, 77 skipped.
"""
import collections, email, hashlib, json, os, pathlib, signal, subprocess, sys, tempfile, time, urllib.error, urllib.request

WANTED = 500
LARGEST = 1 << 20
AZULITE, PLUGIN = sys.argv[1], sys.argv[2]
CONFIG = """[http]
listen = "127.0.0.1:0"
[kafka]
listen = "off"
[events]
topic_prefix = "interop"
[sources.usr]
"""


def real_files():
    """Files of as many kinds as there are: in turn one of each name ending, no bytes twice."""
    kinds = collections.defaultdict(list)
    for folder, _, names in os.walk("/usr", onerror=lambda error: None):
        for name in names:
            path = os.path.join(folder, name)
            kind = pathlib.Path(name).suffix.lower() or os.path.basename(folder)
            if len(kinds[kind]) < 200 and os.path.isfile(path) and not os.path.islink(path):
                kinds[kind].append(path)
    chosen, turn = {}, 0
    while len(chosen) < WANTED and any(len(paths) > turn for paths in kinds.values()):
        for kind in sorted(kinds):
            if turn < len(kinds[kind]) and len(chosen) < WANTED:
                try:
                    content = pathlib.Path(kinds[kind][turn]).read_bytes()
                except OSError:
                    continue
                if 0 < len(content) <= LARGEST:
                    chosen.setdefault(hashlib.sha256(content).hexdigest(), (kinds[kind][turn], content))
        turn += 1
    return chosen


def start(folder):
    """The server and its URL, once it is ready."""
    config = os.path.join(folder, "azulite.toml")
    pathlib.Path(config).write_text(CONFIG)
    log = open(os.path.join(folder, "server.log"), "wb")
    data = os.path.join(folder, "data")
    server = subprocess.Popen([AZULITE, "serve", "--config", config, "--data-dir", data], stdout=log, stderr=log)
    for _ in range(600):
        if server.poll() is not None:
            raise SystemExit(f"the server ended with {server.returncode}: {tail(log.name)}")
        try:
            words = pathlib.Path(data, "LOCK").read_text().split()
            if words and words[0] == f"pid={server.pid}" and len(words) > 1:
                url = "http://" + words[1].removeprefix("http=")
                urllib.request.urlopen(url + "/readyz", timeout=5).close()
                return server, url, ["--config", config, "--data-dir", data]
        except (OSError, urllib.error.URLError):
            pass
        time.sleep(0.05)
    server.kill()
    raise SystemExit(f"the server did not become ready: {tail(log.name)}")


def tail(path):
    return pathlib.Path(path).read_text(errors="replace")[-2000:]


def announce(url, path, content):
    """Uploads one file and publishes its sourced event, as a submitting client does."""
    request = urllib.request.Request(url + "/api/v3/stream/usr/content", data=content)
    with urllib.request.urlopen(request, timeout=60) as answer:
        stream = json.load(answer)["data"]
    author = {"name": "driver", "version": "1", "category": "user"}
    at = "2026-01-02T03:04:05Z"
    node = {"author": author, "action": "sourced", "sha256": stream["sha256"], "timestamp": at,
            "size": stream["size"], "file_format": stream.get("file_format", ""), "filename": path}
    event = {"model_version": 6, "kafka_key": "tmp", "timestamp": at, "author": author, "action": "sourced",
             "source": {"name": "usr", "references": {"path": path}, "timestamp": at, "path": [node]},
             "entity": stream | {"datastreams": [stream]}}
    for member in ("label", "identify_version", "language"):
        event["entity"].pop(member, None)
    with urllib.request.urlopen(url + "/api/v2/event?model=binary", json.dumps([event]).encode(), timeout=60) as answer:
        result = json.load(answer)
    assert result == {"total_ok": 1, "total_failures": 0, "failures": []}, result


def everything(url, model):
    """All stored events of one model, through a consumer of its own."""
    events = []
    while True:
        query = f"/api/v2/event/{model}/passive?name=driver&version=1&count=1000&deadline=1&r-historic=true"
        with urllib.request.urlopen(url + query, timeout=60) as answer:
            head = b"Content-Type: " + answer.headers["Content-Type"].encode() + b"\r\n\r\n"
            parts = email.message_from_bytes(head + answer.read()).get_payload()
        batch = json.loads(parts[1].get_payload(decode=True))["events"]
        if not batch:
            return events
        events += batch


def check(url, files):
    statuses = everything(url, "status")
    completed = collections.Counter(status["entity"]["input"]["entity"]["sha256"] for status in statuses
                                    if status["entity"]["status"] == "completed")
    problems = [f"{sha256} ({files[sha256][0]}) has no completed status" for sha256 in files if not completed[sha256]]
    problems += [f"{sha256} was completed {times} times" for sha256, times in completed.items() if times > 1]
    children = {event["source"]["path"][-2]["sha256"]: event for event in everything(url, "binary")
                if event["action"] == "extracted"}
    for sha256, (path, content) in files.items():
        child, head = children.get(sha256), content[:16]
        if child is None:
            problems.append(f"{sha256} ({path}) has no child event")
            continue
        with urllib.request.urlopen(f"{url}/api/v3/stream/usr/content/{child['entity']['sha256']}", timeout=60) as answer:
            if answer.read() != head:
                problems.append(f"the child of {sha256} ({path}) has other bytes")
    registrations = everything(url, "plugin")
    if [event["entity"]["name"] for event in registrations] != ["Head16"]:
        problems.append(f"the registration is not readable: {registrations}")
    return problems


def main():
    files = real_files()
    if len(files) < WANTED:
        print(f"only {len(files)} readable files below /usr")
        return 77
    with tempfile.TemporaryDirectory(prefix="azulite-interop-") as folder:
        server, url, where = start(folder)
        try:
            began = time.monotonic()
            uploaded, ingested = list(files.values())[::2], [path for path, _ in list(files.values())[1::2]]
            for path, content in uploaded:
                announce(url, path, content)
            ingest = [AZULITE, "ingest", "-", "--source", "usr", "--quiet", *where]
            paths = b"".join(os.fsencode(path) + b"\0" for path in ingested)
            subprocess.run(ingest, input=paths, check=True, timeout=600)
            subprocess.run([sys.executable, PLUGIN, url, "3"], check=True, timeout=900)
            problems = check(url, files)
            server.send_signal(signal.SIGTERM)
            if server.wait(timeout=15) != 0:
                problems.append(f"exit code {server.returncode} after SIGTERM")
        finally:
            server.kill()
            server.wait()
        if problems:
            print(tail(os.path.join(folder, "server.log")))
            print("\n".join(problems[:20]))
            print(f"{len(problems)} problems, the first: {problems[0]}")
            return 1
        kinds = len({pathlib.Path(path).suffix for path, _ in files.values()})
        print(f"{len(files)} files with {kinds} name endings in {time.monotonic() - began:.0f} s")
        return 0


if __name__ == "__main__":
    sys.exit(main())
