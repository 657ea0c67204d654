"""Runs one case: starts the client program, answers what it asks of the server, judges its last line."""

import json
import os
import queue
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Result:
    """What became of a case. `outcome` is passed, failed, skipped or gap (fails, and is known to)."""

    number: str
    client: str
    version: str
    name: str
    outcome: str
    detail: str
    seconds: float = 0.0

    @property
    def failed(self):
        return self.outcome == "failed"


class Runner:
    """Runs cases against one server; `spawn` makes another one for the cases that ask for it."""

    def __init__(self, server_name, cache, work, server, spawn, settings):
        self.server_name, self.cache, self.work, self.server, self.spawn = server_name, cache, Path(work), server, spawn
        self.settings = settings
        self.spawned = {}

    def run(self, case, client):
        not_for = case.not_for.get(self.server_name)
        if client.missing or not_for:
            return self.result(case, client, "skipped", client.missing or not_for, 0.0)
        began = time.monotonic()
        try:
            verdict, detail = self.converse(case, client)
        finally:
            for extra in self.spawned.pop(case.key, []):
                extra.kill()
            self.unmount(self.work / case.key)
        if verdict is None:
            outcome = "skipped"
        elif verdict:
            outcome = "passed"
        else:
            outcome = "failed"
        if not self.server.alive():
            outcome, detail = "failed", f"the server ended by itself; {detail}"
            self.server.start()
        gap = case.gap.get(self.server_name)
        if outcome == "failed" and gap:
            outcome, detail = "gap", f"{gap} ({detail})"
        return self.result(case, client, outcome, detail, time.monotonic() - began)

    def result(self, case, client, outcome, detail, seconds):
        return Result(case.number, client.name, client.version, case.name, outcome, " ".join(str(detail).split())[:600], round(seconds, 1))

    def converse(self, case, client):
        folder = self.work / case.key
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "stderr", "wb") as errors:
            process = subprocess.Popen(
                [*client.command, self.server.bootstrap, case.name], cwd=folder, env=self.environment(folder), text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, start_new_session=True)
        lines = queue.Queue()
        reader = threading.Thread(target=self.read, args=(process, lines), daemon=True)
        reader.start()
        deadline = time.monotonic() + case.seconds
        try:
            while True:
                try:
                    line = lines.get(timeout=max(0.0, deadline - time.monotonic()))
                except queue.Empty:
                    return False, f"not finished within {case.seconds} s; {self.last_words(folder)}"
                if line is None:
                    return False, f"the client ended with {process.wait()} and no result; {self.last_words(folder)}"
                message = self.parse(line)
                if "ask" in message:
                    process.stdin.write(json.dumps(self.answer(case, message)) + "\n")
                    process.stdin.flush()
                elif "ok" in message:
                    return message["ok"], message.get("detail", "")
        except BrokenPipeError:
            return False, f"the client ended in the middle; {self.last_words(folder)}"
        finally:
            self.end(process)

    @staticmethod
    def unmount(folder):
        """A case may have mounted a small file system in its folder; it goes when its server has ended."""
        for path in folder.glob("*"):
            if path.is_mount():
                subprocess.run(["umount", str(path)], check=False)

    @staticmethod
    def read(process, lines):
        for line in process.stdout:
            lines.put(line)
        lines.put(None)

    @staticmethod
    def parse(line):
        try:
            message = json.loads(line)
        except ValueError:
            return {}
        return message if isinstance(message, dict) else {}

    @staticmethod
    def end(process):
        """The client and whatever it started, which all live in the process group made for it."""
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()

    @staticmethod
    def last_words(folder):
        lines = [line for line in (folder / "stderr").read_text(errors="replace").splitlines() if line.strip()]
        return " | ".join(lines[-3:])

    def answer(self, case, message):
        what = message["ask"]
        try:
            server = self.server
            if "of" in message:
                server = self.spawned[case.key][message["of"]]
            if what == "spawn":
                return {"answer": self.start_another(case, message.get("settings", {}))}
            if what == "restart":
                return {"answer": server.restart()}
            if what == "kill":
                return {"answer": server.kill()}
            if what == "start":
                return {"answer": server.start()}
            if what in ("rss", "cpu", "disk"):
                return {"answer": getattr(server, what)()}
            return {"error": f"nothing is known about {what}"}
        except Exception as error:  # noqa: BLE001: the case decides what its failure means
            return {"error": f"{type(error).__name__}: {error}"}

    def start_another(self, case, settings):
        """A second server for one case; the case gets its address, and names it by its number afterwards."""
        extras = self.spawned.setdefault(case.key, [])
        extra = self.spawn(self.work / case.key / f"server-{len(extras)}", settings)
        extras.append(extra)
        seconds = extra.start()
        return {"of": len(extras) - 1, "bootstrap": extra.bootstrap, "log": str(extra.log), "data": str(extra.data),
                "seconds": seconds, "pid": extra.pid}

    def environment(self, folder):
        extra = {"INTEROP_SERVER": self.server_name, "INTEROP_TMP": str(folder), "INTEROP_JARS": str(self.cache.folder / "jars"),
                 "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        extra.update({f"INTEROP_{key.upper()}": value for key, value in self.settings.items()})
        return {**os.environ, **extra}
