"""One row of the zoo: build a network and its mirrors, hold them to what follows from the network, and measure."""

import gc
import statistics
import time
from contextlib import contextmanager

import keras
import numpy as np

import keras_adjoint as ka
from benchmarks.zoo.expected import expected_of, is_kernel, parameters
from benchmarks.zoo.networks import let_signals_through
from benchmarks.zoo.residuals import worst_residual

MEMORY = {"pooling": "switches", "gates": "recorded", "activation": "gradient"}
OK, FAILED, NOT_BUILT = "ok", "failed", "not built by Keras"


def measure(case, folder, *, repeats=3):
    """The row of one case.

    Args:
        case: A `Case`.
        folder: Where models may be saved and are deleted again.
        repeats: How often each model is built, for the median of the times.

    Returns:
        A dictionary that JSON can hold. Its "verdict" is "ok" without "problems", "failed" with some, and "not built by
        Keras" if the network's own constructor raises.
    """
    start = time.perf_counter()
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    row = {"family": case.family, "network": case.network, "top": case.top, "size": list(case.size)}
    problems = []
    try:
        network, seconds = built(case.build, repeats)
    except Exception as error:
        return {**row, "verdict": NOT_BUILT, "problems": [in_a_line(error)]}
    let_signals_through(network)
    row["seconds"] = {"network": seconds}
    row["layers"] = {"network": len(network.layers)}
    with noted(problems, "mirror"):
        decoder, row["seconds"]["mirror"] = built(lambda: ka.mirror(network), repeats)
        row["ratio"] = statistics.median(row["seconds"]["mirror"]) / statistics.median(seconds)
        row["layers"]["mirror"] = len(decoder.layers)
        row |= shared(network, decoder, problems, "mirror")
        if not ka.is_tied(decoder, network):
            problems.append("mirror: not tied to the network")
        both = keras.Model(network.inputs, decoder(network.output))
        row["mirror_loaded"] = used_and_reloaded(both, case, folder, problems, "mirror")
    with noted(problems, "autoencoder"):
        remembering, row["seconds"]["autoencoder"] = built(lambda: ka.autoencoder(network, **MEMORY), repeats)
        shared(network, remembering, problems, "autoencoder")
        row["autoencoder_loaded"] = used_and_reloaded(remembering, case, folder, problems, "autoencoder")
        with clocked(row["seconds"], "residuals"):
            row["residuals"] = vars(worst := worst_residual(remembering))
        if not worst.over_tolerance <= 1:
            problems.append(f"residual: {worst.over_tolerance:.2f} times the tolerance at {worst.layer}")
    row["seconds"]["row"] = time.perf_counter() - start
    return {**row, "verdict": FAILED if problems else OK, "problems": problems}


def built(make, repeats):
    """(the last model that `make` made, the seconds that each took)."""
    seconds, model = [], None
    for _ in range(repeats):
        del model
        gc.collect()
        start = time.perf_counter()
        model = make()
        seconds.append(time.perf_counter() - start)
        for variable in model.variables:  # initialisers may still be running
            keras.ops.convert_to_numpy(variable)
    return model, seconds


def shared(network, model, problems, what):
    """Compare what a model shares with the network, and what it owns, with what must be."""
    must = expected_of(network)
    theirs = {id(variable) for variable in network.variables}
    own = [variable for variable in model.variables if id(variable) not in theirs]
    held = {id(variable) for variable in model.variables}
    if what == "autoencoder":  # it has all of the network's layers, so what its adjoints read is what counts
        encoder = set(network.layers)
        held = {id(v) for layer in model.layers if layer not in encoder for v in layer.variables}
    missing = [variable.path for variable in must.shared if id(variable) not in held]
    copies = [variable.path for variable in own if is_kernel(variable)]
    if missing:
        problems.append(f"{what}: does not read {len(missing)} kernels, as {missing[0]}")
    if copies:
        problems.append(f"{what}: has {len(copies)} kernels of its own, as {copies[0]}")
    if parameters(own) != must.own:
        problems.append(f"{what}: owns {parameters(own)} parameters instead of {must.own}")
    read = [variable for variable in must.shared if id(variable) in held]
    return {
        "kernels": {
            "shared": len(read),
            "left_out_with_gates": len(must.left_out),
            "all": len(must.shared) + len(must.left_out),
        },
        "parameters": {"network": network.count_params(), "tied": parameters(read), "own": parameters(own)},
    }


def used_and_reloaded(model, case, folder, problems, what):
    """Predict, save, load, and predict again."""
    pictures = np.random.default_rng(0).uniform(0, 255, (1, *case.size, 3)).astype("float32")
    seconds = {}
    plainly_compiled(model)
    with clocked(seconds, "predict"):
        before = model.predict(pictures, verbose=0)
    if before.shape != pictures.shape:
        problems.append(f"{what}: predicts {before.shape} for {pictures.shape}")
    if not np.isfinite(before).all():
        problems.append(f"{what}: predicts values that are not finite")
    file = folder / f"{case.network}.keras"
    try:
        with clocked(seconds, "save"):
            model.save(file)
        with clocked(seconds, "load"):
            loaded = keras.saving.load_model(file)
        megabytes = file.stat().st_size / 1e6
    finally:
        file.unlink(missing_ok=True)
    plainly_compiled(loaded)
    if not ka.is_tied(loaded):
        problems.append(f"{what}: not tied after loading")
    if loaded.count_params() != model.count_params():
        problems.append(f"{what}: {loaded.count_params()} parameters after loading, {model.count_params()} before")
    with clocked(seconds, "predict after loading"):
        after = loaded.predict(pictures, verbose=0)
    difference = float(np.abs(after - before).max())
    if not np.ptp(before):
        problems.append(f"{what}: predicts the same value everywhere")
    if difference != 0:  # the same program on the same numbers
        problems.append(f"{what}: predicts {difference:.1e} more or less after loading")
    return {
        "deviation": float(before.std()),
        "file_megabytes": megabytes,
        "difference_after_loading": difference,
        "seconds": seconds,
    }


def plainly_compiled(model):
    """A graph is enough to predict one picture: on TensorFlow, XLA takes twice the time to compile it, and never earns it."""
    if keras.backend.backend() == "tensorflow":
        model.jit_compile = False


@contextmanager
def clocked(seconds, what):
    """Note how long something takes."""
    start = time.perf_counter()
    yield
    seconds[what] = time.perf_counter() - start


@contextmanager
def noted(problems, what):
    """Turn an error into a problem of the row, so that the row is finished and the next one begun."""
    try:
        yield
    except Exception as error:
        problems.append(f"{what}: {in_a_line(error)}")


def in_a_line(error):
    """The type of an error and the beginning of what it says."""
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words if len(words) <= 300 else words[:300] + ' …'}"
