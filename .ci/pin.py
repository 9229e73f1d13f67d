"""Merge pip's resolutions for several Python versions into one constraints file with environment markers.

For each supported Python, resolve without installing:

    python3.X -m pip install --dry-run --ignore-installed --report resolved-3.X.json [-c old-pins.txt] -e '.[test,dev]'

and then run ``python .ci/pin.py resolved-3.*.json > constraints.txt``.
"""

import json
import re
import sys
from collections import defaultdict

HEADER = """\
# Exact versions of everything that `make demo` and `make test` install, for Python {pythons}.
# Written by .ci/pin.py from pip's own resolutions; do not edit by hand.
"""


def read_report(path: str) -> tuple[str, dict[str, str]]:
    """The Python version a report was made for (``'3.11'``) and its packages with their versions."""
    with open(path, encoding="utf-8") as file:
        report = json.load(file)
    packages = {}
    for item in report["install"]:
        if "dir_info" not in item["download_info"]:  # that would be this project itself
            name = re.sub(r"[-_.]+", "-", item["metadata"]["name"]).lower()
            packages[name] = item["metadata"]["version"]
    return report["environment"]["python_version"], packages


def merge(resolutions: dict[str, dict[str, str]]) -> list[str]:
    """One constraint per package and version; a marker where the Pythons differ."""
    lines = []
    for name in sorted(set().union(*resolutions.values())):
        pythons = defaultdict(list)
        for python, packages in resolutions.items():
            if name in packages:
                pythons[packages[name]].append(python)
        for version, where in sorted(pythons.items(), key=lambda item: item[1]):
            everywhere = len(where) == len(resolutions)
            marker = "" if everywhere else " ; " + " or ".join(f"python_version == '{python}'" for python in where)
            lines.append(f"{name}=={version}{marker}")
    return lines


def main(reports: list[str]) -> None:
    """Print the constraints file."""
    resolutions = dict(sorted((read_report(path) for path in reports), key=lambda item: int(item[0].split(".")[1])))
    print(HEADER.format(pythons=", ".join(resolutions)))
    print("\n".join(merge(resolutions)))


if __name__ == "__main__":
    main(sys.argv[1:])
