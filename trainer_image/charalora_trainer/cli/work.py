"""The option that names a folder for staged files."""

from pathlib import Path

import click

WORK = click.option(
    "--work",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for staged files and training states. By default one in ~/.cache/charalora, the same for the same training.",
)
