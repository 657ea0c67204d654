"""What every Python client program shares: a case is a function, the answer is one line of JSON.

A program is called as `<program> <bootstrap> <case>`. Its last line on stdout is {"ok": true or false, "detail": text};
before that it may ask the runner for something with {"ask": ...} and reads one line of answer from stdin.
"""

import json
import os
import sys
import time
import traceback

CASES = {}
SERVER = os.environ.get("INTEROP_SERVER", "kafka")
IS_KAFKA = SERVER == "kafka"


class Skip(Exception):
    """The case does not apply here; the text says why."""


def case(function):
    CASES[function.__name__.strip("_").replace("_", "-")] = function
    return function


def check(condition, message):
    if not condition:
        raise AssertionError(message)


def same(got, wanted, what):
    check(got == wanted, f"{what}: got {got!r}, wanted {wanted!r}")


def eventually(probe, seconds, what, pause=0.1):
    """The first true answer of `probe`; fails after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        found = probe()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what} (last: {found!r})")
        time.sleep(pause)


def ask(what, **options):
    """Asks the runner: `restart` (kill -9 and start), `rss` (bytes), `cpu` (seconds), `disk` (bytes), `spawn` (another server)."""
    print(json.dumps({"ask": what, **options}), flush=True)
    answer = json.loads(sys.stdin.readline())
    if "error" in answer:
        raise AssertionError(f"the runner could not {what}: {answer['error']}")
    return answer.get("answer")


def setting(name, default):
    """A number that the runner's --set may change, so that long cases can be short and short ones long."""
    return type(default)(os.environ.get("INTEROP_" + name.upper(), default))


def main():
    bootstrap, name = sys.argv[1], sys.argv[2]
    try:
        answer = {"ok": True, "detail": CASES[name](bootstrap) or ""}
    except Skip as skip:
        answer = {"ok": None, "detail": str(skip)}
    except BaseException as error:  # noqa: BLE001: whatever went wrong is the result of the case
        traceback.print_exc()
        answer = {"ok": False, "detail": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer), flush=True)
    sys.stdout.flush()
    os._exit(0)
