"""Files that a command writes its results to: refused before anything is computed, and written when all is there."""

from __future__ import annotations

from pathlib import Path


def refuse_taken(files: dict[str, Path | None], force: bool) -> None:
    """Before anything is computed. files: by option; None is not given, - is stdout. Raises FileError, InputError.

    No name twice, and without `force` none that exists; a --plot has an ending that can be drawn.
    """
    from planner.errors import InputError
    from planner.files import refuse_existing

    named: dict[Path, str] = {}
    for option, path in files.items():
        if path is None:
            continue
        if path in named:
            why = "one file is named twice, and one result would replace the other"
            raise InputError(f"{named[path]} and {option}: both are {path}", why=why, remedy="name two")
        named[path] = option
        if not force and str(path) != "-":
            refuse_existing(path)
    if (plot := files.get("--plot")) is not None:
        from gptplan.plot_file import format_of

        format_of(plot)


def write_files(contents: dict[Path, str | bytes], force: bool) -> None:
    """Write each, and say so. Raises FileError."""
    from gptplan.output import log_line
    from planner.files import write_atomically

    for path, content in contents.items():
        write_atomically(path, content, overwrite=force)
        log_line(f"wrote {path}")


def write_folder(folder: Path, contents: dict[str, str], force: bool) -> None:
    """Write files into a folder, which is made if it is not there, and say so.

    Raises FileError, with nothing written, where one exists already unless `force`, or the folder cannot be made.
    """
    from planner.errors import FileError
    from planner.files import refuse_existing

    for name in contents if not force else ():
        refuse_existing(folder / name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in its name
        why = getattr(error, "strerror", None) or str(error)
        raise FileError(f"{folder} cannot be made", why=why, remedy="give another directory") from None
    write_files({folder / name: text for name, text in contents.items()}, force)
