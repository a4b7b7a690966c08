package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/reeve-pam/reeve/internal/cmdline"
)

// Whatever file a command is given, it says which one is wrong, in what way and what to do.
func TestAFileThatIsNotThereIsToldInPlainWords(t *testing.T) {
	t.Parallel()
	context, dir := face(t), t.TempDir()
	missing, there := filepath.Join(dir, "none"), filepath.Join(dir, "there")
	if err := os.WriteFile(there, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"audit verify BAD", "audit verify THERE --key BAD --checkpoint THERE", "audit verify THERE --key a+b --checkpoint BAD",
		"cluster snapshot verify BAD", "cluster snapshot restore BAD", "connector compare BAD THERE",
		"asset add web01 --site dmz --connector ssh --address x --host-key-file BAD", "asset add web01 --site dmz --connector ssh --address x --asset-ca-file BAD",
		"asset add web01 --site dmz --connector ssh --address x --username root --password-file BAD", "asset trust web01 --host-key-file BAD", "asset trust web01 --asset-ca-file BAD",
		"account provision bob --role r --asset web01 --password-file BAD", "unwrap BAD", "accept --invitation-file BAD", "login ada --password-file BAD",
		"directory add corp --address x --ca-file BAD --bind-dn cn=x --user-base dc=x --password-file THERE", "directory renew corp --ca-file BAD", "directory renew corp --password-file BAD",
		"oidc add corp --issuer https://x --client-id x --user-claim email --authority-file BAD", "audit sink add s --syslog-tls x:1 --sink-ca-file BAD",
		"seal rekey start --key-file BAD", "seal rekey prove rekey_1 --key-file BAD", "seal rekey prove rekey_1 --share-file BAD", "role add --file BAD",
		"whoami --ca-file BAD", "whoami --token-file BAD",
	} {
		for bad, says := range map[string]string{missing: "there is no file " + missing, dir: dir + " is a directory"} {
			args := []string{"--context", context}
			for _, word := range strings.Fields(line) {
				args = append(args, strings.NewReplacer("BAD", bad, "THERE", there).Replace(word))
			}
			got := invoke(t.Context(), "", args...)
			if got.status != cmdline.Usage || !strings.Contains(got.err, says) || !strings.Contains(got.err, "\n  to do: ") || strings.Contains(got.err, "no such file") {
				t.Errorf("%s, with %s: status %d, %s", line, bad, got.status, got.err)
			}
		}
	}
	if _, err := writeNew("FILE", there, strings.NewReader("y")); err == nil || err.Error() != "FILE: "+there+" is there already\n  to do: name a new file" {
		t.Errorf("%v", err)
	}
	if raw, err := os.ReadFile(there); err != nil || string(raw) != "x" {
		t.Errorf("a file was overwritten: %q %v", raw, err)
	}
}

// Files that the user names are opened in one place, so that errors about them are alike.
func TestFilesAreOpenedInOnePlace(t *testing.T) {
	t.Parallel()
	direct := regexp.MustCompile(`\bos\.(Open|OpenFile|ReadFile|Create)\(`)
	allowed := map[string]string{
		"file.go": "the place", "secret.go": "a file or a prompt", "connect.go": "the context file may be missing",
		"connector_new.go": "another question is asked of it", "program.go": "programs: what is wrong with them is told with a code",
	}
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) < 30 {
		t.Fatal(len(files), err)
	}
	for _, name := range files {
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if found := direct.Find(raw); found != nil && !strings.HasSuffix(name, "_test.go") && allowed[name] == "" {
			t.Errorf("%s calls %s…): use readNamed, readText, openNamed or createNamed", name, found)
		}
	}
}
