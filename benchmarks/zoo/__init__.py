"""Every family of `keras.applications`, mirrored: does it hold, what is shared, what does it cost?

`python -m benchmarks.zoo` takes the smallest member of each family, with and without its classifier, at its native size
and at an odd one, on the backend of `KERAS_BACKEND`.
"""
