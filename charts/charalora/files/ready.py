# ruff: noqa: INP001, T201
"""What `helm test` runs: an operator says that it is ready, and the API server lists the resource to it."""

import os

import httpx
from lightkube import Client
from lightkube.generic_resource import create_namespaced_resource

CharacterLora = create_namespaced_resource("charalora.dev", "v1alpha1", "CharacterLora", "characterloras")

ready = httpx.get(os.environ["READY_URL"], timeout=10)
print("An operator answers:", ready.text.strip())
ready.raise_for_status()

listed = Client().list(CharacterLora, namespace=os.environ["WATCHED"], chunk_size=1)
print("The API server knows CharacterLora; there are", "none yet." if next(iter(listed), None) is None else "some.")
