"""Compares the rules that a server's YARA worker reports with those of the yara tool, file by file."""

import hashlib
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request

FILES = 300
LARGEST = 4_000_000
PATIENCE_S = 120


def sample():
    """Regular files of this machine by their hash, small ones of many kinds."""
    found = {}
    for folder in ("/usr/bin", "/etc", "/usr/lib/python3", "/usr/share/doc", "/usr/share/man/man1"):
        taken = 0
        for path in sorted(pathlib.Path(folder).rglob("*")):
            try:
                if path.is_symlink() or not path.is_file() or not 0 < path.stat().st_size <= LARGEST:
                    continue
                content = path.read_bytes()
            except OSError:
                continue
            found.setdefault(hashlib.sha256(content).hexdigest(), path)
            taken += 1
            if taken >= FILES // 5:
                break
    return found


def by_tool(rules, path):
    """Rules that the tool says."""
    values = {"filename": path.name, "filepath": path.name, "extension": path.name.rpartition(".")[2] if "." in path.name else "", "filetype": ""}
    arguments = [argument for name, value in values.items() for argument in ("-d", f"{name}={value}")]
    told = subprocess.run(["yara", "-w", *arguments, str(rules), str(path)], check=True, capture_output=True, text=True)
    return {line.split(" ", 1)[0] for line in told.stdout.splitlines()}


def by_worker(address, sha256):
    """Rules of the object itself that the worker reports; None until it has."""
    url = f"{address}/api/azulite/v1/entities/{sha256}/events"
    with urllib.request.urlopen(url, timeout=30) as answer:
        events = [json.loads(line)["event"] for line in answer.read().splitlines()]
    ours = [event for event in events if event["author"]["name"] == "yara"]
    final = [event["entity"]["status"] for event in ours if "status" in event["entity"]]
    if not any(word.startswith(("completed", "error", "opt-out")) for word in final):
        return None
    if not any(word.startswith("completed") for word in final):
        raise SystemExit(f"{sha256}: {final}")
    rules = set()
    for event in ours:
        for feature in event["entity"].get("features", []):
            if event.get("action") == "enriched" and feature["name"] == "yararule":
                rules.add(feature["value"].partition(".")[2])
    return rules


def main():
    binary = sys.argv[1]
    here = pathlib.Path(__file__).resolve().parent
    files = sample()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "rules").mkdir()
        (folder / "samples").mkdir()
        shutil.copy(here / "rules.yar", folder / "rules" / "r.yar")
        copies = {}
        for number, (sha256, path) in enumerate(files.items()):
            place = folder / "samples" / str(number)
            place.mkdir()
            copies[sha256] = pathlib.Path(shutil.copyfile(path, place / path.name))
        config = folder / "appliance.toml"
        config.write_text(
            f'[http]\nlisten = "127.0.0.1:0"\n[storage]\ndata_dir = "{folder}/data"\n'
            f'[workers.yara]\nenabled = true\nrules_dir = "{folder}/rules"\n'
        )
        base = [binary, "--config", str(config)]
        server = subprocess.Popen([*base, "serve", "--no-kafka"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            address = None
            for line in server.stderr:
                if "listening on http://" in line:
                    address = line.split("listening on ")[1].split()[0]
                    break
            if not address:
                raise SystemExit("the server did not start")
            subprocess.run([*base, "--quiet", "ingest", str(folder / "samples"), "--source", "testing"], check=True, stdout=subprocess.DEVNULL)
            until = time.time() + PATIENCE_S
            wrong, rules_seen = [], set()
            for sha256, path in copies.items():
                while (told := by_worker(address, sha256)) is None:
                    if time.time() > until:
                        raise SystemExit(f"{path}: not scanned")
                    time.sleep(0.1)
                expected = by_tool(here / "rules.yar", path)
                rules_seen |= expected
                # Archives are looked into by the worker, and not by the tool.
                if told != expected and not (told > expected and path.suffix in (".gz", ".zip", ".whl", ".bz2")):
                    wrong.append(f"{path.name}: tool {sorted(expected)}, worker {sorted(told)}")
        finally:
            server.terminate()
            server.wait(timeout=60)
    for line in wrong:
        print(line, file=sys.stderr)
    version = subprocess.run(["yara", "--version"], capture_output=True, text=True).stdout.strip()
    print(f"{len(copies)} files, {len(rules_seen)} rules that match something, {len(wrong)} differ; yara {version}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
