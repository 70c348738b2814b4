"""The commands of the package's docstring."""

import argparse
import json
import os
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from benchmarks.mutants import __doc__ as description
from benchmarks.mutants import suite
from benchmarks.mutants.draw import FILES, Mutant, draw, found_again, source_of, statement_in
from benchmarks.mutants.statements import Index


def main():
    """Do what the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.mutants", description=description, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    for function in (record, draw_mutants, find, run, compare):
        command = commands.add_parser(function.__name__.partition("_")[0], help=function.__doc__)
        command.set_defaults(function=function)
        command.add_argument("--out", type=Path, default=Path("out/mutants"), help="folder for what is written")
        if function is compare:
            command.add_argument("old", type=Path, help="results of one suite")
            command.add_argument("new", type=Path, help="results of another")
            continue
        command.add_argument("tree", type=Path, help="a folder with src/ and tests/")
        if function in (record, run):
            command.add_argument("--pytest", nargs="*", default=[], help="arguments for pytest")
        if function is draw_mutants:
            command.add_argument("--count", type=int, default=180)
            command.add_argument("--seed", type=int, default=0)
            command.add_argument("--files", nargs="*", default=FILES, help="patterns, below the package")
        if function is find:
            command.add_argument("origin", type=Path, help="the tree that the mutants were drawn from")
            command.add_argument("mutants", type=Path, help="the mutants of that tree")
            command.add_argument("--words", type=Path, help='JSON: {"old word": "new word"}')
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    given.function(given)


def record(given):
    """Run all tests and write which lines each of them reaches."""
    suite.preload()
    with suite.copy_of(given.tree) as copy:
        result = suite.forked(lambda: suite.record(copy, arguments=given.pytest), copy, 4 * 3600)
    write(given.out / "record.json", result)
    print(f"{len(result['tests'])} tests, {sum(result['seconds']):.0f} s; failed: {result['failed'] or 'none'}")


def draw_mutants(given):
    """Draw mutants of lines that are reached."""
    recorded = read(given.out / "record.json")
    mutants = draw(given.tree, given.count, given.seed, lambda s: tests_of(s, recorded), given.files)
    write(given.out / "mutants.json", [asdict(mutant) for mutant in mutants])
    print(f"{len(mutants)} mutants: {dict(Counter(mutant.kind for mutant in mutants))}")


def find(given):
    """Find the mutants of another tree again."""
    words = read(given.words) if given.words else {}
    index = Index(given.tree, words)
    old = [Mutant(**row) for row in read(given.mutants)]
    new = [found_again(mutant, given.origin, index) for mutant in old]
    write(given.out / "mutants.json", [asdict(n) | {"number_drawn": i} for i, n in enumerate(new) if n])
    for one, other in zip(old, new, strict=True):
        print(f"{one.key}\n    -> {other.key if other else 'gone'}")
    print(f"{sum(n is not None for n in new)} of {len(old)} mutants found again")


def run(given):
    """Run the tests that reach a mutant, quickest first, for every mutant."""
    suite.preload()
    recorded = read(given.out / "record.json")
    path = given.out / "results.json"
    results = read(path) if path.exists() else []
    done = {result["drawn"] for result in results}
    with suite.copy_of(given.tree) as copy:
        for drawn, mutant in read_mutants(given.out / "mutants.json").items():
            if drawn not in done:
                tests = tests_of(statement_in(mutant, copy), recorded)
                results.append({"drawn": drawn, **asdict(mutant), **judged(mutant, copy, tests, given.pytest)})
                write(path, results)
        killers = {result["test"] for result in results if result["killed"]}
        killers = [test for test in recorded["tests"] if test in killers]
        control = suite.forked(lambda: suite.run(copy, killers, arguments=given.pytest), copy, 3600)
    print(summary(results))
    print(f"Without a mutant, of the {len(killers)} tests that killed one there fails: {control.get('test', 'none')}")


def judged(mutant, tree, tests, arguments):
    """What the tests make of a mutant, which is in the tree while they run."""
    file = tree / mutant.file
    original, times = file.read_text(encoding="utf-8"), file.stat()
    file.write_text(source_of(mutant, tree), encoding="utf-8")
    start = time.monotonic()
    try:
        answer = suite.forked(lambda: suite.run(tree, tests, arguments=arguments), tree, 20 * suite.MOST_SECONDS)
    finally:
        file.write_text(original, encoding="utf-8")
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))  # so that its bytecode is good again
    if "died" in answer:
        answer |= {"killed": True, "test": f"ended with status {answer['died']}"}
    print(
        f"{'killed  ' if answer['killed'] else 'SURVIVED'} {time.monotonic() - start:6.1f} s  {mutant.key}", flush=True
    )
    return {"reached_by": len(tests)} | answer


def compare(given):
    """Say what two suites notice of the mutants that both trees have."""
    old, new = ({row["drawn"]: row for row in read(path)} for path in (given.old, given.new))
    both = sorted(old.keys() & new.keys())
    print(f"{len(both)} mutants are in both trees.")
    for name, results in (("old", old), ("new", new)):
        print(f"{name}: {summary([results[drawn] for drawn in both])}")
    for title, one, other in (("only the old one", old, new), ("only the new one", new, old)):
        print(f"Killed by {title}:")
        for drawn in both:
            if one[drawn]["killed"] and not other[drawn]["killed"]:
                row = new[drawn]
                print(f"  {row['file']} {row['function']}: {row['before']}  ->  {row['after']}")


def tests_of(statement, recorded):
    """The tests that run a statement, quickest first; all of them for what is only run while modules are imported."""
    lines = recorded["reached"].get(statement.file, {})
    first, last = statement.lines
    numbers = {number for line in range(first, last + 1) for number in lines.get(str(line), ())}
    chosen = sorted(numbers - {-1}) or (range(len(recorded["tests"])) if numbers else [])
    failed = set(recorded["failed"])
    return [test for test in (recorded["tests"][number] for number in chosen) if test not in failed]


def read_mutants(path):
    """Mutants by the number under which they were drawn."""
    rows = read(path)
    return {row.pop("number_drawn", number): Mutant(**row) for number, row in enumerate(rows)}


def summary(results):
    killed = sum(result["killed"] for result in results)
    cut = sum(result.get("cut_off", False) for result in results)
    return f"{killed} of {len(results)} mutants killed ({killed / max(len(results), 1):.1%}), {cut} cut off by time"


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def write(path, value):
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    main()
