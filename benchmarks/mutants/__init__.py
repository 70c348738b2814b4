"""Mutation testing: what the test suite notices when one operator, constant or branch of the library is wrong.

    python -m benchmarks.mutants record TREE              which test runs which line, and how long every test takes
    python -m benchmarks.mutants draw TREE --count 180    mutants of that tree, drawn by a seed
    python -m benchmarks.mutants run TREE                 which of them its tests notice
    python -m benchmarks.mutants compare OLD NEW          both figures, and what only one of the two suites notices

A mutant is described by the statement and the function around it, so that it is found again after functions have moved to
other files: `python -m benchmarks.mutants find TREE ORIGIN MUTANTS` looks in TREE for those of the tree ORIGIN. Everything is
written to the folder of `--out`. Needs the `test` extra, and runs on the backend of `KERAS_BACKEND`; `--pytest=--share` leaves
out what `make test` does.
"""
