"""Results as lines for a person, JSON lines for a machine, and the table of the README."""

import json
from dataclasses import asdict


def line(result):
    return f"{result.client:<13} {result.version[:24]:<24} {result.number:>3} {result.name:<34} {result.outcome:<8} {result.seconds:>6.1f} s  {result.detail[:300]}"


def summary(results):
    count = {outcome: sum(result.outcome == outcome for result in results) for outcome in ("passed", "failed", "skipped", "gap")}
    return f"kafka clients: {count['passed']} passed, {count['failed']} failed, {count['skipped'] + count['gap']} skipped"


def write_json(results, path):
    path.write_text("".join(json.dumps(asdict(result)) + "\n" for result in results))


def table(results):
    """Markdown: client, version, cases passed, gaps and skips with their reasons."""
    rows = ["| client | version | cases passed | known gaps |", "|---|---|---|---|"]
    for client in dict.fromkeys(result.client for result in results):
        own = [result for result in results if result.client == client]
        counted = [result for result in own if result.outcome != "skipped"]
        passed = sum(result.outcome == "passed" for result in own)
        notes = [f"{result.number} {result.name}: {'FAILED' if result.failed else result.outcome}, {result.detail}"
                 for result in own if result.outcome != "passed"]
        rows.append(f"| {client} | {own[0].version or '–'} | {passed} of {len(counted)} | {'<br>'.join(note.replace('|', '/') for note in notes) or 'none'} |")
    return "\n".join(rows)
