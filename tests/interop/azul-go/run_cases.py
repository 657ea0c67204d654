"""Starts azulite and runs cases.go against it with the Go client of an azul-bedrock checkout.

Usage: run_cases.py AZULITE CHECKOUT [CASE]... . The module path, with its major version, is read from the checkout; what
it depends on comes from the module proxy. The last line on stdout says how it went; exit code 0 passed, 1 failed, 77
skipped.
"""
import os, pathlib, re, shutil, signal, subprocess, sys, tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.dont_write_bytecode = True
sys.path.insert(0, str(HERE.parent / "azul"))
sys.path.insert(0, str(HERE.parent / "kafka"))
from drive import AZULITE, CHECKOUT, ONLY, start  # noqa: E402
from harness.install import Missing, step  # noqa: E402

WRITTEN_FOR = "github.com/AustralianCyberSecurityCentre/azul-bedrock/v12"


def write_module(folder):
    """A module of its own beside the checkout, which is only read."""
    text = (CHECKOUT / "go.mod").read_text()
    module = re.search(r"^module\s+(\S+)", text, re.M).group(1)
    version = re.search(r"^go\s+(\S+)", text, re.M).group(1)
    major = re.search(r"/v(\d+)$", module)
    number = f"v{major.group(1) if major else 0}.0.0"
    (folder / "go.mod").write_text(
        f"module azulite.interop/azul\n\ngo {version}\n\nrequire {module} {number}\n\nreplace {module} => {CHECKOUT}\n")
    if (CHECKOUT / "go.sum").is_file():
        shutil.copy(CHECKOUT / "go.sum", folder / "go.sum")
    (folder / "cases.go").write_text((HERE / "cases.go").read_text().replace(WRITTEN_FOR, module))


def build(folder):
    """The program, None when it does not compile; Missing when what it depends on cannot be had."""
    environment = os.environ | {"GOFLAGS": "-mod=mod -buildvcs=false", "GOWORK": "off"}
    step(["go", "list", "-deps", "."], cwd=folder, env=environment)
    built = subprocess.run(["go", "build", "-o", "cases", "."], cwd=folder, env=environment, timeout=600)
    return None if built.returncode else folder / "cases"


def main():
    if not (CHECKOUT / "gosrc" / "client" / "client.go").is_file():
        print(f"no gosrc/client/client.go in {CHECKOUT}")
        return 1
    with tempfile.TemporaryDirectory(prefix="azulite-interop-") as name:
        folder = pathlib.Path(name)
        write_module(folder)
        try:
            program = build(folder)
        except Missing as missing:
            print(f"modules of the client: {missing}")
            return 77
        if not program:
            print("the cases do not compile with this checkout")
            return 1
        server, url = start(folder)
        try:
            code = subprocess.run([program, url, *ONLY], timeout=600).returncode
            server.send_signal(signal.SIGTERM)
            ended = server.wait(timeout=15)
        finally:
            server.kill()
            server.wait()
        if code or ended:
            print((folder / "server.log").read_text(errors="replace")[-2000:], file=sys.stderr)
        if ended:
            print(f"exit code {ended} after SIGTERM")
        return 1 if code or ended else 0


if __name__ == "__main__":
    sys.exit(main())
