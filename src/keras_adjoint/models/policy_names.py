"""The names of the policies, and of what each chooses from. Imports no Keras, for completion on the command line."""

from keras_adjoint.kernels import BIAS_MODES

NAMES = {
    "bias": BIAS_MODES,
    "activation": ("same", "linear", "deconvnet", "gradient", "guided"),
    "norm": ("own", "inverse", "adjoint", "scale", "skip"),
    "pooling": ("spread", "switches", "average"),
    "gates": ("skip", "recorded", "gradient"),
    "dropout": ("drop", "keep"),
    "preprocessing": ("undo", "adjoint", "skip"),
}
