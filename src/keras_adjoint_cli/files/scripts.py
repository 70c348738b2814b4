"""Python scripts that people hand to the command: read, or refused in words, and never run."""

import ast
import codecs
from pathlib import Path

from keras_adjoint_cli.errors import Unusable
from keras_adjoint_cli.files.source import check_source


def read_script(file: Path) -> str:
    """The text of a script with its line ends as they are, or an `Unusable` that says what is wrong with the file."""
    check_source(file, "a script", empty=True)
    try:
        text = file.read_bytes().removeprefix(codecs.BOM_UTF8).decode("utf-8")
        ast.parse(text)
    except UnicodeDecodeError as error:
        raise Unusable(f"{file} is not UTF-8: byte {error.start} is {file.read_bytes()[error.start]:#x}.") from error
    except SyntaxError as error:
        raise Unusable(f"{file} is not Python: line {error.lineno}: {error.msg}.") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise Unusable(f"{file} is not Python that can be read: {error}.") from error
    return text


def write_script(text: str, file: Path, like: Path) -> None:
    """Write a script, with the byte order mark that another one begins with, if there is one."""
    mark = codecs.BOM_UTF8 if like.read_bytes().startswith(codecs.BOM_UTF8) else b""
    file.write_bytes(mark + text.encode("utf-8"))
