"""What every test relies on: quick compilers, double precision on JAX, a clean Keras state, and who runs what.

Each backend runs its own tests. What is the same on every backend (`any_backend`) and what is slow and merely meant to
hold on each (`in_turn`) is shared out among the three by `--share`, with which `make test` calls pytest.
"""

import os

os.environ.setdefault("JAX_ENABLE_X64", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
# Most programs run once, on small tensors, beside another process of tests.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
if os.environ.get("KERAS_BACKEND") == "jax":
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1")
for threads in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
    os.environ.setdefault(threads, "1")

import gc  # noqa: E402
import itertools  # noqa: E402

import extent  # noqa: E402
import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

QUICKEST = "torch"
TESTS_BETWEEN_COLLECTIONS = 250
TESTS_DONE = itertools.count(1)
EXAMPLES = {"torch": 80, "tensorflow": 30, "jax": 12}


def pytest_addoption(parser):
    parser.addoption("--share", action="store_true", help="leave out what `make test` runs on another backend")
    parser.addoption("--exhaustive", action="store_true", help="run all cases, also those marked `exhaustive`")


def pytest_configure(config):
    """Hypothesis draws the same cases every time, and JAX compiles less; exhaustive runs draw many and change nothing."""
    if is_waiting_for_workers(config):
        return
    extent.EXHAUSTIVE = config.option.exhaustive
    import torch  # TensorFlow crashes if it is imported before PyTorch

    import keras

    if not torch.accelerator.is_available():
        # That of all devices writes down where it was called from, for each kind of them, before every test.
        torch.manual_seed = torch.default_generator.manual_seed

    backend = keras.backend.backend()
    always = {"deadline": None, "suppress_health_check": list(HealthCheck), "print_blob": True}
    settings.register_profile("quick", derandomize=True, max_examples=EXAMPLES[backend], **always)
    settings.register_profile("exhaustive", max_examples=1000, **always)
    settings.load_profile("exhaustive" if config.option.exhaustive else "quick")
    if backend == "jax" and not config.option.exhaustive:
        import quick_jax

        quick_jax.use()


def is_waiting_for_workers(config):
    """Whether this process runs no test itself, and can do without Keras."""
    return bool(config.getoption("numprocesses", None)) and not hasattr(config, "workerinput")


def pytest_collection_modifyitems(config, items):
    left_out = [item for item in items if not runs_here(item, config.option.share, config.option.exhaustive)]
    config.hook.pytest_deselected(items=left_out)
    left_out = set(left_out)
    items[:] = [item for item in items if item not in left_out]
    changing = [item.nodeid for item in items if " at 0x" in item.nodeid]
    if changing:  # of which xdist says little, and nothing where there is one process
        raise pytest.UsageError(f"A test has one name in every process. Give its cases `ids`. Received: {changing[0]}")


def pytest_collection_finish():
    """What was imported stays: the garbage collector need not look at it again."""
    gc.freeze()
    gc.set_threshold(10_000, 10, 1_000_000)


def pytest_runtest_logfinish():
    """What tests leave is looked for from time to time. What stays then, as programs of backends do, stays for good."""
    if next(TESTS_DONE) % TESTS_BETWEEN_COLLECTIONS == 0:
        gc.collect()
        gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Tests that share a fixture go to one process. xdist's own `loadgroup` has no effect from pytest 9.2 on."""
    from scheduling import unit_of
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return unit_of(nodeid, config.rootpath)

    return Scheduling(config, log)


def runs_here(item, share, exhaustive):
    """Whether a test runs on this backend: see the markers in pyproject.toml."""
    import keras

    backend = keras.backend.backend()
    if item.get_closest_marker("exhaustive") and not exhaustive:
        return False
    if item.get_closest_marker("any_backend") and not item.get_closest_marker("every_backend"):
        return not share or backend == QUICKEST
    only = [name for marker in item.iter_markers("only_on") for name in marker.args]
    turns = [name for marker in item.iter_markers("in_turn") for name in marker.args]
    return (not only or backend in only) and (not turns or not share or exhaustive or backend in turns)


@pytest.fixture(autouse=True)
def clean_state():
    """Every test starts with the same seed, names and precision."""
    import keras

    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    keras.config.set_floatx("float32")
    yield
