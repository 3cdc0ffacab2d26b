"""`charalora report`."""

import tempfile
from pathlib import Path

import click


@click.command(short_help="Make a training's report again.")
@click.argument("source", metavar="DIR_OR_URI")
@click.option("--to", type=click.Path(path_type=Path, dir_okay=False), help="File to write. By default report.html, in DIR or here.")
@click.option("--endpoint", default="", help="Address of the S3 service; by default AWS_ENDPOINT_URL, else AWS.")
def report(source: str, to: Path | None, endpoint: str) -> None:
    """Make the report of what a training has written up to now, finished or not.

    DIR_OR_URI is the folder of a training, or the output uri of its resource. The page is one file that loads nothing.

    \b
    Examples:
      charalora report exps/2026-11-22-23-20-04
      charalora report s3://loras/surtr/ --to surtr.html
    """
    from charalora_spec.spec import Storage
    from charalora_trainer.stages.report import FILE, write_page
    from charalora_trainer.stages.report_sources import gather, gather_from
    from charalora_trainer.storage import open_store

    store = open_store(source, Storage(endpoint=endpoint))
    if store.uri.startswith("file://"):
        folder = Path(store.uri.removeprefix("file://"))
        page = to or folder / FILE
        write_page(gather(folder), page)
    else:
        page = to or Path(FILE)
        with tempfile.TemporaryDirectory(prefix="charalora-") as temporary:
            write_page(gather_from(store, Path(temporary)), page)
    click.echo(page)
