"""Python scripts that people hand to the command: read, or refused in words, and never run."""

import ast
import codecs
import warnings
from pathlib import Path

from keras_adjoint_cli.errors import Unusable, sentence
from keras_adjoint_cli.files.limits import Limits
from keras_adjoint_cli.files.source import check_source

LINE = 200  # bytes that count as a line at least
DEEPEST = 1_000  # levels


def read_script(file: Path, limits: Limits) -> str:
    """The text of a script with its line ends as they are, or an `Unusable` that says what is wrong with the file."""
    size = check_source(file, "a script", empty=True)
    as_long = -(-size // LINE)
    limits.check_count(file, "lines", as_long, f"as many bytes as {as_long:,} lines of {LINE}")
    with file.open("rb") as opened:
        data = opened.read(size)
    limits.check_count(file, "lines", data.count(b"\n"))
    try:
        text = data.removeprefix(codecs.BOM_UTF8).decode("utf-8")
        with warnings.catch_warnings(action="ignore"):  # of escapes in strings and the like, which are the script's own
            tree = ast.parse(text)
    except UnicodeDecodeError as error:
        raise Unusable(f"{file} is not UTF-8: byte {error.start} is {data[error.start]:#x}.") from error
    except SyntaxError as error:
        where = "" if error.lineno is None else f"line {error.lineno}: "
        raise Unusable(f"{file} is not Python: {sentence(where + in_python(error.msg))}") from error
    except (RecursionError, MemoryError) as error:  # which is how Python's parser says it
        raise Unusable(f"{file} has expressions that are nested too deeply to be read.") from error
    except ValueError as error:
        raise Unusable(f"{file} is not Python that can be read: {sentence(str(error))}") from error
    if depth_of(tree) > DEEPEST:
        raise Unusable(f"{file} has expressions that are nested too deeply to be read, in more than {DEEPEST} levels.")
    return text


def in_python(message: str) -> str:
    """What Python's parser says, without the advice for programs that convert texts to numbers."""
    return message.partition("; use sys.")[0]


def depth_of(tree: ast.AST) -> int:
    """How deep the deepest node of a tree is."""
    depth, level = 0, [tree]
    while level:
        depth, level = depth + 1, [child for node in level for child in ast.iter_child_nodes(node)]
    return depth


def write_script(text: str, file: Path, like: Path) -> None:
    """Write a script, with the byte order mark that another one begins with, if there is one."""
    mark = codecs.BOM_UTF8 if like.read_bytes().startswith(codecs.BOM_UTF8) else b""
    file.write_bytes(mark + text.encode("utf-8"))
