#!/usr/bin/env python3
"""A plugin for any Azul dispatcher, with nothing but Python's standard library: what a gzip file holds becomes a child.

Usage: plugin.py URL [IDLE_POLLS]      ends after that many polls in a row without a task; 0 is never
Every step is explained in examples/README.md.
"""
import datetime, email, gzip, io, json, sys, threading, time, urllib.error, urllib.request, zlib

URL = sys.argv[1]
IDLE_POLLS = int(sys.argv[2]) if len(sys.argv) > 2 else 0
AUTHOR = {"name": "gunzip-py", "version": "1.0", "category": "plugin"}
HEARTBEAT_S = 30
PIECE = 1 << 20
LARGEST = 64 << 20
POLL = (f"/api/v2/event/binary/active?name={AUTHOR['name']}&version={AUTHOR['version']}&count=1&deadline=10"
        "&r-expedite=true&r-live=true&r-historic=true&r-action=sourced&r-action=extracted&d-self=true")


def call(path, body=None, headers={}):
    """One request, made again while the dispatcher is busy or away."""
    pause = 1
    while True:
        try:
            request = urllib.request.Request(URL + path, data=body, headers=headers)
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            if error.code not in (429, 503, 507):
                raise
            pause = int(error.headers.get("Retry-After") or pause)
        except urllib.error.URLError:
            pass
        time.sleep(pause)
        pause = min(pause * 2, 30)


def now():
    return datetime.datetime.now(datetime.timezone.utc).isoformat()


def head():
    return {"model_version": 6, "kafka_key": "runner-placeholder", "timestamp": now(), "author": AUTHOR}


def publish(model, event):
    """Publishes one event; `sync` answers once it is on the disk."""
    answer = json.loads(call(f"/api/v2/event?model={model}&sync=true", json.dumps([head() | event]).encode())[1])
    if answer["total_failures"]:
        raise ValueError(f"the dispatcher refused: {answer['failures']}")


def register():
    features = [{"name": "gzip_name", "type": "filepath", "desc": "Name that the gzip header gives"}]
    publish("plugin", {"entity": AUTHOR | {"description": "Unpacks gzip files", "features": features, "config": {}}})


def lease():
    """The next task, or none; and whether some were filtered out."""
    headers, body = call(POLL)
    message = email.message_from_bytes(b"Content-Type: " + headers["Content-Type"].encode() + b"\r\n\r\n" + body)
    parts = {part.get_param("name", header="content-disposition"): part.get_payload(decode=True)
             for part in message.get_payload()}
    return json.loads(parts["events"])["events"], json.loads(parts["info"])


def content(task):
    """The bytes of the file, read in pieces."""
    path = f"/api/v3/stream/{task['source']['name']}/content/{task['entity']['sha256']}"
    data, size = b"", 1
    while len(data) < size:
        headers, piece = call(path, headers={"Range": f"bytes={len(data)}-{len(data) + PIECE - 1}"})
        data, size = data + piece, int(headers["Content-Range"].rsplit("/", 1)[1])
    return data


def unpack(data):
    """What is in it, as far as it goes, and what is wrong with the rest."""
    out = io.BytesIO()
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            while out.tell() <= LARGEST and (piece := file.read1(PIECE)):
                out.write(piece)
    except (EOFError, OSError, zlib.error) as error:
        return out.getvalue()[:LARGEST], f"the gzip data is damaged: {error}"
    fault = f"only the first {LARGEST} bytes were unpacked" if out.tell() > LARGEST else ""
    return out.getvalue()[:LARGEST], fault


def child(task, unpacked):
    """The event of a new file below the one that was worked on."""
    stream = json.loads(call(f"/api/v3/stream/{task['source']['name']}/content", unpacked)[1])["data"]
    node = {"author": AUTHOR, "action": "extracted", "sha256": stream["sha256"], "timestamp": now(),
            "size": stream["size"], "file_format": stream.get("file_format", ""), "relationship": {"action": "extracted"}}
    entity = {key: value for key, value in stream.items() if key not in ("label", "identify_version", "language")}
    return head() | {"action": "extracted", "source": task["source"] | {"path": task["source"]["path"] + [node]},
                     "entity": entity | {"datastreams": [stream]}}


def work(task):
    """The final status of a task: its word, a message, its results."""
    if len(task["source"]["path"]) >= 10:
        return "opt-out", "source.path has 10 nodes or more", []
    try:
        data = content(task)
    except urllib.error.HTTPError as error:
        return "error-input", f"the content cannot be read: {error}", []
    if not data.startswith(b"\x1f\x8b"):
        return "opt-out", "no gzip file", []
    unpacked, fault = unpack(data)
    results = [child(task, unpacked)] if unpacked else []
    return ("completed-with-errors" if fault else "completed" if results else "completed-empty"), fault, results


def run(task):
    """Works on one task, with heartbeats, and says how it ended."""
    began, done = time.monotonic(), threading.Event()
    slim = task | {"entity": {k: v for k, v in task["entity"].items() if k not in ("features", "datastreams", "info")}}

    def status(word, **more):
        publish("status", {"entity": {"input": slim, "status": word, "runtime": time.monotonic() - began} | more})

    def beat():
        while True:
            status("heartbeat")
            if done.wait(HEARTBEAT_S):
                return

    beating = threading.Thread(target=beat, daemon=True)
    beating.start()
    try:
        word, message, results = work(task)
        error = ""
    except Exception as problem:
        word, message, results, error = "error-exception", str(problem), [], type(problem).__name__
    done.set()
    beating.join()
    status(word, message=message, error=error, results=results)
    print(f"{task['entity']['sha256']}: {word} {message}".rstrip(), flush=True)


register()
idle = 0
while not IDLE_POLLS or idle < IDLE_POLLS:
    tasks, info = lease()
    idle = 0 if tasks or info["filtered"] else idle + 1
    for task in tasks:
        run(task)
    if info["paused"]:
        time.sleep(5)
