"""`python -m benchmarks.guides [name ...]`: run guides in full, and write the tables that they print into their text.

A guide takes part that has two lines in its text, `BEGIN` and `END` below. With `--full` it prints tables of Markdown, whose
lines begin with `|`, and these stand between the two afterwards. What it draws it writes into docs/ itself.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from keras_adjoint.atomic_write import atomic_write

ROOT = Path(__file__).parents[1]
BEGIN = "# <!-- Written by `make guides`. Changes made by hand are lost. -->\n"
END = "# <!-- End of what is written. -->\n"
WRITTEN = re.compile(f"(?<={re.escape(BEGIN)}).*?(?={re.escape(END)})", re.DOTALL)


def main():
    """Run some guides or all of them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.guides", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help="guides by their names; by default all with tables")
    parser.add_argument("--folder", type=Path, default=ROOT / "guides", help="where they are")
    given = parser.parse_args()
    guides = with_tables(given.folder)
    unknown = sorted({*given.names} - guides.keys())
    if unknown:
        parser.error(f"No guide with a table is called {', '.join(unknown)}. There are: {', '.join(guides)}")
    for name in given.names or guides:
        print(f"=== {name}", flush=True)
        start = time.monotonic()
        printed = run(guides[name])
        write(guides[name], printed)
        print(f"=== {name} took {(time.monotonic() - start) / 60:.1f} minutes", flush=True)


def with_tables(folder):
    """The guides that have tables written into their text, by their names."""
    return {file.stem: file for file in sorted(folder.glob("*.py")) if WRITTEN.search(file.read_text(encoding="utf-8"))}


def run(guide):
    """The lines that a guide prints when it is run in full, shown as they come.

    Raises:
        CalledProcessError: If it fails.
    """
    command = [sys.executable, "-u", str(guide), "--full"]
    environment = {"KERAS_BACKEND": "jax", **os.environ}  # whose compiled loops are the quickest
    lines = []
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, encoding="utf-8") as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return lines


def write(guide, printed):
    """Put the tables among the lines that were printed into the guide's text.

    Raises:
        ValueError: If there are none.
    """
    tables = [[]]
    for line in printed:
        if line.startswith("|"):
            tables[-1].append(f"# {line.rstrip()}\n")
        elif tables[-1]:
            tables.append([])
    written = "#\n".join("".join(table) for table in tables if table)
    if not written:
        raise ValueError(f"{guide.name} printed no line that begins with `|`.")
    text = guide.read_text(encoding="utf-8")
    with atomic_write(guide) as beside:
        beside.write_text(WRITTEN.sub(lambda _: f"#\n{written}#\n", text), encoding="utf-8")


if __name__ == "__main__":
    main()
