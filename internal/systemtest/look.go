package systemtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/jobs"
	"github.com/reeve-pam/reeve/controller/lifecycle"
	"github.com/reeve-pam/reeve/controller/seal"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/vault"
	"github.com/reeve-pam/reeve/internal/auditchain"
	"github.com/reeve-pam/reeve/internal/backup"
	"github.com/reeve-pam/reeve/internal/reeve"
	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
)

// Secret is one version of an account's password, in the clear.
type Secret struct {
	vault.Version
	Value string
}

// Kept is all the vault keeps of one account, and the jobs that were done on it.
type Kept struct {
	Account *lifecycle.Account
	Info    *vault.Info
	Secrets []Secret // oldest first
	Jobs    []*jobs.Job
	Exposed []*jobs.Exposure
}

// Kept looks into the vault from outside: it takes a snapshot of the cluster by the API,
// restores it beside it, and opens that with the cluster's seal.
func (c *Cluster) Kept(account string) Kept {
	c.t.Helper()
	raw := Call[[]byte](c, func(api *client.Client) (*http.Response, error) { return api.SaveSnapshot(c.t.Context()) })
	k, err := c.open(raw, account)
	if err != nil {
		c.t.Fatal(err)
	}
	return k
}

func (c *Cluster) open(snapshot []byte, account string) (k Kept, err error) {
	dir, err := os.MkdirTemp("", "reeve-look-")
	if err != nil {
		return k, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	sealer := seal.NewManager(c.Log.logger("node", "look"))
	st, err := store.Open(store.Config{Path: filepath.Join(dir, "state.db"), Cipher: sealer, Logger: c.Log.logger("node", "look")})
	if err != nil {
		return k, err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	_, stream, err := backup.Open(bytes.NewReader(snapshot))
	if err != nil {
		return k, err
	}
	if err := st.Restore(stream); err != nil {
		return k, err
	}
	if err := c.unseal(st, sealer); err != nil {
		return k, err
	}
	return k, st.View(context.Background(), func(tx *store.Tx) error { return k.read(tx, vault.New(sealer), account) })
}

// unseal lets a state be read with the cluster's seal.
func (c *Cluster) unseal(st *store.Store, sealer *seal.Manager) error {
	if err := st.View(context.Background(), func(tx *store.Tx) error {
		s, err := seal.LoadState(tx)
		if err != nil {
			return err
		}
		return sealer.Load(s)
	}); err != nil {
		return err
	}
	if !c.opts.Shamir {
		return sealer.UnsealWithKeyFile(c.nodes[0].cfg.KeyFile)
	}
	for _, share := range c.Shares[:2] {
		if _, err := sealer.Unseal(share); err != nil {
			return err
		}
	}
	return nil
}

// Trail is the end of the audit trail in the state of a node that is stopped.
type Trail struct {
	Index  uint64 // of the last entry it has applied
	Head   auditchain.Head
	Signed audit.Checkpoint // the newest
}

// Trail looks into the state of a stopped node.
func (c *Cluster) Trail(node int) (end Trail) {
	c.t.Helper()
	sealer := seal.NewManager(c.Log.logger("node", "look"))
	st, err := store.Open(store.Config{Path: filepath.Join(c.Config(node).DataDir, "state.db"), Cipher: sealer, Logger: c.Log.logger("node", "look")})
	if err != nil {
		c.t.Fatal(err)
	}
	defer func() { _ = st.Close() }()
	if end.Index, _, err = st.StateHash(); err == nil {
		err = c.unseal(st, sealer)
	}
	if err == nil {
		err = st.View(context.Background(), func(tx *store.Tx) (err error) {
			if end.Head, err = audit.Head(tx); err != nil {
				return err
			}
			signed, err := audit.NewestCheckpoint(tx)
			if err == nil && signed != nil {
				end.Signed = *signed
			}
			return err
		})
	}
	if err != nil {
		c.t.Fatal(err)
	}
	return end
}

func (k *Kept) read(tx *store.Tx, v *vault.Vault, account string) (err error) {
	if k.Account, err = lifecycle.Get(tx, account); err != nil {
		return err
	}
	if k.Info, err = v.Get(tx, k.Account.SecretID); err != nil {
		return err
	}
	versions, err := v.Versions(tx, k.Account.SecretID)
	if err != nil {
		return err
	}
	for _, version := range versions {
		_, value, err := v.Open(tx, k.Account.SecretID, version.Number)
		if err != nil {
			return err
		}
		k.Secrets = append(k.Secrets, Secret{Version: version, Value: value.Reveal()})
	}
	for e, err := range jobs.ExposuresOf(tx, k.Account.SecretID) {
		if err != nil {
			return err
		}
		k.Exposed = append(k.Exposed, e)
	}
	k.Jobs, _, err = jobs.List(tx, jobs.Filter{Account: k.Account.ID}, "", 1000)
	return err
}

// Works tries the versions on the target with a plain client and returns the numbers of
// those that open the account.
func (k Kept) Works(ctx context.Context, g *Target) (numbers []uint32) {
	for _, s := range k.Secrets {
		if g.Login(ctx, k.Account.Name, s.Value) == nil {
			numbers = append(numbers, s.Number)
		}
	}
	return numbers
}

// Check holds what the vault keeps against the target, and says what is broken of R1
// (some kept version opens the account), R2 (the current one does, or the account is
// flagged, or a job is under way), R3 (one candidate at most) and R4 (nothing was promoted without a login seen
// under a lease).
func (k Kept) Check(ctx context.Context, g *Target) error {
	var errs []error
	broken := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	works := k.Works(ctx, g)
	if len(works) == 0 {
		broken("R1: none of the %d kept versions opens %s on %s", len(k.Secrets), k.Account.Name, g.Asset)
	}
	flagged := k.Account.Sync != lifecycle.InSync ||
		slices.ContainsFunc(k.Jobs, func(j *jobs.Job) bool { return !j.State.Final() }) // not quiescent
	if !slices.Contains(works, k.Info.Current) && !flagged {
		broken("R2: current version %d does not open the account, %v do, and it says %s", k.Info.Current, works, k.Account.Sync)
	}
	candidates := 0
	for _, s := range k.Secrets {
		if s.State == vault.Candidate {
			candidates++
		}
		promoted := s.State == vault.Current || s.State == vault.Retired
		if promoted && !k.proven(s.Number) {
			broken("R4: version %d is %s, and no job saw a login with it", s.Number, s.State)
		}
	}
	if candidates > 1 {
		broken("R3: %d candidates", candidates)
	}
	return errors.Join(errs...)
}

// proven reports whether the report of a job, taken under a lease for which the version
// was given out, shows a login with it.
func (k Kept) proven(version uint32) bool {
	for _, j := range k.Jobs {
		var res agentv1.Result
		if proto.Unmarshal(j.Result, &res) != nil {
			continue
		}
		for _, d := range j.Deliveries {
			exposed := slices.ContainsFunc(k.Exposed, func(e *jobs.Exposure) bool {
				return e.Job == j.ID && e.Fence == d.Fence && e.Agent == d.Agent && e.Version == version
			})
			seen := slices.ContainsFunc(res.GetObservation().GetLogins(), func(l *agentv1.LoginAttempt) bool {
				return l.GetVerdict() == "ok" && l.GetVersion() == version && reeve.SecretID(l.GetSecret()) == k.Info.ID
			})
			if exposed && seen && d.Ending == jobs.EndReported {
				return true
			}
		}
	}
	return false
}
