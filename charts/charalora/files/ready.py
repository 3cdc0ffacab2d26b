# ruff: noqa: INP001, S310, T201
"""What `helm test` runs: an operator says that it is ready, and the API server lists the resource to it."""

import os
from urllib.request import urlopen

from lightkube import Client
from lightkube.generic_resource import create_namespaced_resource

CharacterLora = create_namespaced_resource("charalora.dev", "v1alpha1", "CharacterLora", "characterloras")

with urlopen(os.environ["READY_URL"], timeout=10) as answer:  # raises for any status but success
    print("An operator is ready:", answer.read().decode().strip())
listed = Client().list(CharacterLora, namespace=os.environ["WATCHED"], chunk_size=1)
print("The API server knows CharacterLora; there are", "none yet." if next(iter(listed), None) is None else "some.")
