"""What every test relies on: double precision on JAX, PyTorch before TensorFlow, a clean Keras state."""

import os

os.environ.setdefault("JAX_ENABLE_X64", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # of programs that run once
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import torch  # noqa: E402, F401  TensorFlow crashes if it is imported before PyTorch

import keras  # noqa: E402
import pytest  # noqa: E402


@pytest.fixture(autouse=True)
def clean_state():
    """Every test starts with the same seed, names and precision."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    keras.config.set_floatx("float32")
    yield
