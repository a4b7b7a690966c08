package link

import (
	"crypto"
	"crypto/hpke"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/reeve-pam/reeve/internal/envelope"
	"github.com/reeve-pam/reeve/internal/reeve"
	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
)

// fileName is the identity file in the data directory, mode 0600.
const fileName = "identity.json"

// hpkeOverlap is how long the HPKE key before a renewal can still be needed: no job
// sealed to it is outstanding for longer.
const hpkeOverlap = 24 * time.Hour

// Identity says who the agent is. It holds no key.
type Identity struct {
	Cluster    string
	Site       reeve.SiteID
	Agent      reeve.AgentID
	Name       string
	Generation uint64
	NotBefore  time.Time
	NotAfter   time.Time
}

// file is the content of the identity file.
type file struct {
	Cluster string        `json:"cluster"`
	Site    reeve.SiteID  `json:"site,omitempty"`
	Agent   reeve.AgentID `json:"agent,omitempty"`
	Name    string        `json:"name,omitempty"`
	CAPEM   string        `json:"ca_pem,omitempty"`
	// Seeds came with the join token and are never forgotten; Addresses are what the
	// controllers said last.
	Seeds     []string `json:"seeds"`
	Addresses []string `json:"addresses,omitempty"`

	Current *credential `json:"current,omitempty"` // known to work
	Next    *credential `json:"next,omitempty"`    // from the last renewal, not used yet
	Pending *keys       `json:"pending,omitempty"` // a certificate was or will be asked for
	Retired []retired   `json:"retired,omitempty"` // HPKE keys of earlier credentials

	parsed map[[sha256.Size]byte]hpke.PrivateKey // by digest: expanding a key takes longer than opening a secret with it
}

// keys are the two private keys of an agent.
type keys struct {
	TLS  []byte `json:"tls_pkcs8"`
	HPKE []byte `json:"hpke"`
}

// credential is a certificate with its keys.
type credential struct {
	keys
	Certificate []byte `json:"certificate_der"`
	Generation  uint64 `json:"generation"`

	parsed *tls.Certificate // once it was needed; each job asks who the agent is
}

type retired struct {
	HPKE  []byte    `json:"hpke"`
	Until time.Time `json:"until"`
}

// readFile loads the identity; nil when there is none. It fails with code
// identity_unreadable.
func readFile(dir string) (*file, error) {
	raw, err := os.ReadFile(filepath.Join(dir, fileName)) //nolint:gosec // the agent's own data directory
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil //nolint:nilnil // no identity yet
	}
	if err != nil {
		return nil, unreadable(dir).Wrap(err)
	}
	return parseFile(dir, raw)
}

func parseFile(dir string, raw []byte) (*file, error) {
	var f file
	if err := json.Unmarshal(raw, &f); err != nil {
		return nil, unreadable(dir) // the cause may quote the file
	}
	if len(f.Seeds) == 0 {
		return nil, unreadable(dir)
	}
	for _, c := range []*credential{f.Current, f.Next} {
		if c == nil {
			continue
		}
		if _, err := c.tls(); err != nil {
			return nil, unreadable(dir)
		}
		if _, err := envelope.ParsePrivateKey(c.HPKE); err != nil {
			return nil, unreadable(dir)
		}
	}
	return &f, nil
}

func unreadable(dir string) *reeve.Error {
	return reeve.Errorf(reeve.Internal, "identity_unreadable", "the agent's identity in %s cannot be read", dir).
		WithFix("restore the data directory, or empty it and enrol the agent again with a new join token")
}

// write replaces the identity file; it is on the disk when write returns.
func (f *file) write(dir string) error {
	raw, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return fmt.Errorf("link: %w", err)
	}
	if err := replaceFile(filepath.Join(dir, fileName), raw); err != nil {
		return reeve.Errorf(reeve.Internal, "identity_unwritable", "the agent's identity in %s cannot be written", dir).
			WithFix("check free space and permissions of the data directory").Wrap(err)
	}
	return nil
}

// replaceFile puts a file with mode 0600 in the place of path in one step.
func replaceFile(path string, data []byte) (err error) {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".tmp-*") // 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(tmp.Name())
		}
	}()
	_, err = tmp.Write(data)
	if err == nil {
		err = tmp.Sync()
	}
	if err := errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (c *credential) tls() (*tls.Certificate, error) {
	if c.parsed != nil {
		return c.parsed, nil
	}
	key, err := x509.ParsePKCS8PrivateKey(c.TLS)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(c.Certificate)
	if err != nil {
		return nil, err
	}
	c.parsed = &tls.Certificate{Certificate: [][]byte{c.Certificate}, PrivateKey: key, Leaf: leaf}
	return c.parsed, nil
}

// take makes what the controller answered the next credential, the keys being those
// that were pending.
func (f *file) take(id *agentv1.Identity) error {
	leaf, err := x509.ParseCertificate(id.GetCertificateDer())
	switch {
	case err != nil:
		return badAnswer("no certificate").Wrap(err)
	case f.Pending == nil:
		return badAnswer("a certificate nobody asked for")
	case f.Agent != "" && (string(f.Agent) != id.GetAgent() || string(f.Site) != id.GetSite()):
		return badAnswer("another agent's identity")
	case f.Cluster != id.GetCluster():
		return badAnswer("the identity of cluster " + id.GetCluster())
	case !x509.NewCertPool().AppendCertsFromPEM(id.GetCaPem()):
		return badAnswer("no CA")
	}
	key, err := x509.ParsePKCS8PrivateKey(f.Pending.TLS)
	if err != nil {
		return fmt.Errorf("link: %w", err)
	}
	if signer, ok := key.(crypto.Signer); !ok || !samePublicKey(leaf.PublicKey, signer.Public()) {
		return badAnswer("a certificate for another key")
	}
	f.Site, f.Agent, f.Name = reeve.SiteID(id.GetSite()), reeve.AgentID(id.GetAgent()), id.GetName()
	f.CAPEM = string(id.GetCaPem())
	f.learn(id.GetAddresses())
	f.Next = &credential{keys: *f.Pending, Certificate: id.GetCertificateDer(), Generation: id.GetGeneration()}
	f.Pending = nil
	return nil
}

func samePublicKey(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}

func badAnswer(what string) *reeve.Error {
	return reeve.Errorf(reeve.Internal, "controller_answer_invalid", "the controller answered with %s", what)
}

// promote makes the next credential, which has just worked, the current one. The HPKE
// key before it opens what is still on its way.
func (f *file) promote(now time.Time) {
	f.Retired = slices.DeleteFunc(f.Retired, func(r retired) bool { return r.Until.Before(now) })
	if f.Current != nil {
		f.Retired = append(f.Retired, retired{HPKE: f.Current.HPKE, Until: now.Add(hpkeOverlap)})
	}
	f.Current, f.Next = f.Next, nil
}

// supersede makes room for the next credential: the one there becomes the current one
// if it works; if not, only its HPKE key is kept, for what may be sealed to it.
func (f *file) supersede(now time.Time, works bool) {
	if works {
		f.promote(now)
		return
	}
	f.Retired = append(f.Retired, retired{HPKE: f.Next.HPKE, Until: now.Add(hpkeOverlap)})
	f.Next = nil
}

// learn takes over addresses a controller told; it reports whether they are new.
func (f *file) learn(addresses []string) bool {
	if len(addresses) == 0 || slices.Equal(addresses, f.Addresses) {
		return false
	}
	f.Addresses = slices.Clone(addresses)
	return true
}

// known returns every address to try: what the controllers said, then the seeds.
func (f *file) known() []string {
	out := slices.Clone(f.Addresses)
	for _, s := range f.Seeds {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// hpkeKeys returns the private keys a job may be sealed to, the likeliest first.
func (f *file) hpkeKeys() ([]hpke.PrivateKey, error) {
	var raw [][]byte
	for _, c := range []*credential{f.Next, f.Current} {
		if c != nil {
			raw = append(raw, c.HPKE)
		}
	}
	for _, r := range slices.Backward(f.Retired) {
		raw = append(raw, r.HPKE)
	}
	if f.Pending != nil { // asked for, and the answer may have been lost
		raw = append(raw, f.Pending.HPKE)
	}
	out := make([]hpke.PrivateKey, len(raw))
	parsed := map[[sha256.Size]byte]hpke.PrivateKey{}
	for i, b := range raw {
		sum := sha256.Sum256(b)
		k, known := f.parsed[sum]
		if !known {
			var err error
			if k, err = envelope.ParsePrivateKey(b); err != nil {
				return nil, fmt.Errorf("link: HPKE key: %w", err)
			}
		}
		out[i], parsed[sum] = k, k
	}
	f.parsed = parsed
	return out, nil
}

func (f *file) pool() (*x509.CertPool, error) {
	p := x509.NewCertPool()
	rest := []byte(f.CAPEM)
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return p, nil
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("link: CA: %w", err)
		}
		p.AddCert(c)
	}
}
