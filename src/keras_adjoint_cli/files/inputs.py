"""The files that a command is to read and write, looked at before Keras is imported and a model is loaded."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from keras_adjoint_cli.errors import Failed, OutputLost, Unusable, message_of, unusable
from keras_adjoint_cli.files.destination import check_output
from keras_adjoint_cli.files.limits import Limits, read_limits
from keras_adjoint_cli.files.source import check_source
from keras_adjoint_cli.session import start_keras

MODEL = "a Keras model, which is one file, whose name ends in .keras or .h5"


@contextmanager
def about(file: Path, *others: Path) -> Iterator[None]:
    """Inside, have errors name the file that the work is about, unless they name it or another one."""
    try:
        yield
    except (Failed, OutputLost):
        raise
    except Exception as error:
        message = message_of(error)
        named = any(str(one) in message for one in (file, *others))
        raise Unusable(message if named else f"{file}: {message}") from error


def check_files(
    model: Path,
    output: Path | None = None,
    suffixes: Sequence[str] = (),
    *,
    force: bool = False,
    pictures: Sequence[Path] = (),
) -> None:
    """Raise an `Unusable` if the model or a picture cannot be read, or the output may not or cannot be written."""
    check_source(model, MODEL)
    if output is not None:
        check_output(output, inputs=[model, *pictures], suffixes=suffixes, force=force)
    if pictures:
        from keras_adjoint.plots.picture_files import open_picture

        with unusable(ValueError):
            for picture in pictures:
                open_picture(picture)


def prepare(
    model: Path,
    limit: Sequence[str] | None,
    output: Path | None = None,
    suffixes: Sequence[str] = (),
    *,
    force: bool = False,
    pictures: Sequence[Path] = (),
) -> Limits:
    """The limits, once all files that a command is to read and write have been looked at; Keras is imported after that.

    Args:
        model: The model.
        limit: What `--limit` was given.
        output: The file to write, if any.
        suffixes: How its name may end.
        force: Whether another file may be overwritten.
        pictures: Pictures to read.
    """
    check_files(model, output, suffixes, force=force, pictures=pictures)
    limits = read_limits(limit)
    start_keras()
    return limits
