"""The texts of a Parquet file, a few rows at a time (package pyarrow, extra [parquet])."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from planner.errors import DataError, MissingExtraError, nearest
from planner.files import open_ordinary

SUFFIX = ".parquet"
BATCH_ROWS = 64  # in memory together
BUFFER_BYTES = 2**20  # of a column that are read together, instead of all that a row group has of it


def texts(file: Path, text_key: str) -> Iterator[tuple[int, bytes]]:
    """(row, text in UTF-8) of each row, from row 1. Raises DataError for damage, a missing column, a row without text.

    Raises MissingExtraError without pyarrow.
    """
    arrow = _arrow(file)
    row = 0
    try:
        with arrow.parquet.ParquetFile(file, buffer_size=BUFFER_BYTES, page_checksum_verification=True) as table:
            _check_column(table.schema_arrow, file, text_key, arrow)
            for batch in table.iter_batches(BATCH_ROWS, columns=[text_key], use_threads=False):
                for value in batch.column(0).to_pylist():
                    row += 1
                    if value is None:
                        raise DataError(
                            f"{str(file)!r}, row {row} cannot be used",
                            why=f"its {text_key!r} is null",
                            remedy="take the row out, or write an empty text",
                        )
                    yield row, value.encode()
    except (arrow.ArrowException, OSError, UnicodeError) as error:
        raise _damaged(file, f"after row {row} it cannot be read", error) from error


def column_bytes(file: Path, text_key: str) -> int:
    """The size of the column of texts, not compressed, as the file states it. Raises as `texts`."""
    arrow = _arrow(file)
    try:
        with arrow.parquet.ParquetFile(file) as table:
            _check_column(table.schema_arrow, file, text_key, arrow)
            groups = [table.metadata.row_group(number) for number in range(table.metadata.num_row_groups)]
            columns = [group.column(number) for group in groups for number in range(group.num_columns)]
            return sum(column.total_uncompressed_size for column in columns if column.path_in_schema == text_key)
    except (arrow.ArrowException, OSError) as error:
        raise _damaged(file, "its description at its end cannot be read", error) from error


def _damaged(file: Path, where: str, error: Exception) -> DataError:
    """The message about a damaged file. Raises the error itself where the file cannot be opened at all."""
    if isinstance(error, FileNotFoundError | PermissionError):
        raise error
    return DataError(
        f"{str(file)!r} is damaged",
        why=f"{where}: {str(error).splitlines()[0]}",
        remedy="copy or download it again",
    )


def _arrow(file: Path) -> Any:
    if find_spec("pyarrow") is None:
        raise MissingExtraError("pyarrow", "parquet", f"reading {file.name}")
    open_ordinary(file).close()  # pyarrow would wait for a pipe's other end
    import_module("pyarrow.parquet")  # 0.2 s
    return import_module("pyarrow")


def _check_column(schema: Any, file: Path, text_key: str, arrow: Any) -> None:
    if text_key not in schema.names:
        close = nearest(text_key, schema.names)
        hint = f"; the nearest is {close[0]!r}" if close else ""
        raise DataError(
            f"{str(file)!r} has no column {text_key!r}",
            why=f"its columns are {', '.join(schema.names[:12])}{hint}",
            remedy="name the column of the text with --text-key",
        )
    kind = schema.field(text_key).type
    plain = kind.value_type if arrow.types.is_dictionary(kind) else kind
    if not (arrow.types.is_string(plain) or arrow.types.is_large_string(plain) or arrow.types.is_string_view(plain)):
        raise DataError(
            f"the column {text_key!r} of {str(file)!r} is no text",
            why=f"its type is {kind}",
            remedy="name a column of texts with --text-key",
        )
