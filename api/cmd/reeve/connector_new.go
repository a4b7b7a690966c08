package main

import (
	"embed"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/reeve-pam/reeve/internal/reeve"
	"github.com/reeve-pam/reeve/plugins/sdk/sdktest/toy"
)

// modulePath is the module of the SDK.
const modulePath = "github.com/reeve-pam/reeve"

// The parts of a new connector's module that are not the toy connector itself.
//
//go:embed template
var templates embed.FS

var (
	connectorName = regexp.MustCompile(`^[a-z][a-z0-9]{0,31}$`)
	moduleName    = regexp.MustCompile(`^[A-Za-z0-9._~/-]+$`)
)

func (a *app) connectorNewCmd() *cobra.Command {
	var module, dir, sdkDir string
	cmd := &cobra.Command{
		Use: "new NAME", Short: "Make the module of a new connector, which works and passes the conformance kit",
		Long: `Writes a Go module with a complete connector for an imaginary kind of machine, and a test that runs the
conformance kit on it against such a machine. Replace the machine by your kind of target, piece by piece, and keep
the kit passing.`,
		Example: `  reeve connector new acme --reeve ~/src/reeve
  reeve connector new acme --module example.org/connector-acme --reeve ~/src/reeve`,
		Args: exactArgs("NAME"),
		RunE: func(_ *cobra.Command, args []string) error {
			name := args[0]
			if !connectorName.MatchString(name) {
				return usagef("a connector's name is 1 to 32 of a-z and 0-9, beginning with a letter, not %q", name)
			}
			if module == "" {
				module = "example.org/connector-" + name
			}
			if !moduleName.MatchString(module) {
				return usagef("--module takes a module path, not %q", module)
			}
			if dir == "" {
				dir = "connector-" + name
			}
			if sdkDir == "" && !released() {
				return usagef("this reeve (%s) is no release that a module could be built against; give --reeve with the directory of Reeve's source", reeve.Version)
			}
			files, err := newModule(name, module, sdkDir)
			if err != nil {
				return err
			}
			if err := os.Mkdir(dir, 0o750); err != nil {
				if errors.Is(err, fs.ErrExist) {
					return usagef("%s is there already", dir)
				}
				return usagef("%w", err)
			}
			for file, text := range files {
				if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
					return err
				}
			}
			return a.show(map[string]string{"name": name, "module": module, "directory": dir}, func() {
				a.say("connector %s is in %s; next: cd %s && go mod tidy && go test ./...", name, dir, dir)
			})
		},
	}
	cmd.Flags().StringVar(&module, "module", "", "path of the new module (example.org/connector-NAME)")
	cmd.Flags().StringVar(&dir, "dir", "", "directory to make (connector-NAME)")
	cmd.Flags().StringVar(&sdkDir, "reeve", "", "directory with the source of Reeve, to build against it instead of a release")
	_ = cmd.MarkFlagDirname("reeve")
	return cmd
}

// released reports whether this program is a release, which others can build against.
func released() bool { return strings.HasPrefix(reeve.Version, "v") }

// newModule is the files of a new connector's module.
func newModule(name, module, sdkDir string) (map[string]string, error) {
	files := map[string]string{}
	fill := strings.NewReplacer("NAME", name, "MODULE", module, "REEVE", modulePath)
	err := fs.WalkDir(templates, "template", func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		raw, err := templates.ReadFile(p)
		files[strings.TrimSuffix(path.Base(p), ".txt")] = fill.Replace(string(raw))
		return err
	})
	if err != nil {
		return nil, err
	}
	gomod := "module " + module + "\n\ngo 1.26\n\nrequire " + modulePath + " " + reeve.Version + "\n"
	if sdkDir != "" {
		abs, err := filepath.Abs(sdkDir)
		if err != nil {
			return nil, err
		}
		theirs, err := os.ReadFile(filepath.Join(abs, "go.mod")) //nolint:gosec // what the user named
		if err != nil || !strings.HasPrefix(string(theirs), "module "+modulePath+"\n") {
			return nil, usagef("--reeve: %s is not the source of Reeve; its go.mod would begin with: module %s", sdkDir, modulePath)
		}
		sums, err := readNamed("--reeve", filepath.Join(abs, "go.sum"))
		if err != nil {
			return nil, err
		}
		gomod = "module " + module + "\n\ngo 1.26\n\nrequire " + modulePath + " v0.0.0\n\nreplace " + modulePath + " => " + abs + "\n"
		files["go.sum"] = string(sums)
	}
	files["go.mod"] = gomod
	own := strings.NewReplacer("package toy\n", "package main\n", `"toy"`, `"`+name+`"`, `"toy-`, `"`+name+`-`, "Machines that exist only in tests", "Machines of kind "+name)
	for _, file := range []string{"connector.go", "wire.go"} {
		raw, err := toy.Source.ReadFile(file)
		if err != nil {
			return nil, err
		}
		files[file] = own.Replace(string(raw))
	}
	return files, nil
}
