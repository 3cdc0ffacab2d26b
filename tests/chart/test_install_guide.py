"""Every Helm command of docs/install.md renders the chart, and what it names exists."""

import re
import shlex

import pytest
import yaml

from helm import CHART, KUBERNETES, ROOT, Helm

GUIDE = (ROOT / "docs" / "install.md").read_text()
COMMANDS = [
    shlex.split(line)
    for block in re.findall(r"^```sh\n(.*?)^```", GUIDE, re.DOTALL | re.MULTILINE)
    for line in block.replace("\\\n", " ").splitlines()
]
RENDERED = [words for words in COMMANDS if words[0] == "helm" and str(CHART.relative_to(ROOT)) in words]
FOR_HELM_TEMPLATE = {"--reuse-values", "--reset-then-reuse-values", "--install"}
"""Options that need a release that stands, and are left out here."""


@pytest.mark.parametrize("words", RENDERED, ids=" ".join)
def test_a_command_renders_the_chart(helm: Helm, words: list[str]) -> None:
    """With every value that it sets: an unknown one would be refused."""
    _, _, *arguments = (word for word in words if word not in FOR_HELM_TEMPLATE)
    ended = helm.run("template", *arguments, "--kube-version", KUBERNETES)

    assert 0 == ended.returncode, ended.stderr
    assert "Deployment" in {each["kind"] for each in yaml.safe_load_all(ended.stdout) if each}


def test_every_kind_of_command_is_there() -> None:
    """The guide was read as it is meant: nothing of it escapes the test above."""
    assert GUIDE.count("charts/charalora --namespace") == len(RENDERED)
    assert {"install", "upgrade", "test", "uninstall"} == {words[1] for words in COMMANDS if words[0] == "helm"}


def test_files_that_are_applied_exist() -> None:
    """From the top of the repository."""
    applied = [words[words.index("-f") + 1] for words in COMMANDS if "-f" in words]

    assert 2 == len(applied)
    assert [] == [name for name in applied if not (ROOT / name).is_file()]


def test_the_claim_is_yaml() -> None:
    """As it would be pasted."""
    (claim,) = re.findall(r"^```yaml\n(.*?)^```", GUIDE, re.DOTALL | re.MULTILINE)

    assert ["ReadWriteMany"] == yaml.safe_load(claim)["spec"]["accessModes"]
