"""Starts azulite, gives it a few files, runs the example plugins over them and checks what came out.

Usage: drive.py AZULITE EXAMPLES. The last line on stdout says how it went; exit code 0 passed, 1 failed.
"""
import collections, email, gzip, hashlib, json, os, pathlib, signal, subprocess, sys, tempfile, time, urllib.error, urllib.request

AZULITE, EXAMPLES = sys.argv[1], pathlib.Path(sys.argv[2])
PLUGINS = {"gunzip-py": [sys.executable, str(EXAMPLES / "plugin.py")], "gunzip-sh": ["bash", str(EXAMPLES / "plugin.sh")]}
CONFIG = '[http]\nlisten = "127.0.0.1:0"\n[kafka]\nlisten = "off"\n[events]\ntopic_prefix = "interop"\n[sources.usr]\n'
TEXT = b"".join(b"line %d\n" % n for n in range(1000))
LARGE = bytes(range(256)) * (3 << 12)
FILES = {
    "text.gz": (gzip.compress(TEXT, mtime=0), "completed", TEXT),
    # More than one piece of a range.
    'la"rge \\ \u00e4.gz': (gzip.compress(LARGE, compresslevel=0, mtime=0), "completed", LARGE),
    "empty.gz": (gzip.compress(b"", mtime=0), "completed-empty", None),
    "plain.txt": (b"hello\n", "opt-out", None),
    "damaged.gz": (gzip.compress(os.urandom(4096), mtime=0)[:-6], "completed-with-errors", ...),
}


def start(folder):
    config, data = os.path.join(folder, "azulite.toml"), os.path.join(folder, "data")
    pathlib.Path(config).write_text(CONFIG)
    log = open(os.path.join(folder, "server.log"), "wb")
    server = subprocess.Popen([AZULITE, "serve", "--config", config, "--data-dir", data], stdout=log, stderr=log)
    for _ in range(600):
        if server.poll() is not None:
            raise SystemExit(f"the server ended with {server.returncode}: {pathlib.Path(log.name).read_text()[-2000:]}")
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
    raise SystemExit("the server did not become ready")


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


def check(url, hashes):
    problems = []
    words = collections.defaultdict(list)
    for status in everything(url, "status"):
        entity = status["entity"]
        words[status["author"]["name"], entity["input"]["entity"]["sha256"]].append(entity["status"])
    children = {}
    for event in everything(url, "binary"):
        if event["action"] == "extracted":
            children[event["author"]["name"], event["source"]["path"][-2]["sha256"]] = event
    for plugin in PLUGINS:
        for name, (_, wanted, inside) in FILES.items():
            got = words[plugin, hashes[name]]
            finals = [word for word in got if word != "heartbeat"]
            if finals != [wanted] or "heartbeat" not in got:
                problems.append(f"{plugin} said {got} of {name}, not a heartbeat and {wanted}")
            child = children.get((plugin, hashes[name]))
            if (child is None) != (inside is None):
                problems.append(f"{plugin} made {'no' if child is None else 'a'} child of {name}")
            elif child is not None:
                address = f"{url}/api/v3/stream/usr/content/{child['entity']['sha256']}"
                with urllib.request.urlopen(address, timeout=60) as answer:
                    if inside is not ... and answer.read() != inside:
                        problems.append(f"the child that {plugin} made of {name} has other bytes")
    registered = {event["entity"]["name"] for event in everything(url, "plugin")}
    if not registered >= set(PLUGINS):
        problems.append(f"registered are only {registered}")
    return problems


def main():
    with tempfile.TemporaryDirectory(prefix="azulite-interop-") as folder:
        server, url, where = start(folder)
        try:
            began, files = time.monotonic(), pathlib.Path(folder, "files")
            files.mkdir()
            hashes = {}
            for name, (content, _, _) in FILES.items():
                (files / name).write_bytes(content)
                hashes[name] = hashlib.sha256(content).hexdigest()
            subprocess.run([AZULITE, "ingest", str(files), "--source", "usr", "--quiet", *where], check=True, timeout=600)
            for command in PLUGINS.values():
                subprocess.run([*command, url, "1"], check=True, timeout=300)
            problems = check(url, hashes)
            server.send_signal(signal.SIGTERM)
            if server.wait(timeout=15) != 0:
                problems.append(f"exit code {server.returncode} after SIGTERM")
        finally:
            server.kill()
            server.wait()
        if problems:
            print(pathlib.Path(folder, "server.log").read_text(errors="replace")[-2000:])
            print("\n".join(problems))
            print(f"{len(problems)} problems, the first: {problems[0]}")
            return 1
        print(f"{len(PLUGINS)} plugins over {len(FILES)} files in {time.monotonic() - began:.0f} s")
        return 0


if __name__ == "__main__":
    sys.exit(main())
