"""Bad model files, each made in memory, small, and with words of the line that it leads to."""

import gzip
import io
import json
import pickle
import warnings
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import h5py
import keras
import numpy as np
from keras import layers
from PIL import Image

EVIL = "open('executed', 'w')"  # what nothing may run


def conv_model():
    image = keras.Input((9, 8, 1), name="image")
    return keras.Model(image, layers.Conv2D(3, 3, activation="relu", name="conv")(image), name="network")


@cache
def good(suffix):
    """The bytes of a good model file."""
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file = Path(folder) / f"model{suffix}"
        conv_model().save(file)
        return file.read_bytes()


def members(suffix=".keras"):
    with zipfile.ZipFile(io.BytesIO(good(suffix))) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def archive_of(contents, compression=zipfile.ZIP_STORED):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", compression) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of two members of one name
        for name, data in contents.items() if isinstance(contents, dict) else contents:
            archive.writestr(name, data)
    return made.getvalue()


@dataclass
class Bad:
    """A file, and what the error says about it."""

    name: str
    data: bytes | None  # of the file, if it is one
    words: str = ""
    make: object = None  # else a function of its path

    def write(self, folder):
        file = folder / self.name
        if self.make is not None:
            self.make(file)
        elif self.data is not None:
            file.write_bytes(self.data)
        return file


def with_member(name, data, words, **options):
    contents = members()
    if data is None:
        del contents[name]
    else:
        contents[name] = data
    return Bad("model.keras", archive_of(contents, **options), words)


def with_config(words, change):
    """A model whose configuration, a dictionary, was changed."""
    config = json.loads(members()["config.json"])
    changed = change(config)
    config = config if changed is None else changed
    return with_member("config.json", json.dumps(config).encode(), words, compression=zipfile.ZIP_DEFLATED)


def with_conv(words, **options):
    """A model with other options of its convolution."""
    return with_config(words, lambda config: conv_of(config).update(options))


def conv_of(config):
    return config["config"]["layers"][1]["config"]


def with_layer(words, kind, config, module="keras.layers", registered=None, **more):
    """A model with another layer in place of its convolution."""

    def change(whole):
        layer = whole["config"]["layers"][1]
        layer.update(
            class_name=kind, module=module, registered_name=registered, config={"name": "conv"} | config, **more
        )
        layer.pop("build_config", None)

    return with_config(words, change)


def with_operation(kind, module, config):
    """A model with an operation of `keras.ops` in place of its convolution, which makes more of its input than fits."""
    return with_layer(TOO_LARGE, kind, config, f"keras.src.ops.{module}", kind)


def legacy(kind, config):
    """The configuration of a model in HDF5."""
    image = {"class_name": "InputLayer", "config": {"batch_input_shape": [None, 9, 8, 1], "name": "image"}}
    layers_of_it = [image, {"class_name": kind, "config": {"name": "layer"} | config}]
    return json.dumps({"class_name": "Sequential", "config": {"name": "network", "layers": layers_of_it}})


def with_input(words, shape):
    return with_config(words, lambda config: config["config"]["layers"][0]["config"].update(batch_shape=shape))


def with_weights(words, change):
    """A model whose file of weights was changed."""
    made = io.BytesIO(members()["model.weights.h5"])
    with h5py.File(made, "a") as opened:
        change(opened, opened["layers/conv2d/vars"] if "layers/conv2d/vars" in opened else opened["layers/conv/vars"])
    return with_member("model.weights.h5", made.getvalue(), words)


def never_written(words, filters, **options):
    """A model with so many filters, in whose file HDF5 has the shape of the kernel and no numbers."""
    contents, made = members(), io.BytesIO(members()["model.weights.h5"])
    config = json.loads(contents["config.json"])
    conv_of(config).update(filters=filters)
    with h5py.File(made, "a") as opened:
        group = opened["layers/conv2d/vars"]
        replaced(group, "0", shape=(3, 3, 1, filters), dtype="float32", **options)
        replaced(group, "1", shape=(filters,), dtype="float32")
    contents |= {"config.json": json.dumps(config).encode(), "model.weights.h5": made.getvalue()}
    return Bad("model.keras", archive_of(contents), words)


def replaced(group, name, **options):
    del group[name]
    group.create_dataset(name, **options)


def external(opened, group):
    del group["0"]
    group["0"] = h5py.ExternalLink("/etc/passwd", "/")


def stored_elsewhere(opened, group):
    replaced(group, "0", shape=(3, 3, 1, 3), dtype="float32", external=[("/etc/passwd", 0, 108)])


def virtual(opened, group):
    del group["0"]
    layout = h5py.VirtualLayout((3, 3, 1, 3), dtype="float32")
    layout[...] = h5py.VirtualSource("other.h5", "kernel", shape=(3, 3, 1, 3))
    group.create_virtual_dataset("0", layout)


def hdf5(words, change):
    made = io.BytesIO(good(".h5"))
    with h5py.File(made, "a") as opened:
        change(opened)
    return Bad("model.h5", made.getvalue(), words)


def config_attribute(value):
    def change(opened):
        del opened.attrs["model_config"]
        if value is not None:
            opened.attrs["model_config"] = value

    return change


def damaged_member(words, offset, data, name="config.json"):
    """An archive in which some bytes behind a member's name are others."""
    whole = bytearray(good(".keras"))
    start = whole.index(name.encode()) - 30 + offset  # in the header of the member
    whole[start : start + len(data)] = data
    end = whole.rindex(b"PK\x01\x02", 0, whole.rindex(name.encode())) + offset + 2  # and in the directory
    whole[end : end + len(data)] = data
    return Bad("model.keras", bytes(whole), words)


def function_of(module, name):
    return {"module": module, "class_name": "function", "config": name, "registered_name": name}


def npy(array=None, **options):
    made = io.BytesIO()
    np.save(made, np.zeros((3, 3, 2, 2), "float32") if array is None else array, **options)
    return made.getvalue()


def pixels(kind="PNG", size=(9, 8), mode="L"):
    made = io.BytesIO()
    Image.new(mode, size).save(made, kind)
    return made.getvalue()


NO_PARTS = (  # functions of Keras that are none of a layer's
    ("keras.utils", "get_file"),
    ("keras.saving", "load_model"),
    ("keras.visualization", "plot_image_gallery"),
    ("keras.applications.resnet50", "decode_predictions"),
    ("keras.applications", "ResNet50"),
    ("keras.ops", "one_hot"),
    ("keras.random", "normal"),
)
NOT_A_MODEL = "is not a Keras model"
TOO_LARGE = "is too large"
ONE_LAYER = {
    "module": "keras.layers",
    "class_name": "Activation",
    "config": {"activation": "relu"},
    "registered_name": None,
}


DENSE = ONE_LAYER | {"class_name": "Dense", "config": {"units": 3, "name": "dense"}}
SEQUENTIAL = {
    "module": "keras",
    "class_name": "Sequential",
    "config": {"name": "none", "layers": []},
    "registered_name": None,
}


def many_layers(config):
    config["config"]["layers"] += [ONE_LAYER | {"name": str(number)} for number in range(20_000)]


def called_twice(config, depth):
    """A model that calls a model twice that calls a model twice, and so on: 2ⁿ calls of a layer."""

    def passed(layer, node):
        tensor = {"shape": [None, 4], "dtype": "float32", "keras_history": [layer, node, 0]}
        return {"args": [{"class_name": "__keras_tensor__", "config": tensor}], "kwargs": {}}

    image = {"batch_shape": [None, 4], "dtype": "float32", "name": "in"}
    start = ONE_LAYER | {"class_name": "InputLayer", "config": image, "name": "in", "inbound_nodes": []}
    inner = ONE_LAYER | {"name": "one", "config": {"name": "one", "activation": "relu"}}
    for number in range(depth):
        first, second = (1, 2) if number else (0, 1)  # a model's first node is its own
        inner["inbound_nodes"] = [passed("in", 0), passed(inner["name"], first)]
        graph = {"input_layers": [["in", 0, 0]], "output_layers": [[inner["name"], second, 0]]}
        inner = config | {"name": f"m{number}", "config": {"name": f"m{number}", "layers": [start, inner]} | graph}
    return inner


def nested(depth):
    inner = {"module": "keras.layers", "class_name": "Dense", "config": {"units": 2}, "registered_name": None}
    for _ in range(depth):
        inner = {
            "module": "keras.layers",
            "class_name": "TimeDistributed",
            "config": {"layer": inner},
            "registered_name": None,
        }
    return inner["config"]


def models():
    """(name, a `Bad` file) of every model."""
    whole = good(".keras")
    yield "nothing in it", Bad("model.keras", b"", "it is empty")
    yield "text", Bad("model.keras", b"kernels", f"{NOT_A_MODEL} but a text")
    yield "zeros", Bad("model.keras", bytes(500), NOT_A_MODEL)
    yield "all bytes", Bad("model.keras", bytes(range(256)), NOT_A_MODEL)
    for start, what in (
        (pixels(), "a PNG picture"),
        (pixels("JPEG"), "a JPEG picture"),
        (pixels("GIF"), "a GIF picture"),
        (b"%PDF-1.7\n", "a PDF"),
        (gzip.compress(whole), "a file compressed by gzip"),
        (pickle.dumps({"a": 1}, 2), "a pickle"),
        (pickle.dumps({"a": 1}, 4), "a pickle"),
        (pickle.dumps({"a": 1}, 5), "a pickle"),
    ):
        yield f"{what} that begins with {start[:3]!r}", Bad("model.keras", start, f"{NOT_A_MODEL} but {what}")
    yield "TFLite", Bad("model.tflite", b"\x1c\0\0\0TFL3" + bytes(9), "model.tflite")
    yield "ONNX", Bad("model.onnx", b"\x08\x0d\x12\x00", "model.onnx")
    lengths = {"first bytes": 5, "first line": 40, "first half": len(whole) // 2, "most": len(whole) - 100}
    for part, length in lengths.items():
        yield f"the {part} of a file", Bad("model.keras", whole[:length], "its end is missing")
    yield "another ending", Bad("model.h5", whole, "Rename it, so that it ends in .keras")
    yield "HDF5 with another ending", Bad("model.keras", good(".h5"), "Rename it, so that it ends in .h5")
    yield (
        "an archive of a letter",
        Bad("model.keras", archive_of({"letter.txt": b"Dear Keras"}), "it has no config.json"),
    )
    yield "an archive without members", Bad("model.keras", archive_of({}), "it has no config.json")
    yield "arrays", Bad("model.keras", archive_of({"a.npy": npy()}), "NumPy's arrays")
    yield "a state dict", Bad("model.keras", archive_of({"a/data.pkl": b""}), "PyTorch's")
    yield "a folder", Bad("model.keras", None, "is a folder", Path.mkdir)
    yield "missing", Bad("model.keras", None, "There is no file")
    yield "a link to itself", Bad("model.keras", None, "cannot be opened", lambda file: file.symlink_to(file))
    yield "below a file", Bad("good.npy/model.keras", None, "There is no file")
    yield "a long name", Bad("m" * 300 + ".keras", None, "cannot be opened: File name too long")
    # --- the configuration
    for name, data in (
        ("nothing", b""),
        ("a brace", b"{"),
        ("half", members()["config.json"][:200]),
        ("no text", b"\xff\xfe{}"),
        ("words", b"Dear Keras"),
    ):
        yield f"{name} as its configuration", with_member("config.json", data, "its config.json is damaged")
    yield "null as its configuration", with_member("config.json", b"null", "cannot be loaded")
    for value in ([], 3, "text", {}, {"class_name": 3}, {"class_name": "Functional", "config": []}, [[[]]]):
        yield f"{value} as its configuration", with_config("cannot be loaded", lambda config, value=value: value)
    deep = b"[" * 100_000 + b"]" * 100_000
    yield (
        "brackets without end",
        with_member("config.json", deep, "nested too deeply", compression=zipfile.ZIP_DEFLATED),
    )
    yield "no configuration", with_member("config.json", None, "it has no config.json")
    yield "a class that is none", with_layer("cannot be loaded", "Nothing", {})
    yield "a class of another package", with_layer("Could not locate class 'Evil'", "Evil", {}, module="evil")
    yield "a registered class of it", with_layer("Could not locate class", "Evil", {}, "evil.layers", "evil>Evil")
    yield "subprocess.Popen", with_layer("Could not locate class", "Popen", {"args": "touch executed"}, "subprocess")
    yield "os.system", with_conv("Could not locate function 'system'", activation=function_of("os", "system"))
    yield "exec", with_conv("cannot be loaded", activation=function_of("builtins", "exec"))
    for module, name in NO_PARTS:
        yield name, with_conv(f"It names {module}.{name}, which is no part", activation=function_of(module, name))
    masked = function_of("keras.visualization", "plot_image_gallery") | {
        "registered_name": "keras_adjoint>AdjointDense"
    }
    yield "a function by a registered name", with_conv("It names keras.visualization", activation=masked)
    plot = {"function": masked, "output_shape": [9, 8, 1], "arguments": {"path": "executed", "value_range": [0, 1]}}
    yield "a function that writes", with_layer("It has a Lambda layer", "Lambda", plot)
    yield "a function that writes, in HDF5", hdf5("It has a Lambda layer", config_attribute(legacy("Lambda", plot)))
    yield (
        "a Lambda of an operation",
        with_layer("It has a Lambda", "Lambda", {"function": function_of("keras.ops", "tile")}),
    )
    yield "an optimizer as a layer", with_layer("It names keras.optimizers.Adam", "Adam", {}, "keras.optimizers")
    yield (
        "a metric as a layer",
        with_layer("It names keras.metrics.AUC", "AUC", {"num_thresholds": 10**9}, "keras.metrics"),
    )
    spec = {"spec_name": "Popen", "module": "subprocess", "registered_name": None}
    yield (
        "a type of TensorFlow's",
        with_config(
            "Could not locate",
            lambda config: config["config"].update(more={"class_name": "__typespec__", "config": []} | spec),
        ),
    )
    bytes_of_text = {"class_name": "__numpy__", "config": {"value": 0, "dtype": "V4000000000"}}
    yield "a long text as a number", with_conv("which is not one of numbers", kernel_size=bytes_of_text)
    yield (
        "a call of a layer with numbers",
        with_layer("without a tensor of the model", "Add", {}, inbound_nodes=[{"args": [[1, 2]], "kwargs": {}}]),
    )
    code = {"class_name": "__lambda__", "config": {"code": "4wAA", "defaults": None, "closure": None}}
    yield "a lambda", with_layer("It has a Lambda layer", "Lambda", {"function": code})
    yield "another program", with_layer("It has a TFSMLayer", "TFSMLayer", {"filepath": "/etc"})
    yield "a pickle", with_layer("It has a TorchModuleWrapper", "TorchModuleWrapper", {"module": "gASV"})
    yield "another file", with_layer("would read another file", "StringLookup", {"vocabulary": "/etc/passwd"})
    yield (
        "another file of numbers",
        with_layer("It has an IntegerLookup, which", "IntegerLookup", {"vocabulary": "/etc/passwd"}),
    )
    yield "no list of layers", with_config("cannot be loaded", lambda config: config["config"].update(layers=3))
    yield "a layer alone", with_config("holds a Dense and no model", lambda config: DENSE)
    yield "an empty model", with_config("a model without layers", lambda config: config | SEQUENTIAL)
    yield "a name that leads out", with_member("assets/../../outside", b"evil", "a member whose name leads out of it")
    yield "no layers", with_config("cannot be loaded", lambda config: config["config"].update(layers=[]))
    yield "layers that are none", with_config("cannot be loaded", lambda config: config["config"].update(layers=[1, 2]))
    yield (
        "an input that is none",
        with_config("cannot be loaded", lambda config: config["config"].update(input_layers=[["none", 0, 0]])),
    )
    yield (
        "a call of nothing",
        with_config(
            "cannot be loaded",
            lambda config: config["config"]["layers"][1].update(inbound_nodes=[{"args": [3], "kwargs": {}}]),
        ),
    )
    yield (
        "nodes that are none",
        with_config("cannot be loaded", lambda config: config["config"]["layers"][1].update(inbound_nodes="none")),
    )
    # --- layers
    for name, options in {
        "no filters": {"filters": 0},
        "filters below none": {"filters": -3},
        "half a filter": {"filters": 2.5},
        "filters in words": {"filters": "three"},
        "filters of null": {"filters": None},
        "a kernel of words": {"kernel_size": "three"},
        "a kernel of no axes": {"kernel_size": []},
        "a kernel of nothing": {"kernel_size": [0, 0]},
        "a kernel that does not fit": {"kernel_size": [30, 30]},
        "a stride of nothing": {"strides": 0},
        "a stride below none": {"strides": [-1, -1]},
        "another padding": {"padding": "odd"},
        "another format": {"data_format": "channels_middle"},
        "groups that do not divide": {"groups": 7},
        "no dilation": {"dilation_rate": 0},
        "another dtype": {"dtype": "float99"},
        "a name of a number": {"name": 3},
        "a name with a slash": {"name": "a/b"},
        "another activation": {"activation": "nothing"},
        "an option of its own": {"surprise": True},
    }.items():
        yield name, with_conv("cannot be loaded", **options)
    # --- more than fits
    yield "filters without end", with_conv(TOO_LARGE, filters=10**18)
    yield "a kernel without end", with_conv(TOO_LARGE, kernel_size=[10**6, 10**6], padding="same")
    yield "a kernel as large as a number", with_conv(TOO_LARGE, kernel_size=10**18, padding="same")
    yield "weights that are not in the file", with_conv(TOO_LARGE, filters=10**7)
    yield "a large input", with_input(TOO_LARGE, [None, 40_000, 40_000, 1])
    yield "an input without end", with_input(TOO_LARGE, [None, 10**18, 10**18, 1])
    yield "a large batch", with_input(TOO_LARGE, [10**12, 9, 8, 1])
    yield "an input below nothing", with_input("cannot be loaded", [None, -9, 8, 1])
    yield "an input in words", with_input("cannot be loaded", "nine by eight")
    yield "a stride that no backend takes", with_conv(TOO_LARGE, strides=[2**31, 1], padding="same")
    yield "20,000 layers", with_config("20,00", many_layers)
    yield "calls without end", with_config("calls of layers", lambda config: called_twice(config, 30))
    yield "a matrix without end", with_layer(TOO_LARGE, "Dense", {"units": 10**15})
    yield "a vocabulary without end", with_layer(TOO_LARGE, "Embedding", {"input_dim": 10**12, "output_dim": 4})
    yield "pixels without end", with_layer(TOO_LARGE, "UpSampling2D", {"size": [10**6, 10**6]})
    yield "tiles without end", with_operation("Tile", "numpy", {"repeats": [1, 10**6, 10**6, 1]})
    yield "repeats without end", with_operation("Repeat", "numpy", {"repeats": 10**15, "axis": 1})
    yield "a broadcast without end", with_operation("BroadcastTo", "numpy", {"shape": [10**6, 10**6, 9, 8, 1]})
    yield "classes without end", with_operation("OneHot", "nn", {"num_classes": 10**15})
    yield "frequencies without end", with_layer(TOO_LARGE, "MelSpectrogram", {"fft_length": 10**9})
    yield "bands without end", with_layer(TOO_LARGE, "MelSpectrogram", {"num_mel_bins": 10**6})
    yield "padding without end", with_layer(TOO_LARGE, "ZeroPadding2D", {"padding": 10**7})
    for kind in ("AveragePooling2D", "MaxPooling2D"):
        yield f"{kind} of a pool without end", with_layer(TOO_LARGE, kind, {"pool_size": 20_000, "padding": "same"})
    yield "cropping without end", with_layer("cropping", "Cropping2D", {"cropping": 10**18})
    yield "a stack of wrappers", with_layer("cannot be loaded", "TimeDistributed", nested(300))
    # --- weights
    weights = members()["model.weights.h5"]
    yield "no weights", with_member("model.weights.h5", None, "cannot be loaded")
    yield "empty weights", with_member("model.weights.h5", b"", "cannot be loaded")
    yield "weights of words", with_member("model.weights.h5", b"kernels", "cannot be loaded")
    yield "half of the weights", with_member("model.weights.h5", weights[:3000], "cannot be loaded")
    yield (
        "a kernel of another shape",
        with_weights("cannot be loaded", lambda opened, group: replaced(group, "0", data=np.zeros((2, 2)))),
    )
    yield (
        "a kernel of texts",
        with_weights("cannot be loaded", lambda opened, group: replaced(group, "0", data=["a", "b"])),
    )
    yield (
        "a kernel that is a group",
        with_weights("cannot be loaded", lambda opened, group: (group.pop("0"), group.create_group("0"))),
    )
    yield "no kernel", with_weights("cannot be loaded", lambda opened, group: group.pop("0"))
    yield "a kernel that was never written", never_written(TOO_LARGE, 4 * 10**6)
    yield "pieces that were never written", never_written("the file holds 0 bytes", 10**8, chunks=(3, 3, 1, 1000))
    yield "a kernel in another file", with_weights("reads other files", external)
    yield "a kernel stored in another file", with_weights("reads other files", stored_elsewhere)
    yield "a virtual kernel", with_weights("reads other files", virtual)
    # --- the archive
    yield "a method of compression that is none", damaged_member("cannot be loaded", 8, b"\x63\0")
    yield "a password", damaged_member("cannot be loaded", 6, b"\x01\0")
    yield "a wrong checksum", damaged_member("a part of it is missing or damaged", 14, b"\1\2\3\4")
    # --- HDF5
    old = good(".h5")
    for length in (8, 100, 3000, len(old) - 100):
        yield f"the first {length} bytes of HDF5", Bad("model.h5", old[:length], "cannot be loaded")
    yield "HDF5 without a configuration", hdf5("it has weights and no model", config_attribute(None))
    words = "its configuration describes no model"
    yield "a number as the model of HDF5", hdf5(words, config_attribute(5.0))
    for value in ("", "{", "[]", "null", "words", '{"class_name": "Nothing", "config": {}}'):
        yield f"{value} as the configuration of HDF5", hdf5("cannot be loaded", config_attribute(value))
    yield "a number as the configuration of HDF5", hdf5("cannot be loaded", config_attribute(3))
    yield "an array as the configuration of HDF5", hdf5("cannot be loaded", config_attribute(np.zeros(3)))
    yield (
        "HDF5 that reads other files",
        hdf5("reads other files", lambda opened: opened.__setitem__("more", h5py.ExternalLink("/etc/passwd", "/"))),
    )
    yield "HDF5 without weights", hdf5("cannot be loaded", lambda opened: opened.pop("model_weights"))
