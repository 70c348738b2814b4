"""Bad inputs, each made by a function of a folder, small, and with words of the line that it leads to.

What a command is run with stands beside the functions: `arrays`, `pictures`, `scripts` are files, `OPTIONS` are words
of the command line behind good files, and `HEAVY` ask for memory or time without end and run in a process of their own.
"""

import io
import json
import os
import pickle
import struct
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from bad_models import EVIL, TOO_LARGE, Bad, archive_of, good, hdf5, members, npy, pixels, replaced, with_weights
from PIL import Image

# --- arrays


def npy_header(text):
    header = text.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header


def safetensors(header, data=bytes(144)):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


class Runs:
    def __reduce__(self):
        return exec, (EVIL,)


def state_dict(values):
    made = io.BytesIO()
    torch.save(values, made)
    return made.getvalue()


def odd_tensors():
    """(name, tensor, words) of tensors whose numbers are not in their file, or in another order."""
    kernel = torch.zeros((3, 3, 2, 2))
    yield "one number, repeated", torch.zeros(1).expand(100, 1000, 100, 10), TOO_LARGE
    yield "no numbers", torch.zeros((3, 3, 2, 2), device="meta"), "w is a tensor on the device meta"
    yield "zeros left out", kernel.to_sparse(), "w is a sparse tensor"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield "bytes", torch.quantize_per_tensor(kernel, 0.1, 0, torch.qint8), "w is a quantised tensor"


def arrays():
    whole = npy()
    unreadable = "cannot be read as a"
    yield "empty", Bad("a.npy", b"", "it is empty")
    yield "words", Bad("a.npy", b"kernels", unreadable)
    yield "magic alone", Bad("a.npy", whole[:6], unreadable)
    yield "half a header", Bad("a.npy", whole[:40], unreadable)
    yield "half of the numbers", Bad("a.npy", whole[:150], unreadable)
    yield "another version", Bad("a.npy", whole[:6] + b"\x09\0" + whole[8:], unreadable)
    yield "objects", Bad("a.npy", npy(np.array([Runs()], object), allow_pickle=True), "could run code")
    yield "a pickle", Bad("a.npy", pickle.dumps(Runs()), "could run code")
    yield "a header that is code", Bad("a.npy", npy_header(f"{EVIL}"), unreadable)
    yield "a header without a shape", Bad("a.npy", npy_header("{'descr': '<f4', 'fortran_order': False}"), unreadable)
    for shape in ("(10**18,)", "(-3, 3)", "(1000000000000, 4)", "('a',)"):
        header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}"
        yield f"a shape of {shape}", Bad("a.npy", npy_header(header), unreadable)
    yield "a header without end", Bad("a.npy", b"\x93NUMPY\2\0" + struct.pack("<I", 2**31) + b"{", unreadable)
    yield "texts", Bad("a.npy", npy(np.array(["a", "b"])), "No array has 3, 4 or 5 axes")
    yield "a matrix", Bad("a.npy", npy(np.zeros((3, 3))), "No array has 3, 4 or 5 axes")
    yield "an archive of words", Bad("a.npz", archive_of({"letter.txt": b"Dear NumPy"}), "")
    yield (
        "an archive of objects",
        Bad("a.npz", archive_of({"a.npy": npy(np.array([Runs()], object), allow_pickle=True)}), "could run code"),
    )
    yield "an archive that ends", Bad("a.npz", archive_of({"a.npy": whole})[:-30], unreadable)
    yield "an archive of half an array", Bad("a.npz", archive_of({"a.npy": whole[:150]}), unreadable)
    yield "an array by the name of an archive", Bad("a.npz", b"kernels", unreadable)
    shape = {"dtype": "F32", "shape": [3, 3, 2, 2], "data_offsets": [0, 144]}
    for name, data in {
        "no header": b"12",
        "a header without end": struct.pack("<Q", 2**62) + b"{}",
        "a header of words": safetensors(b"Dear PyTorch"),
        "a header that is a list": safetensors([1]),
        "numbers that are missing": safetensors({"a": shape}, bytes(10)),
        "numbers beyond the end": safetensors({"a": shape | {"data_offsets": [0, 10**12]}}),
        "a shape that does not fit": safetensors({"a": shape | {"shape": [10**9, 10**9]}}),
        "another dtype": safetensors({"a": shape | {"dtype": "F99"}}),
    }.items():
        yield f"safetensors: {name}", Bad("a.safetensors", data, unreadable)
    for protocol in (0, 2, 4):
        yield (
            f"a pickle of {protocol} as a state dict",
            Bad("a.pt", pickle.dumps(Runs(), protocol), "cannot be read as a"),
        )
    yield (
        "a state dict that runs code",
        Bad("a.pth", archive_of({"a/data.pkl": pickle.dumps(Runs(), 2), "a/version": b"3\n"}), "could run code"),
    )
    for name, tensor, words in odd_tensors():
        yield f"a state dict of {name}", Bad("a.pt", state_dict({"w": tensor}), words)
    nested = {}
    for _ in range(40):
        nested = {"a": nested, "b": nested}
    yield "dictionaries that hold one another", Bad("a.pt", state_dict(nested), "values without end")
    yield "a state dict of words", Bad("a.bin", b"kernels", unreadable)
    yield (
        "a state dict that is an archive of words",
        Bad("a.pt", archive_of({"letter.txt": b"Dear PyTorch"}), unreadable),
    )
    yield "another ending", Bad("a.txt", whole, "Arrays are kept in files that end in")
    yield "a folder", Bad("a.npy", None, "is a folder", Path.mkdir)
    yield "missing", Bad("a.npy", None, "There is no file")


# --- pictures


def png_of(width, height, data=b"\0"):
    """A picture that claims to be so large."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def tiff(numbers):
    made = io.BytesIO()
    Image.fromarray(numbers).save(made, "TIFF")
    return made.getvalue()


def pictures():
    none = "cannot be read as a picture"
    yield "empty", Bad("photo.png", b"", none)
    yield "words", Bad("photo.jpg", b"a cat", "it is none of the formats")
    yield "half a PNG", Bad("photo.png", pixels(size=(90, 80))[:50], none)
    yield "half a JPEG", Bad("photo.jpg", pixels("JPEG", (90, 80))[:300], none)
    yield "half a GIF", Bad("photo.gif", pixels("GIF", (90, 80))[:14], none)
    yield "half a BMP", Bad("photo.bmp", pixels("BMP", (90, 80))[:300], none)
    yield "EPS", Bad("photo.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n", none)
    yield "SVG", Bad("photo.png", b"<svg xmlns='http://www.w3.org/2000/svg'/>", none)
    yield "PDF", Bad("photo.png", b"%PDF-1.7\n", none)
    yield "PPM", Bad("photo.png", b"P6\n9 8\n255\n" + bytes(216), "it is none of the formats")
    yield "more pixels than fit", Bad("photo.png", png_of(60_000, 60_000), "pixels; make it smaller first")
    yield "many pixels", Bad("photo.png", png_of(10_000, 9_500), "pixels; make it smaller first")
    yield "pixels that are missing", Bad("photo.png", png_of(300, 300), none)
    yield "no pixels", Bad("photo.png", png_of(0, 0), none)
    yield "NaN", Bad("photo.tif", tiff(np.full((9, 8), np.nan, "float32")), "some of its numbers are not finite")
    yield "numbers of no range", Bad("photo.tif", tiff(np.full((9, 8), 300, "float32")), "go from 300 to 300")
    colours = tiff(np.zeros((9, 8, 3), "uint8")).replace(b"\2\1\3\0\3\0\0\0", b"\2\1\3\0\1\0\0\0")
    yield "a TIFF of another kind", Bad("photo.tif", colours, "Pillow does not read this kind of TIFF")
    yield "32 bits", Bad("photo.tif", tiff(np.zeros((9, 8), "int32")), "none of them says what is white")
    yield "a folder", Bad("photo.png", None, "is a folder, not a picture", Path.mkdir)
    yield "missing", Bad("photo.png", None, "There is no file")


# --- scripts


def scripts():
    no = "is not Python"
    yield "no UTF-8", Bad("script.py", b"name = '\xff'\n", "is not UTF-8: byte 8 is 0xff")
    yield "UTF-16", Bad("script.py", "import keras".encode("utf-16"), "is not UTF-8")
    yield "zeros", Bad("script.py", b"import keras\0\n", no)
    yield "half a call", Bad("script.py", b"import keras\nx = keras.Input((3,\n", no)
    yield "Python 2", Bad("script.py", b"print 'kernels'\n", no)
    yield "words", Bad("script.py", b"Dear Keras, how are you?\n", no)
    yield "wrong indentation", Bad("script.py", b"def f():\nreturn 1\n", no)
    yield "tabs and spaces", Bad("script.py", b"if a:\n\tb = 1\n        c = 2\n", no)
    yield "a number without end", Bad("script.py", b"x = " + b"9" * 5000 + b"\n", no)
    yield "brackets without end", Bad("script.py", b"x = " + b"(" * 5000 + b")" * 5000 + b"\n", "nested")
    yield "a chain without end", Bad("script.py", b"x = a" + b".b" * 50_000 + b"\n", "nested too deeply")
    yield "calls without end", Bad("script.py", b"x = a" + b".b(1)" * 3_000 + b"\n", "nested too deeply")
    yield "a sum without end", Bad("script.py", b"x = 1" + b" + 1" * 50_000 + b"\n", "nested too deeply")
    yield "signs without end", Bad("script.py", b"x = " + b"-" * 50_000 + b"1\n", "nested too deeply")
    yield "30,000 lines", Bad("script.py", b"x = 1\n" * 30_000, "it has 30,000 lines, and the limit is 20,000")
    yield (
        "one line without end",
        Bad(
            "script.py",
            b"x = '" + b"a" * 5_000_000 + b"'\n",
            "it has as many bytes as 25,001 lines of 200, and the limit is 20,000. If you trust it, raise the limit: "
            "--limit lines=25001.",
        ),
    )
    yield "another ending", Bad("script.txt", b"import keras\n", "so it is neither a model nor a script")
    yield "missing", Bad("script.py", None, "There is no file")


# --- what stands behind good files on the command line: the words, in which the good files have names, and the answer

OPTIONS = [
    ("inspect model.keras --batch 0", "--batch"),
    ("inspect model.keras --batch many", "--batch"),
    ("inspect model.keras --batch", "--batch"),
    ("inspect model.keras other.keras", "other.keras"),
    ("inspect", "MODEL.keras"),
    ("inspect model.keras --import no_such_module", "Cannot import no_such_module"),
    ("inspect model.keras --import ..", "Cannot import"),
    ("inspect model.keras --limit memory", "A limit is memory, layers, calls, lines"),
    ("inspect model.keras --limit disk=3GB", "A limit is memory, layers, calls, lines"),
    ("inspect model.keras --limit memory=lots", "a size such as 500MB or 16GB"),
    ("inspect model.keras --limit memory=0", "at least 1"),
    ("inspect model.keras --limit memory=-3GB", "a size such as 500MB or 16GB"),
    ("inspect model.keras --limit memory=1e99GB", "a size such as 500MB or 16GB"),
    ("inspect model.keras --limit layers=3GB", "The limit layers is a number"),
    ("inspect model.keras --limit layers=1", "it has 2 layers, and the limit is 1"),
    ("inspect model.keras --limit memory=10kB", "raise the limit: --limit memory="),
    ("inspect model.keras --timeout 0", "--timeout"),
    ("inspect model.keras --timeout nan", "--timeout"),
    ("inspect model.keras --limit calls=0", "The limit calls is a number, and at least 1"),
    ("check model.keras --surprise", "--surprise"),
    ("surprise model.keras", "surprise"),
    ("inspekt model.keras", "Did you mean 'inspect'? See keras-adjoint --help."),
    ("inspect model.keras --code nothing", "model.keras: "),
    ("mirror model.keras -o out.keras --code nothing", "model.keras: "),
    ("spectrum", "MODEL.keras"),
    ("spectrum model.keras --layer nothing", "The model has no layer of the name nothing"),
    ("spectrum model.keras --layer", "--layer"),
    ("spectrum model.keras --size many", "A size is a number, or several as in 224x224x3"),
    ("spectrum model.keras --size 0", "A size is a number"),
    ("spectrum model.keras --size 3x-3", "A size is a number"),
    ("spectrum model.keras --size 7x7x7x7", "Received: --size 7x7x7x7"),
    ("spectrum model.keras --size 999999999", "and the limit is 4 GB"),
    ("spectrum model.keras --limit memory=10kB", "raise the limit: --limit memory="),
    ("spectrum model.keras --timeout 0", "--timeout"),
    ("mirror model.keras", "--output"),
    ("mirror model.keras -o out.h5", "ends in .keras"),
    ("mirror model.keras -o model.keras", "is the input, which is never overwritten"),
    ("mirror model.keras -o there.keras", "exists already"),
    ("mirror model.keras -o folder.keras --force", "is a folder"),
    ("mirror model.keras -o missing/out.keras", "There is no folder missing"),
    ("mirror model.keras -o link.keras --force", "is a link"),
    ("mirror model.keras -o dangling.keras", "is a link"),
    ("mirror model.keras -o pipe.keras --force", "is no regular file"),
    ("mirror model.keras -o photo.png/out.keras", "There is no folder photo.png"),
    ("mirror model.keras -o out.keras --policy surprise=1", "surprise"),
    ("mirror model.keras -o out.keras --policy bias", "bias"),
    ("mirror model.keras -o out.keras --policy bias=surprise", "surprise"),
    ("mirror model.keras -o out.keras --policy bias:nothing=none", "nothing"),
    ("deconv model.keras photo.png --layer nothing -o out.png", "nothing"),
    ("deconv model.keras photo.png --layer conv -o out.txt", "The name of the output ends in .png"),
    ("deconv model.keras photo.png --layer conv -o photo.png", "is the input, which is never overwritten"),
    ("deconv model.keras photo.png --layer conv -o out.png --range nan 1", "two different, finite numbers"),
    ("deconv model.keras photo.png --layer conv -o out.png --range 0 1e99", "two different, finite numbers"),
    ("deconv model.keras photo.png --layer conv -o out.png --range 1 1", "two different, finite numbers"),
    ("deconv model.keras photo.png --layer conv -o out.png --channel -1", "--channel"),
    ("deconv model.keras photo.png --layer conv -o out.png --channel 7", "7"),
    ("deconv model.keras photo.png --layer conv -o out.png --strongest 0", "--strongest"),
    ("deconv model.keras photo.png --layer conv -o out.png --size 3", "--size"),
    ("deconv model.keras photo.png --layer conv -o out.png --size 30", "--size has no effect"),
    ("report model.keras -o out.txt", "The name of the output ends in .html"),
    ("report model.keras -o out.html --images none.png", "There is no file"),
    ("report model.keras -o out.html --images photo.png --range 0 inf", "two different, finite numbers"),
    ("kernel good.npy -o out.xyz", "Arrays are kept in files that end in"),
    ("kernel good.npy -o good.npy", "is the input, which is never overwritten"),
    ("kernel good.npy -o out.npy --from XYZ", "XYZ"),
    ("kernel good.npy -o out.npy --to HWIO", "Say which layout the kernels have now"),
    ("kernel good.npy -o out.npy --kind surprise", "surprise"),
    ("kernel good.npy -o out.npy --groups 2", "--groups are those of a --kind"),
    ("kernel good.npy -o out.npy --kind conv --groups 7", "good.npy: array: "),
    (
        "kernel good.npy -o out.npy --kind flip --key nothing",
        "good.npy: There is no array of the name nothing, but array.",
    ),
    ("kernel good.npy -o out.npy --in-channels 0", "--in-channels"),
    ("kernel good.npy -o out.npy --method surprise --in-channels 1", "surprise"),
    ("doctor script.py --import os", "--import is for models"),
    ("doctor script.py -o out.py", "--fix"),
    ("doctor script.py --fix -o out.txt", "The name of the output ends in .py"),
    ("doctor script.py --fix -o script.py", "is the input, which is never overwritten"),
]


def good_files(folder):
    """The files that `OPTIONS` names."""
    (folder / "model.keras").write_bytes(good(".keras"))
    (folder / "there.keras").write_text("precious")
    (folder / "folder.keras").mkdir()
    (folder / "link.keras").symlink_to("there.keras")
    (folder / "dangling.keras").symlink_to("nothing.keras")
    os.mkfifo(folder / "pipe.keras")
    (folder / "photo.png").write_bytes(pixels())
    (folder / "good.npy").write_bytes(npy())
    (folder / "script.py").write_text("import keras\n")


# --- what asks for memory or time without end


def compressed(size, name, start=b""):
    made = io.BytesIO()
    with (
        zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open(name, "w", force_zip64=True) as member,
    ):
        member.write(start)
        block = bytes(2**20)
        for _ in range(size >> 20):
            member.write(block)
    return made.getvalue()


def huge_dataset(opened, group):
    replaced(group, "0", shape=(10**5, 10**5), dtype="float32", chunks=(1000, 1000), compression="gzip")


HEAVY_SCRIPTS = {  # that are read in no time, and are no errors
    "a number without end": f"c = keras.layers.Conv2DTranspose(4, 3, strides=0x{'f' * 6000})",
    "a kernel of 10⁹ taps": "c = keras.layers.Conv2DTranspose(4, kernel_size=1000000000, strides=3)",
    "a stride of 10⁹": "c = keras.layers.Conv2DTranspose(4, 3, strides=1000000007, dilation_rate=1000000000)",
    "a text of 10⁹ letters": "x = 'a' * 10**9",
    "a loop of 10⁹ steps": "for i in range(10**9):\n    x = [0] * 10**9",
    "an array of 10¹⁸ numbers": "c.set_weights([np.zeros((10**9, 10**9))])\nd = np.ones((1000000000, 1000000000))",
    "powers of powers": "x = 9 ** 9 ** 9 ** 9\nc = keras.layers.Conv2D(9 ** 9 ** 9, 3)",
    "lists that double": "k0 = [3]\n"
    + "".join(f"k{n} = [k{n - 1}, k{n - 1}]\n" for n in range(1, 60))
    + "c = keras.layers.Conv2DTranspose(4, k59, strides=2)\nc.set_weights(k59)",
    "one name, many times": "x = keras.Input((9, 9, 1))\n" + "x = keras.layers.Conv2D(2, 3)(x)\n" * 700,
}


def heavy(folder):
    """(words of a command, what it answers; "" if it is no error) of files in a folder."""
    os.mkfifo(folder / "pipe.keras")
    os.mkfifo(folder / "pipe.npy")
    os.mkfifo(folder / "pipe.py")
    os.mkfifo(folder / "pipe.png")
    (folder / "model.keras").write_bytes(good(".keras"))
    header = npy_header("{'descr': '|u1', 'fortran_order': False, 'shape': (300000000,)}")
    bombs = {
        "bomb.npz": compressed(300 << 20, "a.npy", header),
        "bomb.keras": compressed(300 << 20, "config.json"),
        "config.keras": archive_of(members() | {"config.json": b" " * (10 << 20)}, zipfile.ZIP_DEFLATED),
        "weights.keras": with_weights("", huge_dataset).data,
    }
    for name, data in bombs.items():
        (folder / name).write_bytes(data)
    (folder / "weights.h5").write_bytes(hdf5("", lambda opened: replaced_in_hdf5(opened)).data)
    for number, text in enumerate(HEAVY_SCRIPTS.values()):
        (folder / f"heavy{number}.py").write_text(f"import keras\nimport numpy as np\n{text}\n")
    yield ("inspect", "pipe.keras"), "is a named pipe"
    yield ("kernel", "pipe.npy", "-o", "out.npy"), "is a named pipe"
    yield ("doctor", "pipe.py"), "is a named pipe"
    yield ("deconv", "model.keras", "pipe.png", "--layer", "conv", "-o", "out.png"), "is a named pipe, not a picture"
    yield ("inspect", "/dev/zero"), "is a device"
    yield ("inspect", "/dev/null"), "is a device"
    yield ("deconv", "model.keras", "/dev/zero", "--layer", "conv", "-o", "out.png"), "not a picture"
    yield ("kernel", "bomb.npz", "-o", "out.npz"), TOO_LARGE
    yield ("inspect", "config.keras"), TOO_LARGE
    yield ("inspect", "bomb.keras"), TOO_LARGE
    yield ("inspect", "weights.keras"), "cannot be loaded"
    yield ("inspect", "weights.h5"), "cannot be loaded"
    for number in range(len(HEAVY_SCRIPTS)):
        yield ("doctor", f"heavy{number}.py"), ""


def replaced_in_hdf5(opened):
    names = []
    opened.visit(names.append)
    kernel = next(name for name in names if name.endswith("kernel"))
    huge_dataset(opened, opened[kernel.rpartition("/")[0]]) if kernel.endswith("/0") else replaced(
        opened[kernel.rpartition("/")[0]], "kernel", shape=(10**5, 10**5), dtype="float32", chunks=(1000, 1000)
    )
