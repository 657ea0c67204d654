"""Starts azulite, stores events, and has many plugins poll at once; each has to get each event exactly once.

Usage: crowd.py AZULITE [PLUGINS EVENTS]... . Without numbers: 1000 plugins over 5,000 events, then 20 over 100,000. The
last line on stdout says how it went; exit code 0 passed, 1 failed.
"""
import asyncio, os, pathlib, re, resource, signal, subprocess, sys, tempfile, time

AZULITE = sys.argv[1]
ROUNDS = [tuple(map(int, sys.argv[i:i + 2])) for i in range(2, len(sys.argv), 2)] or [(1000, 5_000), (20, 100_000)]
MEMORY_MIB = 300
SECONDS = 420
CONFIG = """[http]
listen = "127.0.0.1:0"
max_connections = 1100
[kafka]
listen = "off"
[logging]
level = "warn"
"""
KEY = re.compile(rb'"kafka_key":"([0-9a-f]{32})"')
AUTHOR = b'{"name":"driver","version":"1","category":"user"}'


def event(number):
    sha256, at = b"%064x" % number, b"2026-01-02T03:04:05Z"
    return (b'{"model_version":6,"timestamp":"%(at)s","author":%(author)s,"action":"sourced","source":{"name":"crowd","timestamp":'
            b'"%(at)s","path":[{"author":%(author)s,"action":"sourced","sha256":"%(hash)s","timestamp":"%(at)s"}]},"entity":'
            b'{"sha256":"%(hash)s","size":5,"datastreams":[{"label":"content","size":5,"sha256":"%(hash)s","sha512":"","sha1":"",'
            b'"md5":"","mime":"text/plain","magic":"ASCII text","file_format":"text/plain"}]}}'
            ) % {b"at": at, b"author": AUTHOR, b"hash": sha256}


class Connection:
    """One connection that is kept."""

    async def open(self, address):
        self.reader, self.writer = await asyncio.open_connection(*address, limit=1 << 20)
        return self

    async def ask(self, method, path, body=b""):
        head = f"{method} {path} HTTP/1.1\r\nHost: azulite\r\nContent-Length: {len(body)}\r\n\r\n"
        self.writer.write(head.encode() + body)
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = int(re.search(rb"(?i)content-length: (\d+)", head)[1])
        body = await self.reader.readexactly(length)
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"{method} {path}: {head[:100]!r} {body[:500]!r}")
        return body


async def store(address, first, count):
    connection = await Connection().open(address)
    for start in range(first, first + count, 500):
        events = b",".join(event(number) for number in range(start, min(start + 500, first + count)))
        await connection.ask("POST", "/api/v2/event?model=binary", b"[" + events + b"]")


async def plugin(address, name, expected, polls):
    """Reads as a plugin does until it has everything, and once more."""
    connection = await Connection().open(address)
    seen, all_in = set(), False
    while True:
        query = f"name={name}&version=1&count=1000&deadline=1&r-historic=true&d-self=true"
        answer = await connection.ask("GET", f"/api/v2/event/binary/passive?{query}")
        polls.append(1)
        keys = KEY.findall(answer)
        before = len(seen)
        seen.update(keys)
        if len(seen) != before + len(keys):
            raise SystemExit(f"{name} got an event twice")
        if all_in and not keys:
            connection.writer.close()
            return len(seen)
        all_in = len(seen) >= expected


async def rounds(address, server):
    stored, said = 0, []
    for plugins, events in ROUNDS:
        if events > stored:
            await store(address, stored, events - stored)
            stored = events
        begun, polls = time.monotonic(), []
        readers = [plugin(address, f"plugin{plugins}-{number}", stored, polls) for number in range(plugins)]
        got = await asyncio.wait_for(asyncio.gather(*readers), SECONDS)
        if set(got) != {stored}:
            raise SystemExit(f"of {stored} events one of {plugins} plugins got {min(got)}")
        took = time.monotonic() - begun
        said.append(f"{plugins} plugins x {stored} events in {took:.0f} s, {plugins * stored / took:.0f}/s")
    status = pathlib.Path(f"/proc/{server.pid}/status").read_text()
    peak = int(re.search(r"VmHWM:\s+(\d+)", status)[1]) // 1024
    return "; ".join(said), peak


def start(folder):
    config, data = os.path.join(folder, "azulite.toml"), os.path.join(folder, "data")
    pathlib.Path(config).write_text(CONFIG)
    log = open(os.path.join(folder, "server.log"), "wb")
    server = subprocess.Popen([AZULITE, "serve", "--config", config, "--data-dir", data], stdout=log, stderr=log)
    for _ in range(600):
        if server.poll() is not None:
            raise SystemExit(f"the server ended with {server.returncode}: {pathlib.Path(log.name).read_text()[-2000:]}")
        try:
            found = re.search(rf"pid={server.pid} http=(\S+):(\d+)", pathlib.Path(data, "LOCK").read_text())
        except OSError:
            found = None
        if found:
            return server, (found[1], int(found[2]))
        time.sleep(0.05)
    server.kill()
    raise SystemExit("the server did not become ready")


def main():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 4096:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    with tempfile.TemporaryDirectory(prefix="azulite-crowd-") as folder:
        server, address = start(folder)
        try:
            said, peak = asyncio.run(rounds(address, server))
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(60)
    print(f"{said}; {peak} MiB at most")
    return 0 if peak <= MEMORY_MIB else 1


sys.exit(main())
