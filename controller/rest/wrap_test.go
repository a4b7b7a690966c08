//nolint:bodyclose // fleet.Answer closes every one
package rest_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/internal/fleet"
	"github.com/reeve-pam/reeve/internal/systemtest"
	"github.com/reeve-pam/reeve/internal/testlab"
)

// program is a service account that may reveal passwords in a site, and its token.
type program struct {
	c          *systemtest.Cluster
	token      client.CreatedToken
	assignment string
}

func newProgram(t *testing.T, c *systemtest.Cluster, site string) *program {
	t.Helper()
	ctx, service, user := t.Context(), true, "program"
	systemtest.Call[client.User](c, func(api *client.Client) (*http.Response, error) {
		return api.AddUser(ctx, nil, client.UserRequest{Name: user, Service: &service})
	})
	systemtest.Call[client.PAMRole](c, func(api *client.Client) (*http.Response, error) {
		return api.AddPAMRole(ctx, nil, client.PAMRoleRequest{Name: "revealer", Privileges: []string{"lifecycle.view", "vault.reveal"}})
	})
	p := &program{c: c}
	p.assignment = systemtest.Call[client.Assignment](c, func(api *client.Client) (*http.Response, error) {
		return api.AddAssignment(ctx, nil, client.AssignmentRequest{Role: "revealer", User: &user, Scope: inSites(site)})
	}).Id
	limits := []string{"vault.reveal"}
	p.token = systemtest.Call[client.CreatedToken](c, func(api *client.Client) (*http.Response, error) {
		return api.CreateToken(ctx, client.TokenRequest{Name: "wrap", Principal: &user, Privileges: &limits})
	})
	return p
}

// wrap makes a wrapping token for an account.
func (p *program) wrap(t *testing.T, account string, in client.WrapRequest) string {
	t.Helper()
	in.Reason = "to test"
	for { // a node that has just lost its leader knows none for a moment
		made, err := fleet.Answer[client.CreatedWrap](p.c.Stranger(0, p.token.Secret).WrapSecret(t.Context(), account, in))
		if err == nil {
			return made.Secret
		}
		if !undecided(err) {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// unwrap opens at a node until the cluster has decided about it.
func unwrap(ctx context.Context, c *systemtest.Cluster, node int, token string) (client.RevealedSecret, error) {
	for {
		got, err := fleet.Answer[client.RevealedSecret](c.Stranger(node, "").Unwrap(ctx, client.UnwrapRequest{Token: &token}))
		if err == nil || !undecided(err) {
			return got, err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// undecided is an answer of a cluster between two leaders; its outcome may be unknown.
func undecided(err error) bool {
	p, ok := errors.AsType[*fleet.ErrProblem](err)
	return ok && slices.Contains([]int{502, 503, 504}, p.Status) && p.Code != "sealed"
}

func code(err error, want string) bool {
	return want == "" && err == nil || err != nil && want != "" && strings.Contains(err.Error(), want)
}

// Whatever happens to the leader meanwhile, and through whichever node they come, of many
// who open a wrap at most one gets the password, and once it is open nobody else does.
func TestAWrapIsOpenedOnceWhileTheLeaderChanges(t *testing.T) {
	t.Parallel()
	c := systemtest.Start(t, systemtest.Options{Nodes: 3})
	database := testlab.MariaDB(t, testlab.MariaDBOptions{})
	c.Agent("inside", systemtest.AgentOptions{})
	account := c.Provision("of_inside", c.AddAsset("inside", "db", systemtest.DatabaseTarget(database)))
	p := newProgram(t, c, "inside")
	password := c.Reveal(account.Id)
	ctx := t.Context()
	var token string
	for range 3 {
		token = p.wrap(t, account.Id, client.WrapRequest{})
		var mu sync.Mutex
		var all sync.WaitGroup
		won := 0
		for node := range 3 {
			for range 2 {
				all.Go(func() {
					got, err := unwrap(ctx, c, node, token)
					mu.Lock()
					defer mu.Unlock()
					switch {
					case err == nil && got.Password == password:
						won++
					case !code(err, "wrap_used"):
						t.Errorf("at node %d: %v", node, err)
					}
				})
			}
		}
		all.Go(func() {
			_, _ = systemtest.Try[struct{}](c, func(api *client.Client) (*http.Response, error) {
				return api.TransferLeadership(ctx, client.TransferRequest{})
			})
		})
		all.Wait()
		if won > 1 {
			t.Fatalf("%d got the password", won)
		}
	}
	dead := c.Leader()
	c.Kill(dead)
	c.Leader()
	if _, err := unwrap(ctx, c, (dead+1)%3, token); !code(err, "wrap_used") {
		t.Errorf("after the leader died: %v", err)
	}
	used := records(t, c, "wrap.open")
	if reveals := records(t, c, "secret.reveal"); len(used) != 3 || len(reveals) != 4 {
		t.Errorf("on record: %d opened, %d reveals", len(used), len(reveals))
	}
	if found := c.Scan([]byte(token), []byte(password)); len(found) > 0 {
		t.Errorf("a secret is in %v", found)
	}
}

// A wrap is worth what its asker may do when it is opened, and where.
func TestAWrapNeedsWhatARevealNeeds(t *testing.T) {
	t.Parallel()
	c := systemtest.Start(t, systemtest.Options{Shamir: true})
	ctx := t.Context()
	database := testlab.MariaDB(t, testlab.MariaDBOptions{})
	c.Agent("inside", systemtest.AgentOptions{})
	account := c.Provision("of_inside", c.AddAsset("inside", "db", systemtest.DatabaseTarget(database)))
	p := newProgram(t, c, "inside")
	open := func(token string) error { _, err := unwrap(ctx, c, 0, token); return err }
	try := func(bearer string) error {
		_, err := fleet.Answer[client.CreatedWrap](c.Stranger(0, bearer).WrapSecret(ctx, account.Id, client.WrapRequest{Reason: "curious"}))
		return err
	}
	wide := systemtest.Call[client.CreatedToken](c, func(api *client.Client) (*http.Response, error) {
		return api.CreateToken(ctx, client.TokenRequest{Name: "scoped", Scope: &client.Scope{Tags: &map[string]string{"team": "other"}}})
	})
	if err := try(wide.Secret); !code(err, "account_not_found") {
		t.Errorf("root's token for another place: %v", err)
	}
	for _, site := range []string{"inside", "nowhere"} {
		_, err := fleet.Answer[client.CreatedToken](c.Stranger(0, p.token.Secret).CreateToken(ctx, client.TokenRequest{Name: "x", Scope: new(inSites(site))}))
		if !code(err, "site_not_found") {
			t.Errorf("a token for site %s, which its maker does not see: %v", site, err)
		}
	}
	systemtest.Call[client.AssetGroup](c, func(api *client.Client) (*http.Response, error) {
		return api.CreateAssetGroup(ctx, nil, client.AssetGroupRequest{Name: "databases"})
	})
	for _, group := range []string{"databases", "nowhere"} {
		_, err := fleet.Answer[client.CreatedToken](c.Stranger(0, p.token.Secret).CreateToken(ctx, client.TokenRequest{Name: "x", Scope: &client.Scope{AssetGroups: &[]string{group}}}))
		if !code(err, "asset_group_not_found") {
			t.Errorf("a token for asset group %s, which its maker does not see: %v", group, err)
		}
	}
	elsewhere, here := p.wrap(t, account.Id, client.WrapRequest{Networks: &[]string{"192.0.2.0/24"}}), p.wrap(t, account.Id, client.WrapRequest{Networks: &[]string{"127.0.0.0/8"}})
	if err := open(elsewhere); !code(err, "wrap_elsewhere") {
		t.Errorf("from elsewhere: %v", err)
	}
	if err := open(here); err != nil {
		t.Errorf("from here: %v", err)
	}

	before := p.wrap(t, account.Id, client.WrapRequest{})
	old := c.Reveal(account.Id)
	c.Act(account.Id, "rotate", "now")
	c.AwaitSync(account.Id)
	if got, err := unwrap(ctx, c, 0, before); err != nil || got.Password == old || got.Password != c.Reveal(account.Id) {
		t.Errorf("after a rotation the password that counts is revealed: version %d, %v", got.Version, err)
	}

	lost, revoked, sealed := p.wrap(t, account.Id, client.WrapRequest{}), p.wrap(t, account.Id, client.WrapRequest{}), ""
	systemtest.Call[struct{}](c, func(api *client.Client) (*http.Response, error) { return api.DeleteAssignment(ctx, p.assignment, nil) })
	if err := open(lost); !code(err, "wrap_void") {
		t.Errorf("its asker lost the privilege: %v", err)
	}
	user := "program"
	systemtest.Call[client.Assignment](c, func(api *client.Client) (*http.Response, error) {
		return api.AddAssignment(ctx, nil, client.AssignmentRequest{Role: "revealer", User: &user, Scope: inSites("inside")})
	})
	if err := open(lost); err != nil {
		t.Errorf("and got it back: %v", err)
	}
	sealed = p.wrap(t, account.Id, client.WrapRequest{})
	systemtest.Call[client.Status](c, func(api *client.Client) (*http.Response, error) { return api.SealNode(ctx) })
	if _, err := fleet.Answer[client.RevealedSecret](c.Stranger(0, "").Unwrap(ctx, client.UnwrapRequest{Token: &sealed})); !code(err, "sealed") {
		t.Errorf("sealed: %v", err)
	}
	c.Unseal(0)
	c.Leader()
	if err := open(sealed); err != nil {
		t.Errorf("unsealed: %v", err)
	}
	systemtest.Call[struct{}](c, func(api *client.Client) (*http.Response, error) { return api.RevokeToken(ctx, p.token.Token.Id, nil) })
	if err := open(revoked); !code(err, "wrap_void") {
		t.Errorf("its asker's token was revoked: %v", err)
	}
	refused := map[string]int{}
	for _, r := range records(t, c, "wrap.refuse") {
		refused[(*r.Details)["code"]]++
	}
	if refused["wrap_elsewhere"] != 1 || refused["wrap_void"] != 2 || len(refused) != 2 {
		t.Errorf("refused on record: %v", refused)
	}
	for _, r := range records(t, c, "secret.reveal") {
		if (*r.Details)["reason"] == "to test" && (r.Actor["kind"] != "anonymous" || !strings.HasPrefix(r.Actor["session"], "wrap_")) {
			t.Errorf("a reveal by %v", r.Actor)
		}
	}
	nothingShown(t, c, old, elsewhere, here, before, lost, revoked, sealed)
}

// No token, whoever's, ends the sessions of people or touches their factors and passwords.
func TestATokenDoesNotTouchHowPeopleSignIn(t *testing.T) {
	t.Parallel()
	c := systemtest.Start(t, systemtest.Options{})
	ctx, password := t.Context(), canary+" ferret umbrella"
	ada := signedUp(t, c, "ada", password)
	role := client.AssignmentRequest{Role: "administrator", User: new("ada"), Scope: everywhere()}
	systemtest.Call[client.Assignment](c, func(api *client.Client) (*http.Response, error) { return api.AddAssignment(ctx, nil, role) })
	session := systemtest.Call[client.CreatedSession](c, func(api *client.Client) (*http.Response, error) {
		return api.SignIn(ctx, client.SignInRequest{Name: "ada", Password: &password})
	})
	adas, err := fleet.Answer[client.CreatedToken](c.Stranger(0, session.Secret).CreateToken(ctx, client.TokenRequest{Name: "hers"}))
	if err != nil {
		t.Fatal(err)
	}
	for whose, token := range map[string]string{"ada": adas.Secret, "root": c.RootToken.Reveal()} {
		api := c.Stranger(0, token)
		for what, try := range map[string]func() (*http.Response, error){
			"change a password": func() (*http.Response, error) {
				return api.ChangePassword(ctx, client.PasswordRequest{Current: &password, Password: &password})
			},
			"step up":    func() (*http.Response, error) { return api.StepUp(ctx, client.StepUpRequest{Password: &password}) },
			"add an app": func() (*http.Response, error) { return api.AddFactor(ctx, client.FactorRequest{Name: new("x")}) },
			"confirm it": func() (*http.Response, error) {
				return api.ConfirmFactor(ctx, "fact_x", client.ConfirmRequest{Code: new("123456")})
			},
			"remove it":           func() (*http.Response, error) { return api.RemoveFactor(ctx, "fact_x") },
			"make recovery codes": func() (*http.Response, error) { return api.MakeRecoveryCodes(ctx) },
			"reset factors":       func() (*http.Response, error) { return api.ResetFactors(ctx, "ada", nil) },
			"sign out":            func() (*http.Response, error) { return api.EndSession(ctx, "current") },
		} {
			if _, err := fleet.Answer[any](try()); !code(err, "session_needed") {
				t.Errorf("%s with a token of %s: %v", what, whose, err)
			}
		}
	}
	if _, err := fleet.Answer[any](c.Stranger(0, adas.Secret).EndSession(ctx, session.Session.Id)); !code(err, "session_needed") {
		t.Errorf("her session, by her token: %v", err)
	}
	if _, err := fleet.Answer[any](c.Stranger(0, adas.Secret).InviteUser(ctx, "ada")); !code(err, "reset_by_token") && !code(err, "step_up_needed") {
		t.Errorf("a reset, by her token: %v", err)
	}
	if who, err := fleet.Answer[client.Principal](c.Stranger(0, session.Secret).Whoami(ctx)); err != nil || who.Id != ada.Id {
		t.Errorf("she is signed out: %v", err)
	}
	// The limits of tokens hold for tokens too: one that is limited revokes no other.
	limited := []string{"asset.read"}
	narrow, err := fleet.Answer[client.CreatedToken](c.Stranger(0, session.Secret).CreateToken(ctx, client.TokenRequest{Name: "narrow", Privileges: &limited}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fleet.Answer[any](c.Stranger(0, narrow.Secret).RevokeToken(ctx, adas.Token.Id, nil)); !code(err, "token_limited") {
		t.Errorf("a limited token revokes another: %v", err)
	}
	if _, err := fleet.Answer[struct{}](c.Stranger(0, narrow.Secret).RevokeToken(ctx, narrow.Token.Id, nil)); err != nil {
		t.Errorf("a limited token revokes itself: %v", err)
	}
	systemtest.Call[struct{}](c, func(api *client.Client) (*http.Response, error) { return api.EndSession(ctx, session.Session.Id) })
}

func signedUp(t *testing.T, c *systemtest.Cluster, name, password string) client.User {
	t.Helper()
	u := systemtest.Call[client.User](c, func(api *client.Client) (*http.Response, error) {
		return api.AddUser(t.Context(), nil, client.UserRequest{Name: name})
	})
	invitation := systemtest.Call[client.CreatedInvitation](c, func(api *client.Client) (*http.Response, error) { return api.InviteUser(t.Context(), name) }).Secret
	systemtest.Call[struct{}](c, func(api *client.Client) (*http.Response, error) {
		return api.AcceptInvitation(t.Context(), client.AcceptRequest{Invitation: &invitation, Password: &password})
	})
	return u
}
