"""Helm, and the chart as it renders it."""

import json
from functools import cache

import pytest
import yaml

from helm import Helm, Manifest, Render, Values


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """Helm itself."""
    return Helm(tmp_path_factory.mktemp("helm"))


@pytest.fixture(scope="session")
def render(helm: Helm) -> Render:
    """Every object of the chart for these values; the same values are rendered once."""

    @cache
    def rendered(values: str) -> str:
        ended = helm.template(json.loads(values))
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    def objects(values: Values) -> list[Manifest]:
        return [each for each in yaml.safe_load_all(rendered(json.dumps(values, sort_keys=True))) if each]

    return objects
