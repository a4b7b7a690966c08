package pluginhost

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// Open starts the connector at path for somebody who works with it by hand, and returns
// a handle on it and what ends it. What it prints goes to log. It trusts the caller to
// know what it runs.
func Open(ctx context.Context, path string, log *slog.Logger) (*sdk.Client, func(), error) {
	img, err := load(path)
	if err != nil {
		return nil, nil, err
	}
	dir, err := os.MkdirTemp("", "reeve-connector-")
	if err != nil {
		img.close()
		return nil, nil, err
	}
	p, err := start(ctx, nameOf(path), img, dir, log)
	if err != nil {
		img.close()
		_ = os.RemoveAll(dir)
		return nil, nil, err
	}
	return p.client, func() {
		p.kill()
		img.close()
		_ = os.RemoveAll(dir)
	}, nil
}

// nameOf is what the file of a connector says that it is.
func nameOf(path string) string { return strings.TrimPrefix(filepath.Base(path), filePrefix) }
