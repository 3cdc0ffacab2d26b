"""`charalora report`."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from charalora_trainer.storage import Store


@click.command(short_help="Make a training's report again, or an index of all characters.")
@click.argument("source", metavar="DIR_OR_URI")
@click.option("--index", "is_index", is_flag=True, help="Make index.html in DIR_OR_URI: a card for every training below it.")
@click.option("--to", type=click.Path(path_type=Path, dir_okay=False), help="File to write. By default report.html, in DIR or here.")
@click.option("--endpoint", default="", help="Address of the S3 service; by default AWS_ENDPOINT_URL, else AWS.")
def report(source: str, is_index: bool, to: Path | None, endpoint: str) -> None:  # noqa: FBT001  # click's way
    """Make the report of what a training has written up to now, finished or not.

    DIR_OR_URI is the folder of a training, or the output uri of its resource. The page is one file that loads nothing.

    With --index it is a folder or prefix with the outputs of many trainings: index.html is written there, one page with a card for each
    (picture, trigger word, steps, held-out loss, date) that links its report.html. What cannot be read is named on the page. Make it again
    whenever a training has ended.

    \b
    Examples:
      charalora report exps/2026-11-22-23-20-04
      charalora report s3://loras/surtr/ --to surtr.html
      charalora report --index s3://loras/
    """
    from charalora_spec.spec import Storage
    from charalora_trainer.storage import open_store

    if is_index and to:
        raise click.UsageError("--index writes index.html where its links lead, so it takes no --to.")
    store = open_store(source, Storage(endpoint=endpoint))
    if is_index:
        from charalora_trainer.stages.index_sources import write_index

        click.echo(write_index(store))
    else:
        click.echo(_written(store, to))


def _written(store: "Store", to: Path | None) -> Path:
    """Make a training's report, and say where it is."""
    from charalora_trainer.stages.report import FILE, write_page
    from charalora_trainer.stages.report_sources import gather, gather_from

    if store.uri.startswith("file://"):
        folder = Path(store.uri.removeprefix("file://"))
        page = to or folder / FILE
        write_page(gather(folder), page)
        return page
    page = to or Path(FILE)
    with tempfile.TemporaryDirectory(prefix="charalora-") as temporary:
        write_page(gather_from(store, Path(temporary)), page)
    return page
