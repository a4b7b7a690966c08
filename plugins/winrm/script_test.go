package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"io/fs"
	"strings"
	"testing"

	emu "github.com/reeve-pam/reeve/internal/emu/winrm"
	"github.com/reeve-pam/reeve/plugins/sdk"
)

var allScripts = []script{
	scriptProbe, scriptRead, scriptDependents, scriptCreate, scriptPassword, scriptEnable, scriptDisable, scriptSessions,
	scriptRemove, scriptRole, scriptRight, scriptRun,
}

// The emulator runs no PowerShell. Whoever changes a script changes its model too, and says so by the new hash.
func TestEveryScriptIsTheOneThatTheEmulatorModels(t *testing.T) {
	t.Parallel()
	for _, s := range allScripts {
		sum := sha256.Sum256([]byte(s.text))
		if got := emu.ScriptOf(hex.EncodeToString(sum[:])); got != s.name {
			t.Errorf("script %s is not modelled; look at the model, then write: %q: %q,", s.name, hex.EncodeToString(sum[:]), s.name)
		}
	}
	files, err := fs.Glob(scriptFiles, "scripts/*.ps1")
	if err != nil || len(files) != len(allScripts)+3 {
		t.Errorf("%d files of scripts, %v; want %d, head, lock and tail", len(files), err, len(allScripts))
	}
}

func TestScriptsFitOnACommandLine(t *testing.T) {
	t.Parallel()
	for _, s := range allScripts {
		if n := len(s.commandLine()); n > maxCommandLine {
			t.Errorf("script %s makes a command line of %d characters, %d too many", s.name, n, n-maxCommandLine)
		}
	}
}

// Where PowerShell is constrained a script can make up no answer, so it has one written out.
func TestEveryScriptAnswersWherePowerShellIsConstrained(t *testing.T) {
	t.Parallel()
	for _, s := range allScripts {
		lines := strings.Split(s.text, "\n")
		answer := strings.Trim(lines[1], "'")
		_, failed, err := scriptAnswer([]byte(answer + "\r\n"))
		if err != nil || failed == nil || failed.explain("x").Class != sdk.ClassNotPermitted || failed.identifier() != languageMode {
			t.Errorf("script %s: %+v, %v", s.name, failed, err)
		}
		if lines[0] != "if ($ExecutionContext.SessionState.LanguageMode -ne 'FullLanguage') {" || lines[2] != "exit 3" {
			t.Errorf("script %s does not begin with it", s.name)
		}
	}
}

// What is no ASCII would depend on code pages, and a here-string ends at the beginning of a line.
func TestScriptsAreASCIIAndBalanced(t *testing.T) {
	t.Parallel()
	for _, s := range allScripts {
		for i, r := range s.text {
			if r > 126 || r < ' ' && r != '\n' {
				t.Errorf("script %s has %q at byte %d", s.name, r, i)
			}
		}
		for _, p := range []string{"()", "{}", "[]"} {
			if strings.Count(s.text, p[:1]) != strings.Count(s.text, p[1:]) {
				t.Errorf("script %s: %s is not balanced", s.name, p)
			}
		}
		if strings.Contains(s.text, "ConvertTo-SecureString") || strings.Contains(s.text, "net user") {
			t.Errorf("script %s shows passwords to logs", s.name)
		}
	}
}

func FuzzScriptAnswer(f *testing.F) {
	line := func(json string) []byte {
		return []byte("reeve " + base64.StdEncoding.EncodeToString([]byte(json)) + "\r\n")
	}
	f.Add(line(`{"result":{}}`))
	f.Add(append([]byte("a banner\r\n"), line(`{"result":{"sid":"S-1-5-21-1"}}`)...))
	f.Add(line(`{"error":{"id":"UserExists,New","type":"x","code":-2146233088}}`))
	f.Add([]byte("reeve !!!\n"))
	f.Add(line(`{}`))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, printed []byte) {
		result, failed, err := scriptAnswer(printed)
		if err == nil && result == nil && failed == nil {
			t.Fatal("neither an answer nor an error")
		}
		if err != nil && (result != nil || failed != nil) {
			t.Fatal("an answer beside an error")
		}
		if failed != nil {
			if e := failed.explain("x"); e.Class == "" || e.Message == "" || len(e.Message) > 200 {
				t.Fatalf("explained as %+v", e)
			}
		}
		if err != nil && len(printed) > 40 && bytes.Contains([]byte(err.Error()), printed) {
			t.Fatal("the error quotes the host")
		}
	})
}
