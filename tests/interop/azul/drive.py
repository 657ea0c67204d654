"""Starts azulite and runs the cases of cases.py against it with the Python client of azul-bedrock.

Usage: drive.py AZULITE [CASE]... . It is the pinned package, unless AZULITE_AZUL_BEDROCK names a checkout. Packages stay in
$AZULITE_INTEROP_CACHE (target/interop). The last line on stdout says how it went; exit code 0 passed, 1 failed, 77 skipped.
"""
import os, pathlib, shutil, signal, subprocess, sys, tempfile, time, urllib.error, urllib.request

HERE = pathlib.Path(__file__).resolve().parent
sys.dont_write_bytecode = True
sys.path.insert(0, str(HERE.parent / "kafka"))
from harness.install import Cache, Missing, python_since, step  # noqa: E402

AZULITE, ONLY = sys.argv[1], sys.argv[2:]
CHECKOUT = os.environ.get("AZULITE_AZUL_BEDROCK")
CONFIG = """[http]
listen = "127.0.0.1:0"
[kafka]
listen = "off"
[events]
topic_prefix = "interop"
[streams]
api_allow_delete = true
[sources.lab]
[sources.other]
[sources.short]
expire_events_after = "1 days"
"""


def interpreter():
    """A Python with the packages of requirements.txt."""
    pins, python = HERE / "requirements.txt", python_since(3, 12)

    def make(folder):
        shutil.rmtree(folder, ignore_errors=True)
        step([python, "-m", "venv", folder])
        step([folder / "bin" / "pip", "install", "--quiet", "--requirement", pins])
    cache = Cache(os.environ.get("AZULITE_INTEROP_CACHE") or HERE.parent.parent.parent / "target" / "interop")
    return cache.once("azul", [pins], make) / "bin" / "python"


def start(folder):
    """The server and its URL, once it is ready."""
    config, data = folder / "azulite.toml", folder / "data"
    config.write_text(CONFIG)
    with open(folder / "server.log", "wb") as log:
        server = subprocess.Popen([AZULITE, "serve", "--config", config, "--data-dir", data], stdout=log, stderr=log)
    for _ in range(600):
        if server.poll() is not None:
            break
        try:
            words = (data / "LOCK").read_text().split()
            if len(words) > 1 and words[0] == f"pid={server.pid}":
                url = "http://" + words[1].removeprefix("http=")
                urllib.request.urlopen(url + "/readyz", timeout=5).close()
                return server, url
        except (OSError, urllib.error.URLError):
            pass
        time.sleep(0.05)
    server.kill()
    raise SystemExit(f"the server did not become ready: {(folder / 'server.log').read_text(errors='replace')[-2000:]}")


def main():
    if CHECKOUT and not pathlib.Path(CHECKOUT, "azul_bedrock", "dispatcher.py").is_file():
        print(f"no azul_bedrock/dispatcher.py in {CHECKOUT}")
        return 1
    try:
        python = interpreter()
    except Missing as missing:
        print(f"packages of the client: {missing}")
        return 77
    with tempfile.TemporaryDirectory(prefix="azulite-interop-") as name:
        folder = pathlib.Path(name)
        server, url = start(folder)
        try:
            environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
            if CHECKOUT:
                environment["PYTHONPATH"] = str(pathlib.Path(CHECKOUT).resolve())
            code = subprocess.run([python, HERE / "cases.py", url, *ONLY], env=environment, timeout=600).returncode
            server.send_signal(signal.SIGTERM)
            ended = server.wait(timeout=15)
        finally:
            server.kill()
            server.wait()
        if code or ended:
            log = (folder / "server.log").read_text(errors="replace")
            print(log[-2000:], file=sys.stderr)
        if ended:
            print(f"exit code {ended} after SIGTERM")
        return 1 if code or ended else 0


if __name__ == "__main__":
    sys.exit(main())
