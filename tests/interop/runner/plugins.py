"""Plugins as anybody writes them for Azul's runner: what each does with a file stands in the file's first line, as JSON by
the plugin's name; a plugin that is not named there opts out.

Usage: plugins.py NAME [ARGUMENT OF THE RUNNER]...
"""
import hashlib, json, os, sys, time

from azul_runner import BinaryPlugin, Feature, FeatureType, Job, State, cmdline_run


class AzulPluginWorker(BinaryPlugin):
    """Each way that a job can end."""

    VERSION = "1"
    CONTACT = "interop"
    FEATURES = [
        Feature("digest", "SHA-256 of the content as it was read.", type=FeatureType.String),
        Feature("retries", "Number of the retry.", type=FeatureType.Integer),
        Feature("letter", "A text beyond ASCII.", type=FeatureType.String),
    ]

    def execute(self, job: Job):
        return self.carry_out(job, self.NAME)

    def carry_out(self, job: Job, name: str):
        order = json.loads(job.get_data().readline()).get(name)
        if order is None:
            return State(State.Label.OPT_OUT, message="not for me")
        # The driver reads here who is at work on what.
        with open(os.environ["INTEROP_JOBS"], "a", encoding="utf-8") as jobs:
            jobs.write(f"{name} {job.id} {job.event.retries or 0}\n")
        return getattr(self, order)(job)

    def digest(self, job):
        """Reads all of it, piece by piece, after the end was read first."""
        content, digest = job.get_data(), hashlib.sha256()
        content.seek(-1, os.SEEK_END)
        content.read(1)
        content.seek(0)
        while piece := content.read(1 << 18):
            digest.update(piece)
        self.add_feature_values("digest", digest.hexdigest())
        self.add_feature_values("retries", job.event.retries or 0)
        self.add_feature_values("letter", ["\u00e4", "\U0001f9ea", '"\\'])
        self.add_info({"read": content.tell(), "nested": {"a": [1, None, "\u00fc"]}})

    def text(self, job):
        self.add_text("line one\nline two\n", language="python")

    def children(self, job):
        """Two children, one of them with a child, a feature and a text stream of its own."""
        self.add_child_with_data({"action": "extracted"}, b'{"Worker": "digest"}\nfirst child\n')
        second = self.add_child_with_data({"action": "extracted", "offset": "7"}, b'{"Worker": "empty"}\nsecond child\n')
        second.add_feature_values("letter", "of a child")
        second.add_text("text of a child\n")
        second.add_child_with_data({"action": "extracted"}, b'{"Worker": "text"}\ngrandchild\n')

    def nest(self, job):
        """A child that is told to do the same."""
        content = b'{"Worker": "nest"}\n%d\n' % len(job.event.source.path)
        self.add_child_with_data({"action": "extracted"}, content)

    def empty(self, job):
        return None

    def malformed(self, job):
        return self.is_malformed("cut off after 12 bytes")

    def too_many(self, job):
        """More values than a feature may have: the runner cuts them and says so."""
        self.add_feature_values("digest", [f"{n:05}" for n in range(1_200)])

    def fail(self, job):
        raise ValueError("this file is not for \u00fcs")

    def fail_once(self, job):
        if not job.event.retries:
            raise ConnectionError("the first time")
        return self.digest(job)

    def undeclared(self, job):
        self.add_feature_values("nobody_declared_it", "x")

    def wait(self, job):
        time.sleep(4)
        return self.digest(job)

    def hang(self, job):
        time.sleep(600)

    def hang_once(self, job):
        if not job.event.retries:
            time.sleep(600)
        return self.digest(job)


class AzulPluginParts(AzulPluginWorker):
    """Several parts, each of which registers and reports on its own."""

    VERSION = "2"

    def __init__(self, config=None):
        super().__init__(config)
        self.register_multiplugin("one", "3", self.one, description="the first part")
        self.register_multiplugin("two", None, self.two, description="the second part")

    def one(self, job: Job):
        return self.carry_out(job, f"{self.NAME}-one")

    def two(self, job: Job):
        return self.carry_out(job, f"{self.NAME}-two")


class AzulPluginSlow(AzulPluginWorker):
    """Works for longer than its lease, and sends heartbeats."""


class AzulPluginTimeout(AzulPluginWorker):
    """Is killed by its runner when a job takes too long."""


class AzulPluginKilled(AzulPluginWorker):
    """Dies with its runner while it has a job."""


class AzulPluginStopped(AzulPluginWorker):
    """Is told to end while it has a job."""


if __name__ == "__main__":
    cmdline_run(globals()["AzulPlugin" + sys.argv.pop(1)])
