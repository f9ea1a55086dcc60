#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs every "$ dssim ..." block of README.md and docs/*.md again and puts what it prints in place.

Usage: docs/update_outputs.py build/release/dssim [FILE.md ...]   (default: README.md and every page of docs)
"""
import pathlib
import re
import shlex
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"(```(?:text|console)\n\$ dssim ([^\n]*)\n)([^`]*)(```)")


def refresh(path, binary):
    def run(match):
        command = shlex.split(match.group(2))
        output = subprocess.run([binary, *command], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        return match.group(1) + output + match.group(4)

    old = path.read_text()
    new = BLOCK.sub(run, old)
    if new != old:
        path.write_text(new)
        print("updated", path.relative_to(ROOT))


def main():
    binary = str(pathlib.Path(sys.argv[1]).resolve())
    pages = [pathlib.Path(p).resolve() for p in sys.argv[2:]] or [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    for page in pages:
        refresh(page, binary)


main()
