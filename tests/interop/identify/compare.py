"""Compares `azulite filetype` with other tools over at least 2,000 real files of this machine.

Usage: compare.py AZULITE. Prints the match rates and what was confused with what; the last line is the result. Exit code
0 passed, 1 failed. The thresholds are those of streams.md 12.5: digests all, types 97 in 100, mimes 90 in 100.

The reference for types is `reference.py` over the lines of `file -k`. It has no content rules: a file that it leaves at
`unknown` or `text/plain` counts as equal when azulite names a type of those rules, and how many those are is printed.
After that, a thousand broken copies of the files must be survived in bounded time and memory.
"""
import collections, hashlib, json, os, pathlib, resource, subprocess, sys, tempfile, time, zlib
from random import Random

import reference

WANTED = 2400
LEAST = 2000
LARGEST = 4 << 20
PER_ENDING = 40
BATCH = 200
BROKEN = 1000
AZULITE = sys.argv[1]
NOT_LOOKED_AT = ("/proc", "/sys", "/dev", "/run", "/tmp", "/var/tmp", "/var/log", "/boot/efi")
CONTENT_TYPES = set("""code/javascript code/jscript code/xfa code/vbs code/xml code/html code/hta code/html/component
    document/email log/vipermonkey text/json code/csharp code/php code/jsp code/ps1 code/c code/h code/idl code/glsl
    code/python code/java code/protobuf code/clickonce code/css code/ducky code/batch document/ps code/markdown code/sql
    code/go code/ruby code/perl code/rust code/lisp code/wsf code/wsc archive/udf code/a3x code/au3 text/rdp""".split())


def candidates():
    """Paths by ending, a few of each, in an order that does not depend on where they are."""
    kinds = collections.defaultdict(list)
    for folder, folders, names in os.walk("/", onerror=lambda error: None):
        folders[:] = [name for name in folders if os.path.join(folder, name) not in NOT_LOOKED_AT]
        for name in names:
            path = os.path.join(folder, name)
            kinds[pathlib.PurePath(name).suffix.lower()[:12]].append((zlib.crc32(path.encode(errors="replace")), path))
    return {kind: [path for _, path in sorted(paths)[:PER_ENDING]] for kind, paths in kinds.items()}


def chosen(kinds):
    """In turn one file of each ending, no bytes twice, with its bytes' digests."""
    files, seen, turn = {}, set(), 0
    while len(files) < WANTED and turn < PER_ENDING:
        for kind in sorted(kinds):
            if turn >= len(kinds[kind]) or len(files) >= WANTED:
                continue
            path = kinds[kind][turn]
            try:
                if not os.path.isfile(path) or os.path.islink(path) or not 0 < os.path.getsize(path) <= LARGEST:
                    continue
                content = pathlib.Path(path).read_bytes()
            except OSError:
                continue
            if path.isprintable() and content and hashlib.sha256(content).digest() not in seen:
                seen.add(hashlib.sha256(content).digest())
                files[path] = content
        turn += 1
    return files


def output(*command):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False).stdout


def batches(paths):
    return (paths[at:at + BATCH] for at in range(0, len(paths), BATCH))


def by_azulite(paths):
    found = {}
    for batch in batches(paths):
        for item in json.loads(output(AZULITE, "--json", "filetype", *batch)):
            found[item["path"]] = item
    return found


def by_file(paths, *flags):
    """All lines that `file` has for each path."""
    found = {}
    for batch in batches(paths):
        fields = output("file", "-k", "-r", "-00", *flags, *batch).decode("utf-8", "surrogateescape").split("\0")
        for path, text in zip(fields[::2], fields[1::2]):
            found[path] = [line.removeprefix("- ").strip() for line in text.strip().split("\n")]
    return found


def by_ssdeep(paths):
    found = {}
    for batch in batches(paths):
        for line in output("ssdeep", "-s", *batch).decode(errors="surrogateescape").splitlines()[1:]:
            digest, _, path = line.partition(",")
            found[path.strip('"')] = digest
    return found


class Rates:
    """Counts of what agrees, by name, and what was found instead."""

    def __init__(self):
        self.right, self.all, self.confused = collections.Counter(), collections.Counter(), collections.Counter()
        self.examples = {}

    def add(self, name, wanted, got, path):
        self.all[name] += 1
        if wanted == got:
            self.right[name] += 1
        else:
            self.confused[name, str(wanted), str(got)] += 1
            self.examples.setdefault((name, str(wanted), str(got)), path)

    def rate(self, name):
        return self.right[name] / self.all[name] if self.all[name] else 1.0

    def show(self):
        for name, count in self.all.items():
            print(f"{name}: {self.right[name]} of {count} ({100 * self.rate(name):.2f} %)")
            pairs = [item for item in self.confused.most_common() if item[0][0] == name]
            for (_, wanted, got), times in pairs[:25]:
                example = self.examples[name, wanted, got]
                print(f"    {times:4} x {wanted[:60]} was called {got[:60]}, as {example}")


def compare_digests(rates, files, ours):
    for path, content in files.items():
        for name in ("md5", "sha1", "sha256", "sha512"):
            rates.add(name, hashlib.new(name, content).hexdigest(), ours[path][name], path)
    if output("ssdeep", "-V"):
        large = [path for path, content in files.items() if len(content) >= 4096]
        for path, digest in by_ssdeep(large).items():
            rates.add("ssdeep", digest, ours[path].get("ssdeep", ""), path)
    else:
        print("ssdeep is not installed: not compared")
    try:
        import tlsh
    except ImportError:
        print("py-tlsh is not installed: not compared")
        return
    for path, content in files.items():
        # The reference takes 50 bytes, the contract more than 50; and it refuses input of little variety.
        digest = tlsh.hash(content) if len(content) > 50 else ""
        if len(digest) == 72:
            rates.add("tlsh", "T1" + digest[2:].lower(), ours[path].get("tlsh", ""), path)


def compare_types(rates, files, ours):
    paths = list(files)
    magics, mimes = by_file(paths), by_file(paths, "--mime-type")
    by_content = collections.Counter()
    for path in paths:
        wanted = reference.file_type(magics.get(path, []), mimes.get(path, []), path)
        got = ours[path]["file_format"]
        if wanted in ("unknown", "text/plain") and got in CONTENT_TYPES:
            by_content[got, pathlib.PurePath(path).suffix] += 1
            got = wanted
        else:
            rates.add("file_format, not by content rules", wanted, got, path)
        rates.add("file_format", wanted, got, path)
        rates.add("mime", (mimes.get(path) or [""])[0], ours[path]["mime"], path)
        rates.add("magic (informative)", (magics.get(path) or [""])[0], ours[path]["magic"], path)
    print(f"content rules named {sum(by_content.values())}, by name ending:")
    for (kind, ending), times in by_content.most_common(40):
        print(f"    {times:4} x {kind} for {ending or 'no ending'}")


def survive(files):
    """Identifies broken copies of real files: the end cut off, bits flipped. Tells what went wrong."""
    random = Random(5)
    chosen_ones = random.sample(sorted(files), min(BROKEN, len(files)))
    with tempfile.TemporaryDirectory() as folder:
        for number, path in enumerate(chosen_ones):
            content = bytearray(files[path])
            for _ in range(random.randint(1, 16)):
                content[random.randrange(len(content))] ^= 1 << random.randrange(8)
            cut = random.randint(1, len(content)) if number % 2 else len(content)
            pathlib.Path(folder, str(number)).write_bytes(content[:cut])
        begun = time.monotonic()
        command = [AZULITE, "--json", "filetype", folder]
        ran = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
        took = time.monotonic() - begun
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10
    items = json.loads(ran.stdout) if ran.returncode == 0 else []
    failed = [item["path"] for item in items if item.get("magic", "error").startswith("error")]
    print(f"{len(items)} broken copies in {took:.1f} s, {peak} MiB at most, {len(failed)} failed")
    return ["broken files"] * (len(items) != len(chosen_ones) or took > 300 or peak > 1024 or bool(failed))


def main():
    files = chosen(candidates())
    if len(files) < LEAST:
        print(f"only {len(files)} files here")
        return 1
    print(f"{len(files)} files, {sum(map(len, files.values())) >> 20} MiB; {output('file', '--version').split()[0].decode()}")
    ours = by_azulite(list(files))
    # What somebody wrote to or removed meanwhile is not compared.
    whole = {path: content for path, content in files.items()
             if ours.get(path, {}).get("sha256") == hashlib.sha256(content).hexdigest()}
    changed = [path for path in files if path not in whole]
    rates = Rates()
    compare_digests(rates, whole, ours)
    compare_types(rates, whole, ours)
    rates.show()
    failed = [name for name in ("md5", "sha1", "sha256", "sha512", "ssdeep", "tlsh") if rates.rate(name) < 1]
    failed += ["file_format"] * (rates.rate("file_format") < 0.97) + ["mime"] * (rates.rate("mime") < 0.90)
    failed += ["sha256 of files that nobody changed"] * (len(changed) > 5)
    failed += survive(whole)
    formats, mimes = 100 * rates.rate("file_format"), 100 * rates.rate("mime")
    print(f"{len(whole)} files: types {formats:.1f} %, mimes {mimes:.1f} %" + (f"; too low: {failed}" if failed else ""))
    return 1 if failed else 0


sys.exit(main())
