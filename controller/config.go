package controller

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/reeve-pam/reeve/controller/cluster"
	"github.com/reeve-pam/reeve/controller/jobs"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// Config says where a controller keeps its data, where it listens and how it is
// sealed. ReadConfig reads it from YAML; every field but those named optional is
// required.
type Config struct {
	Name    string           `yaml:"name"`     // of this node, unique in the cluster
	DataDir string           `yaml:"data_dir"` // made if missing; mode 0700
	Raft    Listener         `yaml:"raft"`     // controllers talk to each other
	API     Listener         `yaml:"api"`      // people and programs
	Agents  Listener         `yaml:"agents"`   // agents dial in
	KeyFile string           `yaml:"key_file"` // optional: unseal with the key in this file
	Timing  cluster.Timeouts `yaml:"timing"`   // optional: "lan" elects faster; the same on all nodes
	Logger  *slog.Logger     `yaml:"-"`        // optional: slog.Default

	// For tests of whole clusters, which would wait long otherwise; zero: what is right
	// for everything else. The same on all nodes.
	Terms     jobs.Terms    `yaml:"-"`
	StableFor time.Duration `yaml:"-"` // see cluster.Config
	Election  time.Duration `yaml:"-"` // likewise

	// For tests of clocks that jump; see store.Config. Nil: this host's.
	Clock  func() time.Time     `yaml:"-"`
	Steady func() time.Duration `yaml:"-"`
}

// Listener is an address to listen on and the one others dial.
type Listener struct {
	Bind      string `yaml:"bind"`      // host:port
	Advertise string `yaml:"advertise"` // optional: host:port others dial, if not Bind
}

// Address is what others dial.
func (l Listener) Address() string {
	if l.Advertise != "" {
		return l.Advertise
	}
	return l.Bind
}

// ReadConfig reads a configuration file. Unknown keys are errors: a misspelt one
// would otherwise silently do nothing.
func ReadConfig(path string) (Config, error) {
	var cfg Config
	raw, err := os.ReadFile(path)
	if err != nil {
		return cfg, reeve.Errorf(reeve.Invalid, "config_unreadable", "the configuration %s cannot be read", path).Wrap(err)
	}
	dec := yaml.NewDecoder(bytes.NewReader(raw))
	dec.KnownFields(true)
	if err := dec.Decode(&cfg); err != nil && !errors.Is(err, io.EOF) {
		return cfg, reeve.Errorf(reeve.Invalid, "config_malformed", "the configuration %s is wrong: %v", path, err).
			WithFix("see docs/operators.md for every key")
	}
	return cfg, cfg.complete()
}

var nameRule = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$`)

// portRule is for port numbers; names of services are looked up differently everywhere.
var portRule = regexp.MustCompile(`^[0-9]{1,5}$`)

func (c *Config) complete() error {
	invalid := func(field, format string, args ...any) error {
		return reeve.Errorf(reeve.Invalid, "config_invalid", format, args...).WithField("/" + field)
	}
	if !nameRule.MatchString(c.Name) {
		return invalid("name", "name %q is not 1 to 63 of a-z, 0-9, '.', '_' and '-'", c.Name)
	}
	if c.DataDir == "" {
		return invalid("data_dir", "no data_dir is given")
	}
	for _, l := range []struct {
		name string
		Listener
	}{{"raft", c.Raft}, {"api", c.API}, {"agents", c.Agents}} {
		if _, port, err := net.SplitHostPort(l.Bind); err != nil || !portRule.MatchString(port) {
			return invalid(l.name+"/bind", "%s.bind %q is not host:port", l.name, l.Bind)
		}
		host, port, err := net.SplitHostPort(l.Address())
		if ip := net.ParseIP(host); err != nil || host == "" || !portRule.MatchString(port) || port == "0" || (ip != nil && ip.IsUnspecified()) {
			return invalid(l.name+"/advertise", "others cannot dial %s address %q", l.name, l.Address())
		}
	}
	if c.Timing != cluster.TimeoutsDefault && c.Timing != cluster.TimeoutsLAN {
		return invalid("timing", "timing %q is unknown: use \"lan\" or leave it out", c.Timing)
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return nil
}

func (c *Config) statePath() string    { return filepath.Join(c.DataDir, "state.db") }
func (c *Config) auditFiles() string   { return filepath.Join(c.DataDir, "audit-files") }
func (c *Config) identityPath() string { return filepath.Join(c.DataDir, "identity") }

// prepare makes the data directory, for this user only.
func (c *Config) prepare() error {
	if err := os.MkdirAll(c.DataDir, 0o700); err != nil {
		return fmt.Errorf("controller: data directory: %w", err)
	}
	return os.Chmod(c.DataDir, 0o700) //nolint:gosec // a directory needs its x bit
}
