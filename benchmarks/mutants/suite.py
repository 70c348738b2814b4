"""Run the tests of a tree in a forked process: all of them with a record of what they reach, or those that reach a mutant."""

import gc
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

import pytest

# Tests of what stands around the library: commands, reports, pictures, documents, files of other programs, rules of style.
LEFT_OUT = (
    "test_cli*", "test_report*", "test_demo*", "test_plot*", "test_diagram*", "test_doctor*", "test_doc*", "test_site*",
    "test_architecture*", "test_repository*", "test_types*", "test_names*", "test_benchmark*", "test_mutants*", "test_export*",
    "test_zoo*", "test_pretrained*", "test_default_backend*",
)  # fmt: skip
MOST_SECONDS = 150  # of processor time, for one mutant; what has not failed by then counts as survived
MOST_SECONDS_PER_TEST = 30  # of processor time; a test that takes longer has failed
MOST_MEMORY = 12 * 2**30
QUIET = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:faulthandler", "--no-header", "--tb=no"]


@contextmanager
def copy_of(tree):
    """A copy of a tree, first on the path of this process and of those that it starts."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = Path(folder, "tree")
        shutil.copytree(tree, copy, ignore=shutil.ignore_patterns(".*", "__pycache__", "build", "dist"))
        sys.path[:0] = [str(copy / "src"), str(copy)]
        os.environ["PYTHONPATH"] = os.pathsep.join([str(copy / "src"), str(copy)])
        try:
            yield copy
        finally:
            del sys.path[:2]


def preload():
    """Import what every test needs but what is not ours, so that a fork has it at once."""
    import hypothesis  # noqa: F401
    import jax  # noqa: F401
    import keras  # noqa: F401
    import torch

    torch.set_num_threads(1)


def test_files(tree):
    files = sorted(Path(tree, "tests").rglob("test_*.py"))
    return [file for file in files if not any(fnmatch(file.name, pattern + ".py") for pattern in LEFT_OUT)]


def forked(function, tree, patience):
    """What `function()` returns in a process of its own that begins in `tree`; or by what signal it died."""
    with tempfile.TemporaryDirectory() as folder:
        answer, log = Path(folder, "answer.json"), Path(folder, "log.txt")
        child = os.fork()
        if child == 0:
            try:
                os.setsid()
                os.chdir(tree)
                out = os.open(log, os.O_WRONLY | os.O_CREAT)
                os.dup2(out, 1)
                os.dup2(out, 2)
                answer.write_text(json.dumps(function()), encoding="utf-8")
            finally:
                sys.stdout.flush()
                os._exit(0)
        status = waited(child, patience)
        if answer.exists():
            return json.loads(answer.read_text(encoding="utf-8"))
        return {"died": status, "log": log.read_text(encoding="utf-8", errors="replace")[-2000:]}


def waited(child, patience):
    """The status of a process, which is killed after so many seconds of the clock."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return status
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


class Recorder:
    """A pytest plugin: the lines of the package that each test runs, and the processor time that it takes."""

    def __init__(self, coverage):
        self.coverage = coverage
        self.seconds, self.failed = {}, set()
        self.caches = None
        self.test = ""

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item):
        if self.caches is None:
            self.caches = [found for found in gc.get_objects() if is_cache_of_ours(found)]
        for cache in self.caches:  # what an earlier test has worked out, this one would not run
            cache.cache_clear()
        self.switch(item.nodeid)
        start = time.process_time()
        result = yield
        self.seconds[item.nodeid] = round(time.process_time() - start, 4)
        self.switch("")
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef):
        test = self.test
        if fixturedef.scope != "function":  # made by the first of the tests that share it
            self.switch("")
        result = yield
        self.switch(test)
        return result

    def switch(self, test):
        self.test = test
        self.coverage.switch_context(test)

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.failed.add(report.nodeid)


def is_cache_of_ours(found):
    return type(found).__name__ == "_lru_cache_wrapper" and (found.__module__ or "").startswith("keras_adjoint")


def record(tree, *, arguments=()):
    """Run all tests of a copy of a tree.

    Returns:
        `tests`: node ids, from the quickest to the slowest; `seconds` of each; `failed`; and `reached`: for every file and
        line the numbers of the tests that run it, -1 for what runs outside of any.
    """
    import coverage

    measured = coverage.Coverage(data_file=None, config_file=False, include=[f"{tree}/src/*"])
    recorder = Recorder(measured)
    measured.start()
    pytest.main([*QUIET, *arguments, *map(str, test_files(tree))], plugins=[recorder])
    measured.stop()
    tests = sorted(recorder.seconds, key=recorder.seconds.get)
    number = {test: n for n, test in enumerate(tests)} | {"": -1}
    data = measured.get_data()
    reached = {}
    for file in data.measured_files():
        lines = data.contexts_by_lineno(file)
        reached[str(Path(file).relative_to(tree))] = {
            line: sorted({number[test] for test in found if test in number}) for line, found in lines.items()
        }
    seconds = [recorder.seconds[test] for test in tests]
    return {"tests": tests, "seconds": seconds, "failed": sorted(recorder.failed), "reached": reached}


class Chosen:
    """A pytest plugin: run these tests in this order, until one fails or the processor time is used up."""

    def __init__(self, tests):
        self.order = {test: number for number, test in enumerate(tests)}
        self.ran, self.failed, self.cut_off = 0, None, False

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items):
        items[:] = sorted((i for i in items if i.nodeid in self.order), key=lambda item: self.order[item.nodeid])

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item):
        if time.process_time() > MOST_SECONDS:
            self.cut_off = True
            item.session.shouldstop = "no time left"
        self.ran += 1
        signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS_PER_TEST)
        try:
            return (yield)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)

    def pytest_runtest_logreport(self, report):
        if report.failed and self.failed is None:
            self.failed = {"test": report.nodeid, "error": str(report.longrepr)[-300:]}

    def pytest_collectreport(self, report):
        if report.failed and self.failed is None:
            self.failed = {"test": "collection", "error": str(report.longrepr)[-300:]}


def out_of_time(*_):
    raise TimeoutError(f"This test took more than {MOST_SECONDS_PER_TEST} s.")


def run(tree, tests, *, arguments=()):
    """Run some tests of a tree, in this order, until one fails."""
    sys.dont_write_bytecode = True  # what is written of a mutant would be taken for the next one
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    signal.signal(signal.SIGPROF, out_of_time)
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_MEMORY, MOST_MEMORY))
    chosen = Chosen(tests)
    files = dict.fromkeys(test.partition("::")[0] for test in tests)
    code = pytest.main([*QUIET, "-x", *arguments, *files], plugins=[chosen])
    if chosen.failed is None and code not in (pytest.ExitCode.OK, pytest.ExitCode.INTERRUPTED):
        chosen.failed = {"test": "pytest", "error": repr(code)}  # such as a conftest that cannot be imported
    return {
        "killed": chosen.failed is not None,
        **(chosen.failed or {}),
        "tests": chosen.ran,
        "cut_off": chosen.cut_off,
        "seconds": round(time.process_time(), 2),
    }
