# %% [markdown]
# # A generator that is its encoder's mirror
#
# A variational autoencoder (Kingma and Welling 2013, "Auto-Encoding Variational Bayes") learns to make pictures: an
# encoder says where in a small latent space a picture lies, and a generator makes a picture of any point there. Usually
# both have kernels of their own. Here the generator is `ka.mirror(encoder)`: it reads the encoder's kernels, and has
# nothing of its own but biases. What does that cost, and what does it save?
#
# We train three generators on faces, alternately, from the same encoder:
#
# - **tied**: `ka.mirror(encoder)`;
# - **untied, random start**: `ka.mirror(encoder, tied=False)`, the same architecture with kernels of its own, drawn as
#   Keras draws those of a stock `Conv2DTranspose`. This is the usual VAE, and the one to compare with;
# - **untied, copied start**: the same, but starting from copies of the encoder's kernels. It tells whether a difference
#   comes from the tie or from the start alone.
#
# In nats per held-out face, on JAX on a CPU that was busy with other work too, five seeds (mean ± standard deviation);
# all three chose a learning rate of 3e-4 and 1200 steps on the validation faces:
#
# | | parameters | file | step | held-out loss | each seed |
# | --- | --- | --- | --- | --- | --- |
# | tied | 122 369 | 547 kB | 11.8 ms | 428.3 ± 5.8 | 437.7, 427.7, 422.9, 424.5, 428.6 |
# | untied, random start | 191 265 | 830 kB | 11.9 ms | 423.8 ± 3.1 | 426.4, 426.4, 424.0, 418.9, 423.5 |
# | untied, copied start | 191 265 | 830 kB | 11.7 ms | 421.0 ± 5.2 | 425.5, 426.6, 417.9, 414.1, 421.1 |
#
# The tie saves 36 % of the parameters and 34 % of the file, and no time: the adjoint does the same multiply-adds. It
# costs about one per cent of the loss, 4.5 nats, which is less than what the tied seeds differ by among themselves. A
# generator that starts from copies and is then let go is the best of the three, though hardly by more than the spread.
# An earlier run of three seeds, 600 steps at 1e-3, came out alike: 434.0, 427.0 and 426.9 in the order of the table.
# Of the generated faces below neither row is better to look at: with 70 faces to learn from, both are blurred.
#
# ![Held-out faces, their reconstructions, and generated faces](../docs/tied_vae.png)
#
# `python guides/tied_vae.py` trains for a few steps, to show that everything runs; `--full` is the comparison above, and
# writes the figure `docs/tied_vae.png`.

# %%
import statistics
import sys
import tempfile
import time
from pathlib import Path

import keras_adjoint as ka  # before Keras, so that it finds whichever backend is installed

import keras
import numpy as np
import skimage.data
from keras import layers, ops
from matplotlib.figure import Figure

FULL = "--full" in sys.argv
STEPS = tuple(range(200, 1401, 200)) if FULL else (3,)  # for one of these numbers an arm is trained
RATES = (1e-4, 3e-4, 1e-3) if FULL else (1e-3,)
SEEDS = (1, 2, 3, 4, 5) if FULL else (1,)
ARMS = ("tied", "untied, random start", "untied, copied start")
LATENT, BATCH = 16, 16
VARIANCE = 0.01  # of the brightness around what the generator makes

# %% [markdown]
# ## Faces
#
# A hundred faces of Labeled Faces in the Wild, 25 × 25 pixels, come with scikit-image: 70 to train on, also mirrored
# left to right, 10 to choose the learning rate by, and 20 for the figures. That is very little, and so a good place to
# see what fewer parameters do.


# %%
def faces():
    pictures = skimage.data.lfw_subset()[:100, ..., None].astype("float32")
    training = np.concatenate([pictures[:70], pictures[:70, :, ::-1]])
    return training, pictures[70:80], pictures[80:]


# %% [markdown]
# ## The model
#
# The encoder ends in the means. The log-variances are a second head, which is not mirrored. 25 is odd, and so are 13
# and 7, so that every stride of two leaves a choice of sizes; the mirror knows them.


# %%
@keras.saving.register_keras_serializable(package="tied_vae")
class Sample(layers.Layer):
    """A random point around the means, z = μ + σ ε, and the price for knowing where, KL(N(μ, σ²) ‖ N(0, 1))."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.noise = keras.random.SeedGenerator(0)

    def call(self, mean, log_variance):
        price = -0.5 * ops.sum(1 + log_variance - ops.square(mean) - ops.exp(log_variance), axis=-1)
        self.add_loss(ops.mean(price))
        return mean + ops.exp(0.5 * log_variance) * keras.random.normal(ops.shape(mean), seed=self.noise)

    def compute_output_shape(self, mean_shape, log_variance_shape):
        return mean_shape


def surprise(wanted, found):
    """-log p(picture | z) in nats, up to a constant: squared differences over twice the variance."""
    return ops.sum(ops.square(wanted - found), axis=(1, 2, 3)) / (2 * VARIANCE)


def make(arm, seed):
    """(the whole model, the generator). The same seed gives the same encoder, whatever the arm."""
    keras.utils.set_random_seed(seed)
    face = keras.Input((25, 25, 1), name="face")
    features = layers.Conv2D(32, 3, strides=2, padding="same", activation="elu", name="conv1")(face)
    features = layers.Conv2D(64, 3, strides=2, padding="same", activation="elu", name="conv2")(features)
    features = layers.Flatten(name="flat")(features)
    mean = layers.Dense(LATENT, name="mean")(features)
    log_variance = layers.Dense(LATENT, kernel_initializer="zeros", name="log_variance")(features)
    encoder = keras.Model(face, mean, name="encoder")
    generator = ka.mirror(encoder, tied=arm == "tied", output_activation="sigmoid", name="generator")
    for variable in generator.weights if arm == "untied, random start" else ():
        if "kernel" in variable.name:
            variable.assign(keras.initializers.GlorotUniform()(variable.shape))
    for layer in generator.layers if arm != "tied" else ():
        layer.trainable = True
    model = keras.Model(face, generator(Sample(name="sample")(mean, log_variance)), name="vae")
    assert ka.is_tied(generator, encoder) == (arm == "tied")
    return model, generator


# %% [markdown]
# ## Training
#
# The loss is the negative evidence lower bound in nats per face: lower is better. On held-out faces it is the mean over
# twenty draws of the noise.


# %%
class Arm:
    """One arm: a model that is compiled once, and set back to the start for every seed and learning rate."""

    def __init__(self, name):
        self.name = name
        self.model, self.generator = make(name, 0)
        self.model.compile(keras.optimizers.Adam(), surprise)
        self.seconds = []

    def train(self, training, *, seed, rate, steps, watch=lambda step: None):
        self.model.set_weights(make(self.name, seed)[0].get_weights())
        optimizer = self.model.optimizer
        optimizer.build(self.model.trainable_variables)
        for variable in optimizer.variables:
            variable.assign(ops.zeros(variable.shape, variable.dtype))
        optimizer.learning_rate = rate
        random = np.random.default_rng(seed)
        for step in range(1, steps + 1):
            batch = training[random.integers(len(training), size=BATCH)]
            start = time.perf_counter()
            self.model.train_on_batch(batch, batch)
            self.seconds.append(time.perf_counter() - start)
            watch(step)

    def loss(self, pictures):
        return statistics.mean(
            self.model.evaluate(pictures, pictures, verbose=0, batch_size=len(pictures))
            for _ in range(20 if FULL else 1)
        )

    def file_size(self):
        """In bytes; and the file is read again, to see that the tie survives."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "vae.keras"
            keras.Model(self.model.input, self.model.output).save(file)
            loaded = keras.saving.load_model(file, compile=False)
            assert ka.is_tied(loaded) == (self.name == "tied")
            return file.stat().st_size


# %% [markdown]
# ## The comparison


# %%
def best_choice(arm, training, validation):
    """The (learning rate, number of steps) with the lowest loss on validation faces, of the seed 0."""
    tried = {}
    for rate in RATES:

        def watch(step, rate=rate):
            if step in STEPS:
                tried[rate, step] = arm.loss(validation)

        arm.train(training, seed=0, rate=rate, steps=STEPS[-1], watch=watch)
    choice = min(tried, key=tried.get)
    best = {rate: min(loss for (other, _), loss in tried.items() if other == rate) for rate in RATES}
    print(f"{arm.name}, validation: " + ", ".join(f"{loss:.1f} at {rate:g}" for rate, loss in best.items()), flush=True)
    return choice


def spread(values):
    return statistics.stdev(values) if len(values) > 1 else 0.0


def compare():
    training, validation, test = faces()
    arms = [Arm(name) for name in ARMS]
    losses, pictures = {name: [] for name in ARMS}, {}
    chosen = {arm.name: best_choice(arm, training, validation) for arm in arms}
    for seed in SEEDS:
        for arm in arms:  # alternately, so that a busy machine slows all of them alike
            rate, steps = chosen[arm.name]
            arm.train(training, seed=seed, rate=rate, steps=steps)
            losses[arm.name].append((arm.loss(training[:70]), arm.loss(test)))
            if seed == SEEDS[0]:
                points = np.random.default_rng(5).standard_normal((10, LATENT)).astype("float32")
                pictures[arm.name] = arm.model.predict(test, verbose=0), arm.generator.predict(points, verbose=0)
    print(
        f"{'':22}{'parameters':>11}{'file':>9}{'step':>10}{'rate':>8}{'steps':>6}{'training':>10}{'held out':>10}   each seed"
    )
    for arm in arms:
        seen, held_out = zip(*losses[arm.name], strict=True)
        row = f"{arm.name:22}{arm.model.count_params():11,}{arm.file_size() / 1000:6.0f} kB"
        row += f"{1000 * statistics.median(arm.seconds):7.1f} ms{chosen[arm.name][0]:8g}{chosen[arm.name][1]:6}"
        row += f"{statistics.mean(seen):10.1f}{statistics.mean(held_out):8.1f} ± {spread(held_out):3.1f}   "
        print(row + ", ".join(f"{loss:.1f}" for loss in held_out))
    return test, pictures


# %% [markdown]
# ## The figure


# %%
def draw(file, test, pictures):
    rows = [("held-out faces", test[:10])]
    rows += [(f"{name}: reconstructed", pictures[name][0][:10]) for name in ARMS[:2]]
    rows += [(f"{name}: generated", pictures[name][1]) for name in ARMS[:2]]
    figure = Figure((8.6, 5.75), facecolor="white")
    for row, (title, made) in enumerate(rows):
        top = 1 - row / len(rows)
        figure.text(0.012, top - 0.012, title, va="top", size=9.5, color="#16202b", weight="bold")
        for column, picture in enumerate(made):
            axes = figure.add_axes((0.012 + 0.098 * column, top - 0.193, 0.093, 0.145))
            axes.imshow(picture[..., 0], cmap="gray", vmin=0, vmax=1, interpolation="bicubic")
            axes.set_axis_off()
    file.parent.mkdir(exist_ok=True)
    figure.savefig(file, dpi=110)
    print(f"wrote {file}")


if __name__ == "__main__":
    draw(Path("docs" if FULL else "out") / "tied_vae.png", *compare())
