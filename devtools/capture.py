"""Makes docs/watching.md anew: what kubectl really shows of examples/surtr.yaml, and of a training that was refused.

    .venv/bin/python devtools/capture.py

It does what `make demo` does, with kubectl beside it, on the same cluster; the page holds what kubectl printed, and nothing else is changed
in it than what the page says.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import yaml

from demo import INPUTS, LONGEST, NAME, NAMESPACE, RESOURCE, apply, state, upload
from target import ROOT, Target, TargetError, open_target

PAGE = ROOT / "docs" / "watching.md"
REFUSED = "surtr-refused"
FORGOTTEN = "07.txt"
EVERY = 10
"""Of the lines in which only figures move, the first of so many is shown."""

TEXT = """# What you see while it trains

Made by `devtools/capture.py` from a run of [examples/surtr.yaml](../examples/surtr.yaml) on the development cluster, where GPUs are only
counted and two busy CPU cores do the work; on real GPUs the figures are others and the words the same. What columns and conditions mean
stands in [troubleshooting](troubleshooting.md).

## While it runs

`kubectl get clora --watch` prints a line whenever something changes. Of the lines of the training itself, one in {every} is shown here.

```
$ kubectl get clora --watch
{watched}
```

## When it is done

```
$ kubectl get clora -o wide
{wide}
```

`kubectl describe` repeats the whole resource with every default; from `Status` on it says:

```
$ kubectl describe clora {name}
{described}
```

## When it is refused

The same data set without one caption, `{forgotten}`. No GPU was asked for:

```
$ kubectl get clora {refused}
{refused_row}
$ kubectl describe clora {refused}
{refused_described}
```
"""


def main() -> int:
    """Run both resources and write the page; 0 when it was written."""
    try:
        target = open_target()
        upload(target)
        target.install()
        PAGE.write_text(captured(target), encoding="utf-8")
    except TargetError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"Wrote {PAGE.relative_to(ROOT)}.")
    return 0


def captured(target: Target) -> str:
    """The page.

    Raises:
        TargetError: A training did not end as it should.
    """
    with watching(target) as lines:
        apply(target)
        until_ended(target, NAME, "Succeeded")
        time.sleep(2)  # the watch prints its last line
    wide = kubectl(target, "get", "clora", NAME, "-o", "wide")
    described = kubectl(target, "describe", "clora", NAME)
    refuse(target)
    until_ended(target, REFUSED, "DatasetInvalid")
    page = TEXT.format(
        every=EVERY,
        watched="\n".join(thinned(lines)),
        wide=wide,
        name=NAME,
        described=from_status(described),
        forgotten=FORGOTTEN,
        refused=REFUSED,
        refused_row=kubectl(target, "get", "clora", REFUSED),
        refused_described=from_status(kubectl(target, "describe", "clora", REFUSED)),
    )
    target.run("delete", "clora", REFUSED, "--namespace", NAMESPACE)
    return page


def kubectl(target: Target, *arguments: str) -> str:
    """What kubectl prints about the demo's namespace, without spaces at the ends of lines."""
    return "\n".join(line.rstrip() for line in target.run(*arguments, "--namespace", NAMESPACE).splitlines())


@contextmanager
def watching(target: Target) -> Iterator[list[str]]:
    """The lines of `kubectl get clora --watch`, filled at the end of the `with`."""
    lines: list[str] = []
    target.namespace(NAMESPACE)
    target.run("delete", "clora", "--all", "--namespace", NAMESPACE, "--cascade=foreground")
    command = [target.kubectl, f"--kubeconfig={target.kubeconfig}", "get", "clora", "--watch", "--namespace", NAMESPACE]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watch:
        try:
            yield lines
        finally:
            watch.terminate()
            lines += [line.rstrip() for line in watch.communicate()[0].splitlines()]


def thinned(lines: list[str]) -> Iterator[str]:
    """Every line but most of those in which only figures moved."""
    last, moves = [""], 0
    for line in lines:
        cells = line.split()
        moves = moves + 1 if cells[:2] == last[:2] and len(cells) == len(last) else 0
        last = cells
        if moves % EVERY == 0:
            yield line


def from_status(described: str) -> str:
    """The end of what `kubectl describe` prints."""
    return described[described.index("\nStatus:\n") + 1 :]


def refuse(target: Target) -> None:
    """Apply the example on pictures of which one has no caption."""
    bucket, (_, folder) = "datasets", INPUTS["datasets"]
    for path in sorted(folder.iterdir()):
        if path.name != FORGOTTEN:
            target.s3().upload_file(str(path), bucket, f"{REFUSED}/{path.name}")
    resource: dict[str, Any] = yaml.safe_load((ROOT / RESOURCE).read_text(encoding="utf-8"))
    resource["metadata"]["name"] = REFUSED
    resource["spec"]["dataset"]["uri"] = f"s3://{bucket}/{REFUSED}/"
    resource["spec"]["output"]["uri"] = f"s3://loras/{REFUSED}/"
    target.run("apply", "--namespace", NAMESPACE, "-f", "-", content=json.dumps(resource))


def until_ended(target: Target, name: str, reason: str) -> None:
    """Wait for an end, and for this one."""
    until = time.monotonic() + LONGEST
    while time.monotonic() < until:
        status = target.get("clora", name, "--namespace", NAMESPACE).get("status", {})
        if status and (found := state(status))["status"] != "Unknown":
            if found["reason"] != reason:
                raise TargetError(f"{name} ended with {found['reason']} instead of {reason}: {found['message']}")
            return
        time.sleep(2)
    raise TargetError(f"{name} did not end within {LONGEST} seconds.")


if __name__ == "__main__":
    sys.exit(main())
