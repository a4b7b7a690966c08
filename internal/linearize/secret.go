package linearize

import (
	"context"

	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/vault"
	"github.com/reeve-pam/reeve/internal/reeve"
	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
)

// The pointers of a secret: which version is the candidate, which is current.

type secretOp struct {
	Do      string // add, lease, promote, abandon, read
	Version uint32
	Fence   uint64 // promote: of the proof; lease: a stand-in for the fence nobody was told
}

type secretAnswer struct {
	OK       bool
	Version  uint32 // add
	Fence    uint64 // lease
	Pointers pointers
}

type pointers struct{ Last, Candidate, Current uint32 }

const maxVersions = 24 // of one secret; then another one is used

type secretState struct {
	pointers
	Fences [maxVersions + 1]uint64
}

var secretModel = model(func(s secretState, in secretOp, out *secretAnswer) (bool, secretState) {
	var want secretAnswer
	next := s
	switch in.Do {
	case "read":
		want = secretAnswer{OK: true, Pointers: s.pointers}
	case "add":
		if s.Candidate == 0 && s.Last < maxVersions {
			next.Last++
			next.Candidate = next.Last
			want = secretAnswer{OK: true, Version: next.Last}
		}
	case "lease":
		if in.Version <= s.Last {
			next.Fences[in.Version] = in.Fence
			if out != nil {
				next.Fences[in.Version] = out.Fence
			}
			want = secretAnswer{OK: true, Fence: next.Fences[in.Version]}
		}
	case "abandon":
		if s.Candidate == in.Version {
			next.Candidate = 0
			want.OK = true
		}
	case "promote":
		live := in.Version <= s.Last && in.Fence != 0 && s.Fences[in.Version] == in.Fence
		want.OK = live || s.Current == in.Version
		if live {
			next.Current = in.Version
			if s.Candidate == in.Version {
				next.Candidate = 0
			}
		}
	}
	return out == nil || *out == want, next
})

// proof is a lease a client has seen of a version, live or not.
type proof struct {
	version uint32
	fence   uint64
}

func (c *client) secret(ctx context.Context) {
	id, ok := once(ctx, c, c.key("secret", 6), newSecret)
	if !ok {
		return
	}
	key := "secret/" + string(id)
	n := c.pick()
	known := c.proofs[id]
	in := secretOp{Do: []string{"read", "read", "add", "lease", "promote", "promote", "abandon"}[c.rand.IntN(7)]}
	latest := c.latest[id]
	var p proof
	switch {
	case in.Do == "promote" && len(known) > 0:
		p = known[c.rand.IntN(len(known))]
		if c.rand.IntN(3) > 0 {
			p = known[len(known)-1]
		}
		in.Version, in.Fence = p.version, p.fence
	case in.Do == "promote" || (in.Do == "lease" || in.Do == "abandon") && latest == 0:
		in.Do = "read"
	case in.Do == "lease" || in.Do == "abandon":
		in.Version = latest
	}
	call := c.history.now()
	var out secretAnswer
	var err error
	if in.Do == "read" {
		out.OK = true
		out.Pointers, err = readSecret(ctx, n, id)
		if err == nil && out.Pointers.Last > 0 {
			c.latest[id] = out.Pointers.Last
		}
		c.note(key, secretModel, call, in, out, readVerdict(err))
		return
	}
	if in.Do == "add" && latest >= maxVersions {
		return
	}
	err = n.store.Update(ctx, func(tx *store.Tx) error {
		switch in.Do {
		case "add":
			info, err := n.vault.Get(tx, id)
			if err != nil {
				return err
			}
			if info.Last >= maxVersions {
				return reeve.Errorf(reeve.Conflict, "secret_full", "this secret has had its versions")
			}
			out.Version, err = n.vault.AddCandidate(tx, id, reeve.SecretString("linearizable"))
			return err
		case "lease":
			out.Fence = tx.Revision()
			_, err := n.vault.MarkLeased(tx, id, in.Version, tx.Now())
			return err
		case "abandon":
			return n.vault.Abandon(tx, id, in.Version)
		default:
			proof, err := vault.NewProof("job_x", in.Fence, &agentv1.LoginAttempt{Secret: string(id), Version: in.Version, Verdict: "ok"})
			if err != nil {
				return err
			}
			return n.vault.Promote(tx, proof)
		}
	})
	if out.OK = err == nil; !out.OK {
		out = secretAnswer{}
	}
	v := verdictOf(err)
	if in.Do == "lease" {
		in.Fence = c.unseen()
	}
	if v == answered && in.Do == "add" && out.OK {
		c.latest[id] = out.Version
	}
	if v == answered && in.Do == "lease" && out.OK {
		c.proofs[id] = append(known, proof{in.Version, out.Fence})
	}
	c.note(key, secretModel, call, in, out, v)
}

func newSecret(ctx context.Context, n *parts) (id reeve.SecretID, err error) {
	err = n.store.Update(ctx, func(tx *store.Tx) (err error) {
		id, err = n.vault.Create(tx, vault.Password, "acct_linearize")
		return err
	})
	return id, err
}

func readSecret(ctx context.Context, n *parts, id reeve.SecretID) (p pointers, err error) {
	err = n.view(ctx, func(tx *store.Tx) error {
		info, err := n.vault.Get(tx, id)
		if err == nil {
			p = pointers{info.Last, info.Candidate, info.Current}
		}
		return err
	})
	return p, err
}
