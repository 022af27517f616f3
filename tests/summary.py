"""The last words of `make test`: one line per session, what was left out, and the totals over all of them.

Reads what nox and pytest wrote into the reports folder, and counts nothing itself. Exits with 1 if a test
failed or a session did; a session that broke before pytest could report counts as one failure.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from xml.etree import ElementTree


def count_tests(report: Path) -> tuple[int, int, int]:
    """How many tests (passed, failed, were skipped) by a JUnit file of pytest."""
    suite = next(ElementTree.parse(report).getroot().iter("testsuite"))
    total, skipped = int(suite.get("tests", 0)), int(suite.get("skipped", 0))
    failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
    # An error in a fixture's teardown is counted beside the test's own pass.
    return max(total - failed - skipped, 0), failed, skipped


def main(folder: Path) -> int:
    # Six runs of nox, side by side, wrote one each; a missing one is a run that did not come to its end.
    runs = ("units", "integration", "campaigns", "acceptance", "core", "versions")
    listings = [folder / f"{name}.json" for name in runs]
    sessions = [
        session for path in listings if path.exists() for session in json.loads(path.read_text())["sessions"]
    ]
    totals = [0, 0, 0]
    left_out = []
    print("\nSummary")
    for session in sessions:
        name, result = session["signatures"][0], session["result"]
        reports = [*folder.glob(f"{name}.xml"), *folder.glob(f"{name}-*.xml")]  # one for each run of pytest
        counts = [sum(column) for column in zip(*map(count_tests, reports), strict=True)] or [0, 0, 0]
        if result == "skipped":
            left_out.append(f"{name} ({session.get('reason') or 'no such Python here'})")
        if result == "failed" and counts[1] == 0:
            counts[1] = 1
        totals = [total + count for total, count in zip(totals, counts, strict=True)]
        tests = "{} passed, {} failed, {} skipped".format(*counts) if reports else "no tests"
        print(f"  {name:<18} {result:<8} {session.get('duration', 0):5.0f} s  {tests}")
    for path in listings:
        if not path.exists():
            totals[1] += 1
            print(f"  nox did not get as far as {path.name}; see above")
    if left_out:
        print("Left out: " + "; ".join(left_out) + ". A machine with these Pythons runs them too.")
    print("\n{} passed, {} failed, {} skipped".format(*totals))
    return 1 if totals[1] else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
