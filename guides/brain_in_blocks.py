# %% [markdown]
# # A brain, block by block
#
# A convolutional autoencoder that is trained on small cubes can be applied to a volume of any size, and the volume need
# not fit in memory: `ka.apply_blocks` reads, computes and writes blocks of it, each with exactly the surroundings that it
# depends on. Nothing is blended at the borders of blocks, so the result is the one of the whole, and can be compared with it.
#
# The volume is the MNI152 template, the mean of the brains of 152 people, at one millimetre: 197 × 233 × 189 voxels, none of
# which are even. It comes with `nilearn`: `pip install --no-deps -r requirements/pretrained.txt`. Without it, ellipsoids take
# its place.

# %%
import gzip
import importlib.util
import sys
import tempfile
from pathlib import Path

import keras_adjoint as ka  # before Keras, so that it finds whichever backend is installed

import keras
import numpy as np
from keras import layers
from numpy.lib.format import open_memmap

QUICK = "--quick" in sys.argv
SHAPE, HEADER = (197, 233, 189), 352  # voxels; bytes before them in the file
UPDATES, CUBE, BLOCK = (2, 16, 32) if QUICK else (60, 32, 64)
FILE = Path("nilearn", "datasets", "data", "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz")


def template():
    """The template from 0 to 1; `None` if `nilearn` is not installed, which is not imported."""
    found = importlib.util.find_spec("nilearn")
    if found is None or found.origin is None:
        return None
    voxels = gzip.decompress((Path(found.origin).parents[1] / FILE).read_bytes())
    return np.frombuffer(voxels, "uint8", offset=HEADER).reshape(SHAPE, order="F") / np.float32(255)


def ellipsoids():
    """Some ellipsoids in a volume of the same size."""
    rng, found = np.random.default_rng(0), np.zeros(SHAPE, "float32")
    grid = np.meshgrid(*(np.linspace(-1, 1, size, dtype="float32") for size in SHAPE), indexing="ij", sparse=True)
    for _ in range(12):
        centre, radius = rng.uniform(-0.6, 0.6, 3), rng.uniform(0.1, 0.5, 3)
        inside = sum(((x - c) / r) ** 2 for x, c, r in zip(grid, centre, radius, strict=True)) < 1
        found += 0.1 * inside.astype("float32")
    return found


volume = template()
print("the MNI152 template" if volume is not None else "nilearn is not here: ellipsoids instead of a brain")
volume = ellipsoids() if volume is None else volume
volume = volume[..., np.newaxis][(slice(60, 60 + 45), slice(70, 70 + 49), slice(60, 60 + 41)) if QUICK else ()]

# %% [markdown]
# ## Trained on cubes
#
# The encoder takes volumes of any size, and `ka.autoencoder` mirrors it: the decoder has its kernels.

# %%
keras.utils.set_random_seed(0)
encoder = keras.Sequential(
    [
        keras.Input((None, None, None, 1)),
        layers.Conv3D(8, 5, strides=2, padding="same", activation="gelu"),
        layers.Conv3D(16, 3, strides=2, padding="same", activation="gelu"),
    ]
)
autoencoder = ka.autoencoder(encoder)
autoencoder.compile(keras.optimizers.Adam(3e-3), "mse")
rng = np.random.default_rng(0)


def cubes(count):
    starts = [rng.integers(0, [size - CUBE for size in volume.shape[:3]]) for _ in range(count)]
    return np.stack([volume[tuple(slice(start, start + CUBE) for start in corner)] for corner in starts])


for _ in range(UPDATES):
    batch = cubes(4)
    loss = autoencoder.train_on_batch(batch, batch)
print(f"mean squared error of the last cubes: {float(loss):.4f}, of zeros: {np.square(batch).mean():.4f}")

# %% [markdown]
# ## What a block reads
#
# Two strides of 2 and kernels of 5 and 3 taps, there and back: from the geometry of the four layers follows what a block of
# the result depends on. At the edges of the volume it is less, as there is nothing beyond them.

# %%
plan = ka.plan_blocks(autoencoder, volume.shape[:3], block=BLOCK)
print(plan)
for number in (0, len(plan) // 2):
    print(f"block {number}: writes {plan[number].write[:3]}, reads {plan[number].read[:3]}")

# %% [markdown]
# ## From file to file, and stopped in between
#
# The volume is read from a memory map and the result written to one, as it would be if both were larger than memory; arrays
# of zarr and HDF5 are taken as well. Here `progress` stops it in the middle. The journal beside the result knows what is
# finished, and the same call goes on.

# %%
folder = Path(tempfile.mkdtemp())
np.save(folder / "brain.npy", volume)
source = np.load(folder / "brain.npy", mmap_mode="r")
target = open_memmap(folder / "result.npy", "w+", "float32", plan.out_shape)


def stop(done, total):
    if done > total // 2:
        raise KeyboardInterrupt


try:
    ka.apply_blocks(plan, source, target, progress=stop)
except KeyboardInterrupt:
    print("stopped, with", (folder / "result.npy.journal").name, "beside the result")
done = ka.apply_blocks(plan, source, target)
print(f"{done.computed} of {done.blocks} blocks were missing")
assert 0 < done.computed < done.blocks

# %% [markdown]
# ## The same as in one piece
#
# This volume does fit in memory. So the result can be compared with the one of the whole, which differs by rounding alone,
# and with a run that nothing stopped, which is the same to the bit.

# %%
whole = keras.ops.convert_to_numpy(autoencoder(volume[np.newaxis]))[0]
difference = np.abs(target - whole).max() / np.abs(whole).max()
print(f"largest difference from the whole, relative: {difference:.0e}")
assert difference < 1e-5

again = np.zeros(plan.out_shape, "float32")
ka.apply_blocks(plan, volume, again)
assert np.array_equal(again, target)

# %% [markdown]
# To compare: who cuts the volume into cubes without their surroundings, and puts the results side by side, has other
# numbers at their borders; and where a cube has another parity than the volume, its strides begin elsewhere.

# %%
cut = np.zeros(plan.out_shape, "float32")
for block in plan:
    part = volume[(*block.write[:3], slice(None))]
    cut[block.write] = keras.ops.convert_to_numpy(autoencoder(part[np.newaxis]))[0]
wrong = np.abs(cut - whole) > 1e-5 * np.abs(whole).max()
print(
    f"cut without surroundings: {wrong.mean():.0%} of the voxels are others, by up to {np.abs(cut - whole).max():.2f}"
)
