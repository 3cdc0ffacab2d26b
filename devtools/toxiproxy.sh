#!/usr/bin/env bash
# Print the path of toxiproxy's server, the bad network of the storage tests. Built from source where it is absent (half a minute, once per machine).
set -euo pipefail
cd "$(dirname "$0")/toxiproxy"

command -v go >/dev/null || { echo "toxiproxy is built from source: install Go 1.24 or newer." >&2; exit 1; }
bin=${CHARALORA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/charalora}/bin
server=$bin/toxiproxy-server-$(sha256sum go.mod go.sum | sha256sum | cut -c1-16)

if [[ ! -x $server ]]; then
  echo "Building toxiproxy (half a minute, once per machine)." >&2
  mkdir -p "$bin"
  draft=$(mktemp "$server.XXXXXX")
  trap 'rm -f "$draft"' EXIT
  CGO_ENABLED=0 GOFLAGS=-mod=readonly go build -trimpath -ldflags "-s -w" -o "$draft" github.com/Shopify/toxiproxy/v2/cmd/server
  chmod +x "$draft"
  mv "$draft" "$server"
fi
echo "$server"
