package envelope_test

import (
	"testing"

	"github.com/reeve-pam/reeve/internal/envelope"
	"github.com/reeve-pam/reeve/internal/reeve"
)

func binding() envelope.Binding {
	return envelope.Binding{Cluster: "c1", Site: "site_1", Agent: "agent_1", Job: "job_1", Fence: 7, Connector: "ssh"}
}

// K2 for job secrets: an envelope moved to any other job, fence, agent or slot stays shut.
func TestEnvelopeOpensOnlyForItsBinding_K2(t *testing.T) {
	t.Parallel()
	key, err := envelope.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	ref := envelope.Ref{Slot: "candidate", Secret: "sec_1", Version: 3}
	enc, ct, err := envelope.Seal(key.PublicKey(), binding(), ref, reeve.SecretString("canary"))
	if err != nil {
		t.Fatal(err)
	}
	if s, err := envelope.Open(key, binding(), ref, enc, ct); err != nil || s.Reveal() != "canary" {
		t.Fatalf("own binding: %v", err)
	}
	moved := map[string]func(*envelope.Binding, *envelope.Ref){
		"cluster":   func(b *envelope.Binding, _ *envelope.Ref) { b.Cluster = "c2" },
		"site":      func(b *envelope.Binding, _ *envelope.Ref) { b.Site = "site_2" },
		"agent":     func(b *envelope.Binding, _ *envelope.Ref) { b.Agent = "agent_2" },
		"job":       func(b *envelope.Binding, _ *envelope.Ref) { b.Job = "job_2" },
		"fence":     func(b *envelope.Binding, _ *envelope.Ref) { b.Fence = 8 },
		"connector": func(b *envelope.Binding, _ *envelope.Ref) { b.Connector = "mysql" },
		"slot":      func(_ *envelope.Binding, r *envelope.Ref) { r.Slot = "current" },
		"secret":    func(_ *envelope.Binding, r *envelope.Ref) { r.Secret = "sec_2" },
		"version":   func(_ *envelope.Binding, r *envelope.Ref) { r.Version = 4 },
	}
	for name, move := range moved {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, r := binding(), ref
			move(&b, &r)
			if _, err := envelope.Open(key, b, r, enc, ct); reeve.CodeOf(err) != "envelope_invalid" {
				t.Fatalf("opened, or wrong error: %v", err)
			}
		})
	}
}
