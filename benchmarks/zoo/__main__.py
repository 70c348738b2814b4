"""`python -m benchmarks.zoo`: measure what is missing, save it, and print the table."""

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # Keras may import TensorFlow beside another backend

import keras

from benchmarks.zoo import files, table
from benchmarks.zoo.networks import FAMILIES, cases
from benchmarks.zoo.processes import measured
from keras_adjoint_cli.console import make_console


def main():
    """Run the rows that are not in the file yet, saving each as soon as it is done."""
    given = arguments()
    console = make_console()
    backend = keras.backend.backend()
    rows = files.read(given.out, backend)
    for family in given.only or FAMILIES:
        wanted = [case for case in cases([family]) if given.fresh or case.key not in rows]
        for case, row in measured(wanted):
            rows[case.key] = row
            files.write(given.out, backend, rows)
            took = f" in {row['seconds']['row']:.0f} s" if "row" in row.get("seconds", {}) else ""
            console.print(f"{case.key}{took}: {table.verdict(row)}", soft_wrap=True, markup=False)
    table.write_page(given.out / "zoo.md", files.sections(given.out))
    console.print(table.terminal(rows))
    console.print(f"{files.BACKENDS[backend]}: {table.summary(rows.values())}", soft_wrap=True)


def arguments():
    """What the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=FAMILIES, metavar="FAMILY", help=f"of {', '.join(FAMILIES)}")
    parser.add_argument("--fresh", action="store_true", help="measure again what has been measured")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder for zoo.md and zoo/BACKEND.json")
    return parser.parse_args()


if __name__ == "__main__":
    main()
