"""`charalora-operator`: the controller as a program."""

import argparse
import asyncio
import logging
import sys
from pathlib import Path

from charalora_operator.api import ApiError, NoClusterError
from charalora_operator.log import start_log
from charalora_operator.service import operate
from charalora_operator.settings import SettingsError, read_settings, settings_schema

logger = logging.getLogger(__name__)

_WRONG_SETTINGS = 64


def main() -> None:
    """Run until stopped. Exit codes: 0 stopped, 1 to be started again, 64 the settings must be corrected."""
    arguments = _arguments()
    if arguments.print_settings_schema:
        sys.stdout.write(settings_schema() + "\n")
        return
    try:
        settings = read_settings(arguments.settings)
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(_WRONG_SETTINGS)
    start_log(settings.log)
    try:
        asyncio.run(operate(settings, arguments.kubeconfig))
    except (NoClusterError, ApiError) as error:
        logger.critical("The operator cannot work: %s", error)
        sys.exit(1)
    except Exception as error:
        logger.critical("The operator ended unexpectedly: %s", error, exc_info=True)
        sys.exit(1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="charalora-operator", description="Trains CharacterLoras in a Kubernetes cluster.")
    parser.add_argument(
        "--settings", type=Path, default=Path("/etc/charalora/settings.json"), help="JSON file with the settings (%(default)s)"
    )
    parser.add_argument("--kubeconfig", type=Path, help="file with the way to a cluster; without it, the one that this pod runs in")
    parser.add_argument("--print-settings-schema", action="store_true", help="print the settings' JSON Schema and end")
    return parser.parse_args()


if __name__ == "__main__":
    main()
