package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
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

// read asks the host about one account, or about all.
func (s *shell) read(ctx context.Context, name string) (*host, error) {
	const what = "read the host's accounts"
	var h host
	failed, err := s.call(ctx, what, scriptRead, map[string]any{"account": name}, sdk.Secret{}, &h)
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
	for i, a := range h.Accounts {
		if a.Name == "" || !strings.HasPrefix(a.SID, "S-1-") || name != "" && (i > 0 || !strings.EqualFold(a.Name, name)) {
			return nil, sdk.Errorf(sdk.ClassProtocol, "%s: the answer is not about what was asked for", what)
		}
	}
	return &h, nil
}

// Inspect implements sdk.Inspector.
func (connector) Inspect(ctx context.Context, t sdk.Target, name string) (sdk.Facts, error) {
	s, err := open(ctx, t, t.Management)
	if err != nil {
		return sdk.Facts{}, err
	}
	defer s.close()
	h, err := s.read(ctx, name)
	if err != nil {
		return sdk.Facts{}, err
	}
	if len(h.Accounts) == 0 {
		return facts(name, nil), nil
	}
	return facts(name, &h.Accounts[0]), nil
}

// Discover implements sdk.Discoverer.
func (connector) Discover(ctx context.Context, t sdk.Target, yield func(sdk.Facts) bool) error {
	s, err := open(ctx, t, t.Management)
	if err != nil {
		return err
	}
	defer s.close()
	h, err := s.read(ctx, "")
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
