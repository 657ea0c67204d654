"""How much the server needs for many topics, groups and connections. The numbers are bounds for azulite, not for a JVM."""

import resource
import shutil
import subprocess
import time

import wire
from case import IS_KAFKA, ask, case, check, eventually, same, setting
from wire import Connection, array, i16, i32, text

MB = 1_000_000


def bound(condition, message):
    """A limit that only azulite has to keep; both are reported."""
    check(IS_KAFKA or condition, message)


@case
def thousand_topics(bootstrap):
    del bootstrap
    server = ask("spawn")
    with Connection(server["bootstrap"], timeout=60) as connection:
        began = time.monotonic()
        for hundred in range(10):
            topics = [text(f"many-{hundred}-{number}") + i32(1) + i16(1) + array([]) + array([]) for number in range(100)]
            reader = connection.ask(wire.CREATE_TOPICS, 4, array(topics) + i32(30000) + b"\0")
            reader.i32()
            answers = reader.array(lambda: (reader.text(), reader.i16(), reader.text()))
            same({error for _, error, _ in answers}, {0}, "errors")
        created = time.monotonic() - began

        def listed():
            return len([name for name in connection.metadata(None)["topics"] if name.startswith("many-")]) == 1000
        eventually(listed, 30, "all topics are listed")
    bound(created < 10, f"creating took {created:.1f} s")
    times = []
    for _ in range(3):
        began = time.monotonic()
        if shutil.which("kcat"):
            out = subprocess.run(["kcat", "-b", server["bootstrap"], "-L"], capture_output=True, text=True, timeout=30, check=True).stdout
            check(out.count('topic "many-') == 1000, "kcat lists fewer than 1000 topics")
        else:
            with Connection(server["bootstrap"]) as connection:
                connection.metadata(None)
        times.append(time.monotonic() - began)
    bound(min(times) < 0.1, f"listing took {min(times) * 1000:.0f} ms")
    again = ask("restart", of=server["of"])
    bound(again < 2, f"restart took {again:.1f} s")
    time.sleep(2)
    rss = ask("rss", of=server["of"])
    bound(rss < 150 * MB, f"{rss // MB} MB resident")
    return f"created in {created:.1f} s, kcat -L in {min(times) * 1000:.0f} ms, restart in {again:.2f} s, {rss // MB} MB resident"


@case
def five_hundred_groups(bootstrap):
    del bootstrap
    server = ask("spawn")
    seconds = setting("heartbeat_seconds", 15)
    connections = [Connection(server["bootstrap"]) for _ in range(25)]
    members = []
    for number in range(500):
        connection, group = connections[number % 25], f"many-{number}"
        joined = connection.join(group, session=30000)
        same(joined["error"], 0, f"join of {group}")
        same(connection.sync(group, joined["generation"], joined["member"], [(joined["member"], b"x")])[0], 0, f"sync of {group}")
        members.append((connection, group, joined["generation"], joined["member"]))
    time.sleep(1)
    began, used = time.monotonic(), ask("cpu", of=server["of"])
    turn = 0
    while time.monotonic() - began < seconds:
        for number, (connection, group, generation, member) in enumerate(members):
            same(connection.heartbeat(group, generation, member), 0, f"heartbeat of {group}")
            # Spread over the three seconds, as 500 clients would.
            pause = began + 3 * turn + 3 * number / 500 - time.monotonic()
            if pause > 0:
                time.sleep(pause)
        turn += 1
    passed = time.monotonic() - began
    share = 100 * (ask("cpu", of=server["of"]) - used) / passed
    bound(share < 5, f"{share:.1f} % of a core")
    return f"{share:.1f} % of a core over {passed:.0f} s"


@case
def two_thousand_connections(bootstrap):
    del bootstrap
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192) if hard > 0 else 8192, hard))
    server = ask("spawn")
    connections = []
    for number in range(2000):
        connections.append(Connection(server["bootstrap"]))
        same(connections[-1].api_versions(0).i16(), 0, f"connection {number}")
    rss = ask("rss", of=server["of"])
    same(connections[0].api_versions(0).i16(), 0, "the first connection afterwards")
    bound(rss < 100 * MB, f"{rss // MB} MB resident")
    return f"{rss // MB} MB resident, {len(connections)} connections"
