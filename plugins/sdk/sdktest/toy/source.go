package toy

import "embed"

// Source holds the source of the connector, connector.go and wire.go: authors begin
// with a copy of it.
//
//go:embed connector.go wire.go
var Source embed.FS
