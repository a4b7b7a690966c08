package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// account is what the host says about one.
type account struct {
	Name        string  `json:"name"`
	SID         string  `json:"sid"`
	Enabled     bool    `json:"enabled"`
	Expires     int64   `json:"expires"` // seconds since 1970; 0: never
	Changed     int64   `json:"changed"`
	Logon       int64   `json:"logon"`
	LockedOut   bool    `json:"lockedout"`
	MustChange  bool    `json:"mustchange"`
	Description string  `json:"description"`
	FullName    string  `json:"fullname"`
	Groups      []group `json:"groups"`
	Sessions    int     `json:"sessions"`
}

type group struct {
	Name string `json:"name"`
	SID  string `json:"sid"`
}

// host is what the script "read" answers.
type host struct {
	Me       string    `json:"me"` // SID of the management account
	DC       bool      `json:"dc"`
	Now      int64     `json:"now"` // by the host's clock
	Accounts []account `json:"accounts"`
}

// maxDescription is what the description of a local account holds.
const maxDescription = 48

// mark is what the description of an account of ours is. It is set by the very call that makes the account.
func mark(accountID string) string {
	m := "reeve " + accountID
	if len(m) > maxDescription {
		sum := sha256.Sum256([]byte(accountID))
		m = "reeve sha256 " + hex.EncodeToString(sum[:16])
	}
	return m
}

// temporary is the name that an account has while it is made. Nobody else gives it, so an account that has it is ours, even without a mark.
func temporary(accountID string) string {
	sum := sha256.Sum256([]byte(accountID))
	return "reeve-" + hex.EncodeToString(sum[:7]) // as long as a name may be
}

// lockOf is what the scripts that work on an account have for a lock, whatever the letters' case.
func lockOf(account string) string {
	sum := sha256.Sum256([]byte(strings.ToLower(account)))
	return "reeve-" + hex.EncodeToString(sum[:8]) + ".lock"
}

// builtIn tells accounts that Windows makes and needs: Administrator, Guest, DefaultAccount, WDAGUtilityAccount.
func (a *account) builtIn() bool {
	rid := a.SID[strings.LastIndexByte(a.SID, '-')+1:]
	return slices.Contains([]string{"500", "501", "503", "504"}, rid)
}

// facts are those of an account, or of its absence.
func facts(name string, a *account) sdk.Facts {
	f := sdk.Facts{Account: name, ReadAt: time.Now().UTC()}
	if a == nil {
		return f
	}
	f.Exists = true
	f.Identity = a.SID
	f.Locked = !a.Enabled
	f.HasPassword = a.Changed != 0 || a.MustChange
	f.ExpiresAt, f.PasswordChangedAt = instant(a.Expires), instant(a.Changed)
	f.Sessions = a.Sessions
	for _, g := range a.Groups {
		f.Groups = append(f.Groups, g.Name)
		f.Grants = append(f.Grants, g.SID)
	}
	slices.Sort(f.Groups)
	slices.Sort(f.Grants)
	f.Attributes = map[string]string{
		"description": a.Description,
		"full_name":   a.FullName,
		"locked_out":  strconv.FormatBool(a.LockedOut),
		"must_change": strconv.FormatBool(a.MustChange),
	}
	if a.Logon != 0 {
		f.Attributes["last_logon"] = instant(a.Logon).Format(time.RFC3339)
	}
	return f
}

func instant(seconds int64) time.Time {
	if seconds == 0 {
		return time.Time{}
	}
	return time.Unix(seconds, 0).UTC()
}

func seconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

// read asks the host about one account, or about all. More arguments may be given, and names of other accounts among them.
func (s *shell) read(ctx context.Context, name string, more map[string]any) (*host, error) {
	const what = "read the host's accounts"
	args := map[string]any{"account": name}
	maps.Copy(args, more)
	var h host
	failed, err := s.call(ctx, what, scriptRead, args, sdk.Secret{}, &h)
	if err != nil {
		return nil, err
	}
	if failed != nil {
		return nil, failed.explain(what)
	}
	if h.DC {
		return nil, sdk.Errorf(sdk.ClassUnsupported, "the host is a domain controller: it has no local accounts").
			WithFix("make it an asset of the connector ad")
	}
	seen := map[string]bool{}
	for _, a := range h.Accounts {
		asked := name == "" || strings.EqualFold(a.Name, name) || a.Name != "" && a.Name == args["temporary"]
		if a.Name == "" || !strings.HasPrefix(a.SID, "S-1-") || !asked || seen[strings.ToLower(a.Name)] {
			return nil, sdk.Errorf(sdk.ClassProtocol, "%s: the answer is not about what was asked for", what).WithFix("%s", strangeFix)
		}
		seen[strings.ToLower(a.Name)] = true
	}
	return &h, nil
}

// named finds an account in an answer.
func (h *host) named(name string) *account {
	for i := range h.Accounts {
		if strings.EqualFold(h.Accounts[i].Name, name) {
			return &h.Accounts[i]
		}
	}
	return nil
}

// Inspect implements sdk.Inspector.
func (connector) Inspect(ctx context.Context, t sdk.Target, name string) (sdk.Facts, error) {
	s, err := open(ctx, t, t.Management)
	if err != nil {
		return sdk.Facts{}, err
	}
	defer s.close()
	h, err := s.read(ctx, name, nil)
	if err != nil {
		return sdk.Facts{}, err
	}
	return facts(name, h.named(name)), nil
}

// Discover implements sdk.Discoverer.
func (connector) Discover(ctx context.Context, t sdk.Target, yield func(sdk.Facts) bool) error {
	s, err := open(ctx, t, t.Management)
	if err != nil {
		return err
	}
	defer s.close()
	h, err := s.read(ctx, "", nil)
	if err != nil {
		return err
	}
	for i := range h.Accounts {
		if !yield(facts(h.Accounts[i].Name, &h.Accounts[i])) {
			break
		}
	}
	return nil
}
