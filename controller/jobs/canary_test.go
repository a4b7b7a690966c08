package jobs

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/store/storetest"
	"github.com/reeve-pam/reeve/controller/vault"
	"github.com/reeve-pam/reeve/internal/reeve"
	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
	connectorv1 "github.com/reeve-pam/reeve/proto/reeve/connector/v1"
)

// recorder keeps every log entry on its way to the replicated log.
type recorder struct {
	store.Cipher
	sealed [][]byte // what the cipher was given: proof that the canaries did pass
}

func (r *recorder) Seal(aad, plain []byte) ([]byte, error) {
	r.sealed = append(r.sealed, bytes.Clone(plain))
	return r.Cipher.Seal(aad, plain)
}

// A6: nothing of a job is readable on disk, neither its secrets nor its work, log or
// result, in any plain encoding.
func TestNothingOfAJobIsReadableOnDisk_A6(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state.db")
	canaries := map[string]string{"secret": "canary-s3cr3t-8d1f", "work": "canary-w0rk-77aa", "log": "canary-l0g-c0de", "result": "canary-r3sult-01"}
	rec := &recorder{Cipher: storetest.NewCipher()}
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, path, storetest.WithCipher(rec))
		r.vault = vault.New(rec.Cipher)
		r.broker.vault = r.vault
		synctest.Wait()
		a := r.agent("site_1").attach(1)
		r.enqueue(Spec{SiteID: "site_1", AccountID: "acct_1", Mutates: true, Secrets: []SecretRef{r.secret(canaries["secret"])},
			Work: &agentv1.Work{Operation: "rotate", AccountUsername: canaries["work"]}})
		w := &logWriter{a: a, job: a.takeOne()}
		w.send(w.chunk(canaries["log"]+"\n", true))
		if _, err := r.broker.Report(t.Context(), a.id, reeve.JobID(w.job.GetId()), w.job.GetFence(),
			&agentv1.Result{Outcome: "not_done", Class: "not_permitted", Message: canaries["result"]}); err != nil {
			t.Fatal(err)
		}
	})
	disk, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	passed := bytes.Join(rec.sealed, nil)
	if bytes.Contains(passed, []byte(canaries["secret"])) {
		t.Error("the secret was in a record; only the vault may seal it")
	}
	for name, c := range canaries {
		if name != "secret" && !bytes.Contains(passed, []byte(c)) {
			t.Errorf("the canary %s was never stored: this test sees nothing", name)
		}
		for encoding, form := range map[string]string{"raw": c, "hex": hex.EncodeToString([]byte(c)), "HEX": strings.ToUpper(hex.EncodeToString([]byte(c))),
			"base64": base64.RawStdEncoding.EncodeToString([]byte(c))[:16], "base64+1": base64.RawStdEncoding.EncodeToString([]byte("." + c))[2:16],
			"base64+2": base64.RawStdEncoding.EncodeToString([]byte(".." + c))[3:16]} {
			if bytes.Contains(disk, []byte(form)) {
				t.Errorf("%s is on disk as %s", name, encoding)
			}
		}
	}
}

func TestWorkThatCarriesASecretIsRefused_A6(t *testing.T) {
	t.Parallel()
	for _, c := range []*connectorv1.Credential{{Password: []byte("canary")}, {PrivateKey: []byte("canary")}} {
		_, err := Spec{SiteID: "site_1", Connector: "ssh", Class: ClassRevoke,
			Work: &agentv1.Work{Operation: "probe", Target: &connectorv1.Target{Management: c}}}.job(epoch, me)
		if reeve.CodeOf(err) != "job_invalid" || strings.Contains(err.Error(), "canary") {
			t.Errorf("enqueue: %v", err)
		}
	}
}
