package main

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"strings"
	"unicode/utf16"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// Scripts are constant. What they work on comes over standard input, in two lines: the arguments as JSON and the secret, each in
// base64. They answer with one line, "reeve " and JSON in base64: ASCII both ways, so that no code page matters.
//
//go:embed scripts/*.ps1
var scriptFiles embed.FS

// script is one of them, ready to be sent.
type script struct {
	name    string
	text    string
	changes bool // running it may change the host
}

// maxCommandLine is what cmd.exe, through which WinRM starts programs, takes.
// https://learn.microsoft.com/troubleshoot/windows-client/shell-experience/command-line-string-limitation
const maxCommandLine = 8191

var (
	scriptProbe      = load("probe", false, "")
	scriptRead       = load("read", false, lock)
	scriptDependents = load("dependents", false, "")
	scriptCreate     = load("create", true, lock)
	scriptPassword   = load("password", true, lock)
	scriptEnable     = load("enable", true, lock)
	scriptDisable    = load("disable", true, lock)
	scriptSessions   = load("sessions", true, lock)
	scriptRemove     = load("remove", true, lock)
	scriptRole       = load("role", true, lock)
	scriptRight      = load("right", true, lock)
	scriptRun        = load("run", true, "")
)

// lock is the part of a script that waits until no other one works on the account.
const lock = "lock"

func load(name string, changes bool, before string) script {
	var text strings.Builder
	for _, part := range []string{"head", before, name, "tail"} {
		if part == "" {
			continue
		}
		file, err := scriptFiles.ReadFile("scripts/" + part + ".ps1")
		if err != nil {
			panic(err) // it is not part of the program
		}
		for line := range strings.Lines(string(file)) {
			if line = strings.TrimSpace(line); line != "" && line[0] != '#' { // every byte counts twice and more
				text.WriteString(line + "\n")
			}
		}
	}
	return script{name: name, text: text.String(), changes: changes}
}

// commandLine starts the script. powershell.exe takes it as base64 of UTF-16.
func (s script) commandLine() string {
	units := utf16.Encode([]rune(s.text))
	raw := make([]byte, 0, 2*len(units))
	for _, u := range units {
		raw = binary.LittleEndian.AppendUint16(raw, u)
	}
	return "powershell.exe -NoProfile -NonInteractive -ExecutionPolicy Bypass -EncodedCommand " + base64.StdEncoding.EncodeToString(raw)
}

// id tells this version of the script from others; plans hold it, so a plan is for the scripts it was approved with.
func (s script) id() string {
	sum := sha256.Sum256([]byte(s.text))
	return hex.EncodeToString(sum[:6])
}

// input is what the script reads.
func input(arguments []byte, secret sdk.Secret) []byte {
	line := func(b []byte) []byte { return append(base64.StdEncoding.AppendEncode(nil, b), '\n') }
	return append(line(arguments), line(secret.Bytes())...)
}

// scriptError is what a script says about its failure.
type scriptError struct {
	ID   string `json:"id"`
	Type string `json:"type"`
	Code int64  `json:"code"`
}

// answerPrefix begins the line that is a script's answer.
const answerPrefix = "reeve "

// scriptAnswer reads a script's answer from what it printed. result is nil if it failed.
func scriptAnswer(printed []byte) (result json.RawMessage, failed *scriptError, err error) {
	bad := sdk.Errorf(sdk.ClassProtocol, "PowerShell gave no answer that is understood").
		WithFix("look at the host's PowerShell: version 5.1, FullLanguage mode, nothing that stops -EncodedCommand")
	for line := range bytes.Lines(printed) {
		rest, ok := bytes.CutPrefix(line, []byte(answerPrefix))
		if !ok {
			continue
		}
		raw, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(rest)))
		if err != nil {
			return nil, nil, bad.Wrap(err)
		}
		var a struct {
			Error  *scriptError    `json:"error"`
			Result json.RawMessage `json:"result"`
		}
		if err := json.Unmarshal(raw, &a); err != nil {
			return nil, nil, bad.Wrap(err)
		}
		if a.Error == nil && len(a.Result) == 0 {
			return nil, nil, bad
		}
		return a.Result, a.Error, nil
	}
	return nil, nil, bad
}
