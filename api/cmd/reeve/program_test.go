//go:build linux

package main

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/reeve-pam/reeve/internal/cmdline"
)

// What is wrong with a connector is said in the same words by every command that takes one.
func TestAFileThatIsNoConnectorIsToldApart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	other, machine := "arm64", "\xb7\x00"
	if runtime.GOARCH == "arm64" {
		other, machine = "amd64", "\x3e\x00"
	}
	elf := "\x7fELF\x02\x01\x01" + strings.Repeat("\x00", 9) + "\x02\x00" + machine + strings.Repeat("\x00", 44)
	for name, text := range map[string]string{"text": "hello", "empty": "", "script": "#!/bin/sh\nexit 3\n", "other": elf, "windows.exe": "MZ\x90\x00", "plain": elf} {
		mode := os.FileMode(0o700)
		if name == "plain" {
			mode = 0o600
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	target := filepath.Join(dir, "target.yaml")
	if err := os.WriteFile(target, []byte("address: 127.0.0.1\nkit: {hooks: {exists: [x], login: [x], create: [x], snapshot: [x]}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]struct {
		status int
		says   string
	}{
		filepath.Join(dir, "missing"):     {cmdline.Usage, "there is no file FILE [connector_missing]\n  to do: build the connector, or correct the path"},
		dir:                               {cmdline.Usage, "FILE is a directory, not a connector [connector_directory]\n  to do: name the program in it"},
		filepath.Join(dir, "plain"):       {cmdline.Usage, "FILE is not executable [connector_not_executable]\n  to do: if it is the right file: chmod +x FILE"},
		filepath.Join(dir, "text"):        {cmdline.Usage, "FILE is no program [connector_no_program]\n  to do: build it for this machine: GOOS=linux GOARCH=" + runtime.GOARCH + " go build"},
		filepath.Join(dir, "empty"):       {cmdline.Usage, "FILE is no program [connector_no_program]\n  to do: build it"},
		filepath.Join(dir, "script"):      {cmdline.Usage, "FILE is a script; a connector is a compiled program for linux/" + runtime.GOARCH + " [connector_wrong_system]\n  to do: build it"},
		filepath.Join(dir, "windows.exe"): {cmdline.Usage, "FILE is a program for Windows; a connector is a compiled program for linux/" + runtime.GOARCH + " [connector_wrong_system]"},
		filepath.Join(dir, "other"):       {cmdline.Usage, "FILE is built for linux/" + other + ", and this machine is linux/" + runtime.GOARCH + " [connector_wrong_system]\n  to do: build it"},
		"/dev/null":                       {cmdline.Usage, "FILE is not a regular file [connector_no_file]"},
		"/bin/true":                       {cmdline.Failed, "the connector true does not start: it ended at once (exit status 0) and did not say that it is a connector [internal]\n  to do: if it is one,"},
		"/bin/false":                      {cmdline.Failed, "the connector false does not start: it ended at once (exit status 1) and did not say that it is a connector [internal]"},
	} {
		for _, args := range [][]string{{"run", file, "describe"}, {"run", file, "probe", "--target", target}, {"selftest", file, "--target", target}, {"verify", file, "--target", target}} {
			got := invoke(t.Context(), "", append([]string{"connector"}, args...)...)
			says := strings.ReplaceAll(want.says, "FILE", file)
			if got.status != want.status || !strings.HasPrefix(got.err, "reeve: "+says) {
				t.Errorf("%s %s: status %d, %q; want %d, %q", args[0], file, got.status, got.err, want.status, says)
			}
		}
	}
}

// What is wrong with a target file is said before anything is asked of the target, and quotes no value.
func TestAWrongTargetFileIsToldInPlainWords(t *testing.T) {
	t.Parallel()
	program, dir := toyConnector(t), t.TempDir()
	const secret = "canary-in-the-wrong-place"
	kit := "\nkit: {hooks: {exists: [x], login: [x], create: [x], snapshot: [x]}}\n"
	for text, says := range map[string]string{
		"":                      "--target: the file is empty",
		"address: a\ncolour: b": `--target: line 2: there is no field "colour"`,
		"address: a\nmanagement: {username: u, password: " + secret + "}": `--target: line 2: there is no field "password"`,
		"address: a\nport: " + secret:                                     "--target: line 2: here belongs a number",
		"address: a\ntrust: [" + secret + "]":                             "--target: line 2: here belongs fields with values",
		"just text":                                                       "--target: line 1: here belongs fields with values",
		"port: 22":                                                        "--target: the file names no address",
		"address: a\noptions: {shel: /bin/sh}" + kit:                      `--target: connector toy has no option "shel"; it has `,
		"address: a\ntrust: {host_key_file: none.pub}" + kit:              "--target: host_key_file: there is no file " + filepath.Join(dir, "none.pub"),
		"address: a\ntrust: {ca_file: none.pem}" + kit:                    "--target: ca_file: there is no file " + filepath.Join(dir, "none.pem"),
		"address: a\nmanagement: {username: u, password_file: no}" + kit:  "Password of u: there is no file " + filepath.Join(dir, "no"),
	} {
		target := filepath.Join(dir, "target.yaml")
		if err := os.WriteFile(target, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{{"run", program, "probe"}, {"selftest", program}, {"verify", program}} {
			got := invoke(t.Context(), "", append(append([]string{"connector"}, args...), "--target", target)...)
			if got.status != cmdline.Usage || !strings.HasPrefix(got.err, "reeve: "+says) {
				t.Errorf("%s, %q: status %d, %q; want %q", args[0], text, got.status, got.err, says)
			}
			if strings.Contains(got.err+got.out, secret) || strings.Contains(got.err, "main.") {
				t.Errorf("%s, %q: %s", args[0], text, got.err)
			}
		}
	}
	got := invoke(t.Context(), "", "connector", "run", program, "probe", "--target", filepath.Join(dir, "none.yaml"))
	if want := "reeve: --target: there is no file " + filepath.Join(dir, "none.yaml") + "\n  to do: correct the path\n"; got.status != cmdline.Usage || got.err != want {
		t.Errorf("status %d, %q, want %q", got.status, got.err, want)
	}
}
