//go:build tools

// Package toxiproxy pins the proxy that the storage tests put a bad network into.
package toxiproxy

import _ "github.com/Shopify/toxiproxy/v2/cmd/server"
