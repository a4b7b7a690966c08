//nolint:bodyclose // must closes every one
package rest_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/pquerna/otp"
	"github.com/pquerna/otp/totp"
	"google.golang.org/protobuf/proto"

	"github.com/reeve-pam/reeve/agent/pluginhost"
	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/controller/identity/oidc/oidctest"
	"github.com/reeve-pam/reeve/controller/identity/webauthntest"
	"github.com/reeve-pam/reeve/controller/pki"
	"github.com/reeve-pam/reeve/controller/rest"
	"github.com/reeve-pam/reeve/internal/fleet"
	"github.com/reeve-pam/reeve/internal/jointoken"
	"github.com/reeve-pam/reeve/internal/reeve"
	"github.com/reeve-pam/reeve/internal/systemtest"
	"github.com/reeve-pam/reeve/internal/testlab"
	"github.com/reeve-pam/reeve/plugins/sdk"
)

// witness holds every answer against the contract, on its way to the test.
type witness struct {
	t     *testing.T
	doc   *openapi3.T
	next  http.RoundTripper
	trail *trail

	mu   sync.Mutex
	done map[string]bool // operations that were answered with success
}

// RoundTrip implements http.RoundTripper. While nobody leads it asks again, as reeve does:
// what is answered with 503 did not happen.
func (w *witness) RoundTrip(r *http.Request) (*http.Response, error) {
	for until := time.Now().Add(systemtest.Patience); ; time.Sleep(20 * time.Millisecond) {
		resp, err := w.once(r)
		if err != nil || resp.StatusCode != http.StatusServiceUnavailable || r.Body != nil && r.GetBody == nil || time.Now().After(until) {
			return resp, err
		}
		if r.GetBody != nil {
			if r.Body, err = r.GetBody(); err != nil {
				return nil, err
			}
		}
	}
}

func (w *witness) once(r *http.Request) (*http.Response, error) {
	route := w.route(r)
	recorded := route != nil && w.trail != nil && (r.Method != http.MethodGet || rest.Records(route.Operation.OperationID) != "")
	if recorded {
		w.trail.next(w.t)
	}
	resp, err := w.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if route == nil {
		w.t.Errorf("%s %s is not in the contract", r.Method, r.URL.Path)
		return resp, nil
	}
	raw, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(raw))
	in := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{Request: r, Route: route},
		Status:                 resp.StatusCode, Header: resp.Header, Body: io.NopCloser(bytes.NewReader(raw)),
		Options: &openapi3filter.Options{IncludeResponseStatus: true, ExcludeResponseBody: !strings.Contains(resp.Header.Get("Content-Type"), "json") ||
			strings.Contains(resp.Header.Get("Content-Type"), "ndjson")},
	}
	if err := openapi3filter.ValidateResponse(r.Context(), in); err != nil {
		w.t.Errorf("%s %s: the answer is not as the contract says: %v", r.Method, r.URL.Path, err)
	}
	if recorded {
		if op := route.Operation.OperationID; op == "RestoreSnapshot" && resp.StatusCode < 300 { // the trail goes on where the snapshot ends
			w.trail.seen = 0
			all := w.trail.next(w.t)
			restored := slices.IndexFunc(all, func(r client.AuditRecord) bool { return r.Action == "cluster.restore_snapshot" })
			w.recorded(op, resp.StatusCode, all[max(restored, 0):])
		} else {
			w.recorded(op, resp.StatusCode, w.trail.next(w.t))
		}
	}
	if declared := route.Operation.Responses.Status(resp.StatusCode); resp.StatusCode < 300 {
		if declared == nil || (len(raw) > 0 && declared.Value.Content.Get(resp.Header.Get("Content-Type")) == nil) {
			w.t.Errorf("%s: status %d with %s is not in the contract", route.Operation.OperationID, resp.StatusCode, resp.Header.Get("Content-Type"))
		}
		w.undeclared(route.Operation.OperationID, declared, raw)
		w.mu.Lock()
		w.done[route.Operation.OperationID] = true
		w.mu.Unlock()
	}
	return resp, nil
}

// undeclared finds fields that no schema names: a validator lets them pass.
func (w *witness) undeclared(op string, response *openapi3.ResponseRef, raw []byte) {
	if response == nil || response.Value.Content["application/json"] == nil {
		return
	}
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		w.t.Errorf("%s: %v", op, err)
	}
	var look func(schema *openapi3.Schema, v any, at string)
	look = func(schema *openapi3.Schema, v any, at string) {
		switch v := v.(type) {
		case []any:
			for _, x := range v {
				look(schema.Items.Value, x, at+"[]")
			}
		case map[string]any:
			for k, x := range v {
				if p := schema.Properties[k]; p != nil {
					look(p.Value, x, at+"."+k)
				} else if schema.AdditionalProperties.Schema == nil {
					w.t.Errorf("%s: %s.%s is not in the contract", op, at, k)
				}
			}
		}
	}
	look(response.Value.Content["application/json"].Schema.Value, v, "")
}

func (w *witness) route(r *http.Request) *routers.Route {
	parts := strings.Split(r.URL.Path, "/")
	var found *routers.Route
	for path, item := range w.doc.Paths.Map() {
		op := item.GetOperation(r.Method)
		names := strings.Split(path, "/")
		if op == nil || len(names) != len(parts) {
			continue
		}
		literal, fits := 0, true
		for i := range names {
			if names[i] == parts[i] {
				literal++
			} else if !strings.HasPrefix(names[i], "{") {
				fits = false
			}
		}
		if fits && (found == nil || literal == len(parts) || !strings.Contains(path, "{action}")) {
			found = &routers.Route{Spec: w.doc, Path: path, PathItem: item, Method: r.Method, Operation: op}
		}
	}
	return found
}

func key() *string { k := rand.Text(); return &k }

// unexercised are the calls whose success this test does not bring about, with the reason.
var unexercised = map[string]string{
	"AcceptClock": "there is something to accept only where a clock jumped; internal/systemtest makes one jump",
	"RetryJob":    "a job is dead only after five failed deliveries; its answer is that of CancelJob, and controller/jobs tests it",
}

// Every call of the contract succeeds once on a real cluster with a real agent and a real
// host, and is answered as the contract says.
func TestEveryAnswerIsAsTheContractSays(t *testing.T) {
	t.Parallel()
	lab := testlab.New(t)
	pass := rand.Text()
	host := testlab.NewHost(t, lab, testlab.HostOptions{Accounts: []testlab.HostAccount{{Name: "root", Password: pass}}})
	c := systemtest.Start(t, systemtest.Options{Nodes: 3, Shamir: true})
	doc, err := rest.GetSpec()
	if err != nil {
		t.Fatal(err)
	}
	w := &witness{t: t, doc: doc, next: c.HTTP().Transport, trail: &trail{c: c}, done: map[string]bool{}}
	node := follower(c)
	api, err := client.NewClient(c.URL(node), client.WithHTTPClient(&http.Client{Transport: w}),
		client.WithRequestEditorFn(func(_ context.Context, r *http.Request) error {
			r.Header.Set("Authorization", "Bearer "+c.RootToken.Reveal())
			return nil
		}))
	if err != nil {
		t.Fatal(err)
	}
	s := &story{t: t, c: c, node: node, api: api, w: w}
	s.basics()
	s.roles()
	s.people()
	s.accounts(host, pass)
	s.cluster()
	w.trail.seen = 0
	complete(t, w.trail.next(t))
	s.proven()
	for _, op := range operations(t) {
		id := op.OperationID
		if _, exempt := unexercised[id]; !w.done[id] && !exempt {
			t.Errorf("%s did not succeed once", id)
		}
	}
	nothingShown(t, c, pass)
}

type story struct {
	t        *testing.T
	c        *systemtest.Cluster
	node     int // that is asked: a follower, at first
	api      *client.Client
	w        *witness
	firstKey string // that verified checkpoints at first
}

// led waits until somebody leads and the node that is asked knows who.
func (s *story) led() {
	s.t.Helper()
	s.c.Eventually("the node that is asked knows who leads", func() (bool, string) {
		leader := s.c.URL(s.c.Leader())
		st, err := s.c.Status(s.node)
		return err == nil && st.LeaderAddress != nil && "https://"+*st.LeaderAddress == leader, fmt.Sprintf("%s leads; %+v %v", leader, st, err)
	})
}

// must reads the answer of a call that has to succeed: must[client.Site](s)(api.GetSite(…)).
func must[T any](s *story) func(*http.Response, error) T {
	return func(resp *http.Response, err error) T {
		s.t.Helper()
		out, err := fleet.Answer[T](resp, err)
		if err != nil {
			s.t.Fatal(err)
		}
		return out
	}
}

// people makes a user, a group and a PAM role, gives the role, asks about it, and ends it all.
func (s *story) people() {
	t, api := s.t, s.api
	t.Helper()
	ctx := t.Context()
	must[client.User](s)(api.AddUser(ctx, &client.AddUserParams{IdempotencyKey: key()}, client.UserRequest{Name: "ada"}))
	mail, zone := "ada@example.com", "Europe/Berlin"
	must[client.User](s)(api.EditUser(ctx, "ada", nil, client.UserProfile{Email: &mail, TimeZone: &zone}))
	must[client.UserPage](s)(api.ListUsers(ctx, nil))
	must[client.Group](s)(api.AddGroup(ctx, nil, client.GroupRequest{Name: "dba"}))
	must[client.GroupPage](s)(api.ListGroups(ctx, nil))
	must[struct{}](s)(api.AddGroupMember(ctx, "dba", "ada", nil))
	must[client.PrivilegeList](s)(api.ListPrivileges(ctx))
	must[client.PAMRolePage](s)(api.ListPAMRoles(ctx, nil))
	must[client.PAMRole](s)(api.AddPAMRole(ctx, nil, client.PAMRoleRequest{Name: "reader", Privileges: []string{"asset.read"}}))
	must[client.PAMRole](s)(api.EditPAMRole(ctx, "reader", nil, client.PAMRoleText{Privileges: []string{"asset.read", "site.read"}}))
	must[client.PAMRole](s)(api.GetPAMRole(ctx, "reader"))
	must[client.Site](s)(api.AddSite(ctx, nil, client.SiteRequest{Name: "theirs"}))
	group := "dba"
	given := must[client.Assignment](s)(api.AddAssignment(ctx, nil, client.AssignmentRequest{Role: "reader", Group: &group, Scope: inSites("theirs")}))
	must[client.AssignmentPage](s)(api.ListAssignments(ctx, &client.ListAssignmentsParams{Group: &group}))
	if g := must[client.GroupMembers](s)(api.GetGroup(ctx, "dba", nil)); len(g.Items) != 1 || g.Items[0].Name != "ada" || len(g.Assignments) != 1 {
		t.Errorf("group dba: %+v", g)
	}
	if u := must[client.User](s)(api.GetUser(ctx, "ada")); len(*u.Groups) != 1 || len(*u.Assignments) != 1 || *u.Profile.Email != mail {
		t.Errorf("user ada: %+v", u)
	}
	user, site := "ada", "theirs"
	ask := client.CanParams{User: &user, Privilege: "site.read", Site: &site}
	if d := must[client.Decision](s)(api.Can(ctx, &ask)); !d.Allowed || d.Assignment.Id != given.Id || !strings.Contains(d.Because, "group dba") {
		t.Errorf("ada reads her site: %+v", d)
	}
	must[client.User](s)(api.DisableUser(ctx, "ada", nil))
	if d := must[client.Decision](s)(api.Can(ctx, &ask)); d.Allowed || d.Because != "ada is disabled" {
		t.Errorf("disabled: %+v", d)
	}
	must[client.User](s)(api.EnableUser(ctx, "ada", nil))
	must[struct{}](s)(api.RemoveGroupMember(ctx, "dba", "ada", nil))
	if d := must[client.Decision](s)(api.Can(ctx, &ask)); d.Allowed || d.Because != "no assignment gives site.read" {
		t.Errorf("out of the group: %+v", d)
	}
	must[struct{}](s)(api.DeleteAssignment(ctx, given.Id, nil))
	must[struct{}](s)(api.DeletePAMRole(ctx, "reader", nil))
	must[struct{}](s)(api.RemoveGroup(ctx, "dba", nil))
	s.signIn()
	s.signInAtProvider()
	must[struct{}](s)(api.RemoveUser(ctx, "ada", nil))
	s.directory()
}

// scopes groups the asset bare, shows nothing else to vendors, and undoes both.
func (s *story) scopes() {
	t, api := s.t, s.api
	t.Helper()
	ctx := t.Context()
	group := must[client.AssetGroup](s)(api.CreateAssetGroup(ctx, &client.CreateAssetGroupParams{IdempotencyKey: key()}, client.AssetGroupRequest{Name: "apart"}))
	must[client.AssetGroupPage](s)(api.ListAssetGroups(ctx, nil))
	must[struct{}](s)(api.AddGroupedAsset(ctx, "apart", "bare", nil))
	vendors, user, vendor := true, "visitor", client.UserProfile{Vendor: new(bool)}
	*vendor.Vendor = true
	must[client.User](s)(api.AddUser(ctx, nil, client.UserRequest{Name: user, Profile: &vendor}))
	within := client.Scope{AssetGroups: &[]string{"apart"}}
	given := must[client.Assignment](s)(api.AddAssignment(ctx, nil, client.AssignmentRequest{User: &user, Role: "user", Scope: within}))
	must[client.AccessPolicy](s)(api.CreateAccessPolicy(ctx, nil, client.AccessPolicyRequest{Name: "visitors", Vendors: &vendors, Scope: within}))
	must[client.AccessPolicyPage](s)(api.ListAccessPolicies(ctx, nil))
	site, bare := "dmz", "bare"
	ask := client.CanParams{User: &user, Privilege: "asset.read", Asset: &bare}
	if d := must[client.Decision](s)(api.Can(ctx, &ask)); !d.Allowed || d.Because != "PAM role user in asset group apart, shown by access policy visitors" || d.Assignment.Id != given.Id {
		t.Errorf("the visitor sees the asset: %+v", d)
	}
	whole := must[client.AssetGroupMembers](s)(api.GetAssetGroup(ctx, "apart", nil))
	if len(whole.Items) != 1 || whole.Items[0].Name != "bare" || whole.Items[0].ByRule || len(whole.Assignments) != 1 || len(whole.AccessPolicies) != 1 {
		t.Errorf("asset group apart: %+v", whole)
	}
	if u := must[client.User](s)(api.GetUser(ctx, user)); len(*u.AccessPolicies) != 1 {
		t.Errorf("the visitor: %+v", u)
	}
	must[client.AccessPolicy](s)(api.EditAccessPolicy(ctx, "visitors", nil, client.AccessPolicyText{Users: &[]string{user}, Scope: client.Scope{Types: &[]string{"mysql"}}}))
	if p := must[client.AccessPolicy](s)(api.GetAccessPolicy(ctx, "visitors")); p.Vendors || p.Users[0] != user || (*p.Scope.Types)[0] != "mysql" {
		t.Errorf("access policy visitors: %+v", p)
	}
	if d := must[client.Decision](s)(api.Can(ctx, &ask)); d.Allowed || d.AccessPolicies == nil || (*d.AccessPolicies)[0] != "visitors" {
		t.Errorf("the visitor sees what the policy hides: %+v", d)
	}
	must[struct{}](s)(api.RemoveGroupedAsset(ctx, group.Id, "bare", nil))
	must[client.AssetGroup](s)(api.EditAssetGroup(ctx, "apart", nil, client.AssetGroupText{Rule: &client.AssetGroupRule{Types: &[]string{"ssh"}, Sites: &[]string{site}}}))
	if whole := must[client.AssetGroupMembers](s)(api.GetAssetGroup(ctx, "apart", nil)); len(whole.Items) == 0 || !whole.Items[0].ByRule {
		t.Errorf("asset group apart with a rule: %+v", whole)
	}
	must[struct{}](s)(api.DeleteAccessPolicy(ctx, "visitors", nil))
	must[struct{}](s)(api.DeleteAssignment(ctx, given.Id, nil))
	must[struct{}](s)(api.DeleteAssetGroup(ctx, "apart", nil))
	must[struct{}](s)(api.RemoveUser(ctx, user, nil))
}

// directory lets somebody in whose password an OpenLDAP server proves.
func (s *story) directory() {
	t, api := s.t, s.api
	t.Helper()
	ctx := t.Context()
	ldap := testlab.Slapd(t)
	password, filter, create := canary+" directory", "(uid=%Name%)", true
	dn, err := ldap.AddPerson(ctx, "grace", password)
	if err == nil {
		err = ldap.Add(ctx, "cn=navy,"+testlab.SlapdGroups, map[string][]string{"objectClass": {"groupOfNames"}, "member": {dn}})
	}
	if err != nil {
		t.Fatal(err)
	}
	d := must[client.Directory](s)(api.AddDirectory(ctx, nil, client.DirectoryRequest{Name: "corp", Address: ldap.Addr, Ca: ldap.CAPEM, BindDn: testlab.SlapdSearcher,
		Password: &password, UserBase: testlab.SlapdPeople, UserFilter: &filter, CreateUsers: &create}))
	if all := must[client.DirectoryPage](s)(api.ListDirectories(ctx, nil)); d.Address != ldap.Addr+":636" || len(all.Items) != 1 {
		t.Errorf("%+v %+v", d, all)
	}
	if _, err := fleet.Answer[client.DirectoryTest](api.TestDirectory(ctx, "corp", client.DirectoryTestRequest{})); err == nil || !strings.Contains(err.Error(), "directory_login_refused") {
		t.Errorf("with a wrong password of the bind account: %v", err)
	}
	must[client.Directory](s)(api.RenewDirectory(ctx, "corp", nil, client.DirectoryRenewal{Password: &ldap.SearcherPassword}))
	user, corp, external := "grace", "corp", "cn=navy,"+testlab.SlapdGroups
	if found := must[client.DirectoryTest](s)(api.TestDirectory(ctx, "corp", client.DirectoryTestRequest{User: &user})); found.ActiveDirectory || *found.UserDn != dn || len(*found.Groups) != 1 {
		t.Errorf("%+v", found)
	}
	must[client.Group](s)(api.AddGroup(ctx, nil, client.GroupRequest{Name: "navy", Directory: &corp, External: &external}))
	must[client.User](s)(api.AddUser(ctx, nil, client.UserRequest{Name: "grace", Directory: &corp}))
	made := must[client.CreatedSession](s)(api.SignIn(ctx, client.SignInRequest{Name: "Grace@corp", Password: &password}))
	if g := must[client.User](s)(api.GetUser(ctx, "grace")); made.Session.User != "grace" || made.Session.Methods[0] != "ldap" || *g.Directory != "corp" || (*g.Groups)[0] != "navy" {
		t.Errorf("%+v %+v", made.Session, g)
	}
	if _, err := fleet.Answer[struct{}](api.AddGroupMember(ctx, "navy", "root", nil)); err == nil || !strings.Contains(err.Error(), "group_mapped") {
		t.Errorf("put into a mapped group: %v", err)
	}
	must[struct{}](s)(api.RemoveGroup(ctx, "navy", nil))
	must[struct{}](s)(api.RemoveDirectory(ctx, "corp", nil))
	nothingShown(t, s.c, password, ldap.SearcherPassword, made.Secret)
}

// signIn lets ada in, with the rights and the limits of somebody who signed in.
func (s *story) signIn() {
	t, api := s.t, s.api
	t.Helper()
	ctx := t.Context()
	invitation := must[client.CreatedInvitation](s)(api.InviteUser(ctx, "ada")).Secret
	first, second := canary+" ferret umbrella", canary+" lantern walrus"
	must[struct{}](s)(api.AcceptInvitation(ctx, client.AcceptRequest{Invitation: &invitation, Password: &first}))
	made := must[client.CreatedSession](s)(api.SignIn(ctx, client.SignInRequest{Name: "Ada", Password: &first}))
	must[client.Session](s)(api.SignInBrowser(ctx, client.SignInRequest{Name: "ada", Password: &first}))
	as := func(_ context.Context, r *http.Request) error {
		r.Header.Set("Authorization", "Bearer "+made.Secret)
		return nil
	}
	if me := must[client.Principal](s)(api.Whoami(ctx, as)); me.Name != "ada" || me.Kind != "user" {
		t.Errorf("who signed in is %+v", me)
	}
	must[client.Session](s)(api.StepUp(ctx, client.StepUpRequest{Password: &first}, as))
	must[struct{}](s)(api.ChangePassword(ctx, client.PasswordRequest{Current: &first, Password: &second}, as))
	if all := must[client.SessionList](s)(api.ListSessions(ctx, nil, as)); len(all.Items) != 1 || !all.Items[0].Current {
		t.Errorf("sessions: %+v", all.Items)
	}
	s.secondFactor(as, second)
	as = s.securityKey(as, second)
	must[client.User](s)(api.UnlockUser(ctx, "ada", nil))
	must[struct{}](s)(api.EndSession(ctx, "current", as))
	if _, err := fleet.Answer[client.Principal](api.Whoami(ctx, as)); err == nil || !strings.Contains(err.Error(), "session_ended") {
		t.Errorf("after the end of the session: %v", err)
	}
	changed := "password.change"
	if page := must[client.AuditPage](s)(api.ListAudit(ctx, &client.ListAuditParams{Action: &changed})); len(page.Items) != 1 ||
		page.Items[0].Actor["session"] != made.Session.Id {
		t.Errorf("the trail does not say with what session of %s: %+v", made.Session.Id, page.Items)
	}
	name, day := "ada", time.Now().Add(-time.Hour)
	if page := must[client.AuditPage](s)(api.ListAudit(ctx, &client.ListAuditParams{Actor: &name, Action: &changed, Since: &day})); len(page.Items) != 1 {
		t.Errorf("of ada, by name: %+v", page.Items)
	}
	none := "nobody"
	if page := must[client.AuditPage](s)(api.ListAudit(ctx, &client.ListAuditParams{Actor: &none})); len(page.Items) != 0 {
		t.Errorf("of nobody: %+v", page.Items)
	}
	nothingShown(t, s.c, first, second, invitation, made.Secret)
}

// signInAtProvider lets ada in by what an OpenID provider says.
func (s *story) signInAtProvider() {
	t, api := s.t, s.api
	t.Helper()
	ctx := t.Context()
	p := oidctest.Start(t, oidctest.Options{People: map[string]oidctest.Person{"sub-1": {"email": "ada", "email_verified": true}},
		Redirects: []string{origin + "/v1/browser/oidc/corp/callback"}})
	made := must[client.OIDCProvider](s)(api.AddOIDCProvider(ctx, client.OIDCProviderRequest{Name: "corp", Issuer: p.Issuer, ClientId: p.ClientID,
		ClientSecret: &p.ClientSecret, Authority: &p.Authority, UserClaim: client.Email, Origins: &[]string{origin}}))
	if all := must[client.OIDCProviderPage](s)(api.ListOIDCProviders(ctx, nil)); len(all.Items) != 1 || all.Items[0].Issuer != p.Issuer || made.Public {
		t.Errorf("providers: %+v", all.Items)
	}
	verifier := rand.Text() + rand.Text()
	sum := sha256.Sum256([]byte(verifier))
	begun := must[client.OIDCBegun](s)(api.BeginOIDC(ctx, "corp", client.OIDCBeginRequest{Challenge: base64.RawURLEncoding.EncodeToString(sum[:]), Port: 40123}))
	q := p.Browse(t, begun.Url, "sub-1").Query()
	code, issuer := q.Get("code"), q.Get("iss")
	in := must[client.CreatedSession](s)(api.FinishOIDC(ctx, "corp", client.OIDCFinishRequest{State: q.Get("state"), Code: &code, Issuer: &issuer, Verifier: &verifier}))
	if in.Session.User != "ada" || !slices.Equal(in.Session.Methods, []string{"oidc"}) {
		t.Errorf("the session: %+v", in.Session)
	}
	as := func(_ context.Context, r *http.Request) error {
		r.Header.Set("Authorization", "Bearer "+in.Secret)
		return nil
	}
	begun = must[client.OIDCBegun](s)(api.BeginStepUpOIDC(ctx, client.OIDCBeginRequest{Challenge: base64.RawURLEncoding.EncodeToString(sum[:]), Port: 40123}, as))
	q = p.Browse(t, begun.Url, "sub-1").Query()
	again, issuer := q.Get("code"), q.Get("iss")
	if proved := must[client.Session](s)(api.FinishStepUpOIDC(ctx, client.OIDCFinishRequest{State: q.Get("state"), Code: &again, Issuer: &issuer, Verifier: &verifier}, as)); proved.Id != in.Session.Id || *proved.Provider != "corp" {
		t.Errorf("the session: %+v", proved)
	}
	nothingShown(t, s.c, p.ClientSecret, code, again, begun.State, verifier, in.Secret)
	s.signInByBrowser(p, in.Secret)
	must[struct{}](s)(api.RemoveOIDCProvider(ctx, "corp"))
}

// signInByBrowser is a browser's way to the same provider, which knows ada by more than her
// session: she has an authenticator app.
func (s *story) signInByBrowser(p *oidctest.Provider, session string) {
	t, api := s.t, s.api
	t.Helper()
	ctx := t.Context()
	as := func(_ context.Context, r *http.Request) error {
		r.Header.Set("Authorization", "Bearer "+session)
		return nil
	}
	cookies := map[string]string{}
	page := func(_ context.Context, r *http.Request) error { // a page that somebody has open who is not signed in
		r.Header.Del("Authorization")
		r.Header.Set("Origin", origin)
		r.Header.Set("Sec-Fetch-Site", "same-origin")
		for name, value := range cookies {
			r.AddCookie(&http.Cookie{Name: name, Value: value})
		}
		return nil
	}
	keep := func(resp *http.Response, err error) (*http.Response, error) {
		if err == nil {
			for _, c := range resp.Cookies() {
				cookies[c.Name] = c.Value
			}
		}
		return resp, err
	}
	made := must[client.CreatedFactor](s)(api.AddFactor(ctx, client.FactorRequest{}, as))
	key, err := otp.NewKeyFromURL(*made.Uri)
	if err != nil {
		t.Fatal(err)
	}
	now, err := totp.GenerateCode(key.Secret(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	recovery := must[client.RecoveryCodes](s)(api.ConfirmFactor(ctx, made.Factor.Id, client.ConfirmRequest{Code: &now}, as)).Codes
	back := func(url string) (code string, err error) {
		q := p.Browse(t, url, "sub-1").Query()
		code, state, issuer := q.Get("code"), q.Get("state"), q.Get("iss")
		_, err = fleet.Answer[[]byte](keep(api.CallbackOIDC(ctx, "corp", &client.CallbackOIDCParams{State: &state, Code: &code, Iss: &issuer}, page)))
		return code, err
	}
	code, err := back(must[client.BrowserBegun](s)(keep(api.BeginOIDCBrowser(ctx, "corp", client.BrowserBeginRequest{}, page))).Url)
	if err == nil || !strings.Contains(err.Error(), "second_factor_needed") || cookies["__Host-reeve-session"] != "" {
		t.Fatalf("without a second factor: %v", err)
	}
	in := must[client.Session](s)(keep(api.FinishOIDCBrowser(ctx, "corp", client.CodeRequest{Code: &recovery[0]}, page)))
	if got := strings.Join(in.Methods, " "); in.User != "ada" || got != "oidc recovery_code" || cookies["__Host-reeve-session"] == "" {
		t.Errorf("the session: %+v", in)
	}
	begun := must[client.BrowserBegun](s)(keep(api.BeginStepUpBrowser(ctx, client.BrowserBeginRequest{}, page)))
	must[struct{}](s)(api.RemoveFactor(ctx, made.Factor.Id, as))
	other, err := back(begun.Url)
	if err != nil {
		t.Errorf("the proof: %v", err)
	}
	must[struct{}](s)(api.EndSession(ctx, "current", page))
	nothingShown(t, s.c, append(recovery, code, other, cookies["__Host-reeve-session"])...)
}

// secondFactor: ada enrols an app and uses it, and an administrator without her rights, or
// with a token, cannot take it away.
func (s *story) secondFactor(as client.RequestEditorFn, password string) {
	t, api := s.t, s.api
	t.Helper()
	ctx := t.Context()
	phone := "phone"
	made := must[client.CreatedFactor](s)(api.AddFactor(ctx, client.FactorRequest{Name: &phone}, as))
	key, err := otp.NewKeyFromURL(*made.Uri)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	code := func(steps int) *string {
		c, err := totp.GenerateCode(key.Secret(), now.Add(time.Duration(steps)*30*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		return &c
	}
	first := must[client.RecoveryCodes](s)(api.ConfirmFactor(ctx, made.Factor.Id, client.ConfirmRequest{Code: code(0)}, as)).Codes
	_, err = fleet.Answer[client.CreatedSession](api.SignIn(ctx, client.SignInRequest{Name: "ada", Password: &password}))
	if err == nil || !strings.Contains(err.Error(), "second_factor_needed") {
		t.Errorf("a sign-in without a code: %v", err)
	}
	in := must[client.CreatedSession](s)(api.SignIn(ctx, client.SignInRequest{Name: "ada", Password: &password, Code: &first[0]}))
	if got := strings.Join(in.Session.Methods, " "); got != "password recovery_code" {
		t.Errorf("methods %s", got)
	}
	must[client.Session](s)(api.StepUp(ctx, client.StepUpRequest{Password: &password, Code: code(1)}, as))
	if all := must[client.FactorList](s)(api.ListFactors(ctx, as)); len(all.Items) != 1 || !all.Items[0].Confirmed || all.RecoveryCodes != 9 {
		t.Errorf("factors: %+v", all)
	}
	fresh := must[client.RecoveryCodes](s)(api.MakeRecoveryCodes(ctx, as)).Codes
	for _, by := range []client.RequestEditorFn{func(context.Context, *http.Request) error { return nil }, as} {
		if _, err := fleet.Answer[client.User](api.ResetFactors(ctx, "ada", nil, by)); err == nil || !strings.Contains(err.Error(), "session_needed") && !strings.Contains(err.Error(), "not_permitted") {
			t.Errorf("a reset by a token, or without the right: %v", err)
		}
	}
	must[struct{}](s)(api.RemoveFactor(ctx, made.Factor.Id, as))
	must[struct{}](s)(api.EndSession(ctx, in.Session.Id, as))
	nothingShown(t, s.c, append(append(fresh, first...), *made.Uri, key.Secret(), *code(0), *code(1))...)
}

// securityKey: ada enrols a key, signs in and steps up with it, and an administrator who
// signed in takes it from her, and with it her session: she signs in again.
func (s *story) securityKey(as client.RequestEditorFn, password string) client.RequestEditorFn {
	t, api := s.t, s.api
	t.Helper()
	ctx := t.Context()
	const site = "https://reeve.example.com"
	if keys := must[client.SecurityKeys](s)(api.ConfigureSecurityKeys(ctx, nil, client.SecurityKeysRequest{Urls: []string{site}})); keys.Domain != "reeve.example.com" || !keys.UserVerification {
		t.Errorf("%+v", keys)
	}
	must[client.SecurityKeys](s)(api.GetSecurityKeys(ctx, as))
	kind, name := client.Webauthn, "yubi"
	made := must[client.CreatedFactor](s)(api.AddFactor(ctx, client.FactorRequest{Kind: &kind, Name: &name}, as))
	if made.Challenge.Url != site+"/security-key" || made.Uri != nil {
		t.Errorf("%+v", made)
	}
	yubi := webauthntest.New(t, site)
	answer := yubi.Enrol(t, made.Challenge.Options)
	if _, err := fleet.Answer[client.RecoveryCodes](api.ConfirmFactor(ctx, made.Factor.Id, client.ConfirmRequest{}, as)); err == nil || !strings.Contains(err.Error(), "factor_proof") {
		t.Errorf("confirmed with nothing: %v", err)
	}
	recovery := must[client.RecoveryCodes](s)(api.ConfirmFactor(ctx, made.Factor.Id, client.ConfirmRequest{Answer: &answer}, as)).Codes
	_, err := fleet.Answer[client.CreatedSession](api.SignIn(ctx, client.SignInRequest{Name: "ada", Password: &password}))
	if err == nil || !strings.Contains(err.Error(), "security_key_needed") {
		t.Errorf("a sign-in without the key: %v", err)
	}
	wrong := canary + " wrong password"
	for _, who := range []string{"ada", "nobody"} {
		_, err := fleet.Answer[client.KeyChallenge](api.BeginSignIn(ctx, client.SignInChallengeRequest{Name: who, Password: &wrong}))
		if err == nil || !strings.Contains(err.Error(), "sign_in_failed") {
			t.Errorf("a challenge for %s without the password: %v", who, err)
		}
	}
	begun := must[client.KeyChallenge](s)(api.BeginSignIn(ctx, client.SignInChallengeRequest{Name: "ada", Password: &password}))
	answer = yubi.Answer(t, begun.Options)
	in := must[client.CreatedSession](s)(api.SignIn(ctx, client.SignInRequest{Name: "ada", Password: &password, Answer: &answer}))
	if got := strings.Join(in.Session.Methods, " "); got != "password webauthn" {
		t.Errorf("methods %s", got)
	}
	begun = must[client.KeyChallenge](s)(api.BeginStepUp(ctx, client.StepUpChallengeRequest{Password: &password}, as))
	answer = yubi.Answer(t, begun.Options)
	must[client.Session](s)(api.StepUp(ctx, client.StepUpRequest{Password: &password, Answer: &answer}, as))

	must[client.User](s)(api.AddUser(ctx, nil, client.UserRequest{Name: "boss"}))
	boss := "boss"
	must[client.Assignment](s)(api.AddAssignment(ctx, nil, client.AssignmentRequest{Role: "administrator", User: &boss, Scope: everywhere()}))
	invitation := must[client.CreatedInvitation](s)(api.InviteUser(ctx, boss)).Secret
	theirs := canary + " boss ferret umbrella"
	must[struct{}](s)(api.AcceptInvitation(ctx, client.AcceptRequest{Invitation: &invitation, Password: &theirs}))
	signed := must[client.CreatedSession](s)(api.SignIn(ctx, client.SignInRequest{Name: boss, Password: &theirs}))
	asBoss := func(_ context.Context, r *http.Request) error {
		r.Header.Set("Authorization", "Bearer "+signed.Secret)
		return nil
	}
	must[client.User](s)(api.ResetFactors(ctx, "ada", &client.ResetFactorsParams{IdempotencyKey: key()}, asBoss))
	if _, err := fleet.Answer[client.Principal](api.Whoami(ctx, as)); err == nil || !strings.Contains(err.Error(), "session_ended") {
		t.Errorf("a session after the reset: %v", err)
	}
	again := must[client.CreatedSession](s)(api.SignIn(ctx, client.SignInRequest{Name: "ada", Password: &password}))
	if got := strings.Join(again.Session.Methods, " "); got != "password" {
		t.Errorf("after the reset ada signs in by %s", got)
	}
	must[client.User](s)(api.RemoveUser(ctx, boss, nil))
	nothingShown(t, s.c, append(recovery, wrong, theirs, invitation, signed.Secret, in.Secret, again.Secret, answer)...)
	return func(_ context.Context, r *http.Request) error {
		r.Header.Set("Authorization", "Bearer "+again.Secret)
		return nil
	}
}

func (s *story) basics() {
	t, api := s.t, s.api
	t.Helper()
	ctx := t.Context()
	must[client.Status](s)(api.GetStatus(ctx))
	must[client.Principal](s)(api.Whoami(ctx))
	tok := must[client.CreatedToken](s)(api.CreateToken(ctx, client.TokenRequest{Name: "ci"}))
	must[client.TokenPage](s)(api.ListTokens(ctx, nil))
	must[struct{}](s)(api.RevokeToken(ctx, tok.Token.Id, &client.RevokeTokenParams{IdempotencyKey: key()}))
	must[client.Site](s)(api.AddSite(ctx, &client.AddSiteParams{IdempotencyKey: key()}, client.SiteRequest{Name: "empty"}))
	must[client.Site](s)(api.GetSite(ctx, "empty"))
	must[client.SitePage](s)(api.ListSites(ctx, nil))
	must[struct{}](s)(api.RetireSite(ctx, "empty", nil))
	must[client.AuditPage](s)(api.ListAudit(ctx, nil))
	must[client.AuditCheckpointPage](s)(api.ListAuditCheckpoints(ctx, nil))
	must[[]byte](s)(api.ExportAudit(ctx, nil))
	after, through := int64(2), int64(4)
	if part := string(must[[]byte](s)(api.ExportAudit(ctx, &client.ExportAuditParams{After: &after, Through: &through}))); strings.Count(part, "\n") != 2 || !strings.HasPrefix(part, `{"sequence":3,`) {
		t.Errorf("records 3 and 4: %q", part)
	}
	old := *must[client.AuditCheckpointPage](s)(api.ListAuditCheckpoints(ctx, nil)).Key
	s.firstKey = old
	made := must[client.RotatedAuditKey](s)(api.RotateAuditKey(ctx, &client.RotateAuditKeyParams{IdempotencyKey: key()}))
	if now := *must[client.AuditCheckpointPage](s)(api.ListAuditCheckpoints(ctx, nil)).Key; now != made.Key || now == old || !strings.Contains(made.Checkpoint.Note, "\nnext "+now+"\n") {
		t.Errorf("%s became %s: %+v", old, now, made)
	}
	asCSV, added := client.Csv, "site.add"
	table := string(must[[]byte](s)(api.ExportAudit(ctx, &client.ExportAuditParams{Format: &asCSV, Action: &added})))
	if lines := strings.Split(strings.TrimSpace(table), "\n"); len(lines) < 2 || !strings.HasPrefix(lines[0], "sequence,time,") || !strings.Contains(lines[1], ",site.add,") {
		t.Errorf("as CSV: %q", table)
	}
}

// services switches lifecycle off and on (A1.1), and sends the trail to a sink that takes it
// and to one that does not, which forbids reveals.
func (s *story) services(account client.Account) {
	t, api := s.t, s.api
	t.Helper()
	ctx := t.Context()
	if one := must[client.Service](s)(api.DisableService(ctx, "lifecycle", nil)); one.Enabled {
		t.Errorf("switched off: %+v", one)
	}
	jobs := len(must[client.JobPage](s)(api.ListJobs(ctx, nil)).Items)
	more := client.ProvisionRequest{Name: "nobody", Role: "linux-admin-sudo", Assets: []string{"web1"}}
	if _, err := fleet.Answer[client.Batch](api.ProvisionAccounts(ctx, nil, more)); err == nil || !strings.Contains(err.Error(), "service_disabled") {
		t.Errorf("A1.1: provisioning while the service is off: %v", err)
	}
	if _, err := fleet.Answer[client.JobRef](api.ActOnAccount(ctx, account.Id, "rotate", nil)); err == nil || !strings.Contains(err.Error(), "service_disabled") {
		t.Errorf("A1.1: rotation while the service is off: %v", err)
	}
	if now := len(must[client.JobPage](s)(api.ListJobs(ctx, nil)).Items); now != jobs {
		t.Errorf("A1.1: %d jobs became %d", jobs, now)
	}
	must[client.Service](s)(api.EnableService(ctx, "lifecycle", nil))
	if _, err := fleet.Answer[client.Service](api.DisableService(ctx, "jobs", nil)); err == nil || !strings.Contains(err.Error(), "service_always_on") {
		t.Errorf("what has no switch: %v", err)
	}
	s.c.Eventually("services tick", func() (bool, string) {
		l := must[client.ServiceList](s)(api.ListServices(ctx))
		ok := len(l.Items) == 7 && l.Leader != ""
		for _, one := range l.Items {
			late := one.Name == "directories" || one.Name == "tidying" // minutes after the leader began
			ok = ok && one.Enabled && one.Does != "" && (one.LastTick != nil || late) && one.LastError == nil
		}
		return ok, fmt.Sprintf("%+v", l)
	})

	file, address, local, late := "trail.jsonl", "127.0.0.1:1", true, int64(10)
	must[client.AuditSink](s)(api.AddAuditSink(ctx, &client.AddAuditSinkParams{IdempotencyKey: key()}, client.AuditSinkRequest{Name: "local", Kind: "file", File: &file, MaxLagRecords: &late}))
	s.c.Eventually("the sink takes records", func() (bool, string) {
		all := must[client.AuditSinkList](s)(api.ListAuditSinks(ctx)).Items
		return len(all) == 1 && all[0].SentAt != nil && all[0].LagRecords == 0, fmt.Sprintf("%+v", all)
	})
	must[client.RevealedSecret](s)(api.RevealSecret(ctx, account.Id, client.ReasonRequest{Reason: "the sink has everything"}))
	must[client.AuditSink](s)(api.AddAuditSink(ctx, nil, client.AuditSinkRequest{Name: "gone", Kind: "syslog", Address: &address, AllowLocal: &local, MaxLagRecords: &late}))
	if _, err := fleet.Answer[client.RevealedSecret](api.RevealSecret(ctx, account.Id, client.ReasonRequest{Reason: "no sink would know"})); err == nil || !strings.Contains(err.Error(), "audit_lag") {
		t.Errorf("a reveal while a sink lacks too much: %v", err)
	}
	if _, err := fleet.Answer[[]byte](api.ExportAudit(ctx, nil)); err == nil || !strings.Contains(err.Error(), "audit_lag") {
		t.Errorf("an export while a sink lacks too much: %v", err)
	}
	if last := records(t, s.c, "audit.export"); last[len(last)-1].Outcome != "denied" || (*last[len(last)-1].Details)["code"] != "audit_lag" {
		t.Errorf("of the refused export the trail says %+v", last[len(last)-1])
	}
	for _, one := range must[client.AuditSinkList](s)(api.ListAuditSinks(ctx)).Items {
		if (one.OverLimit != nil) != (one.Name == "gone") {
			t.Errorf("%+v", one)
		}
	}
	if _, err := fleet.Answer[client.AuditSinkTest](api.TestAuditSink(ctx, "gone")); err == nil || !strings.Contains(err.Error(), "audit_sink_failed") || !strings.Contains(err.Error(), "refused") {
		t.Errorf("a test of a sink that is not there: %v", err)
	}
	if took := must[client.AuditSinkTest](s)(api.TestAuditSink(ctx, "local")); took.To != file || took.From == "" {
		t.Errorf("a test of a file: %+v", took)
	}
	paused, none := true, int64(0)
	if one := must[client.AuditSink](s)(api.EditAuditSink(ctx, "gone", &client.EditAuditSinkParams{IdempotencyKey: key()}, client.AuditSinkChange{Paused: &paused})); one.Paused == nil || one.OverLimit == nil {
		t.Errorf("paused, it is within its limit: %+v", one)
	}
	if one := must[client.AuditSink](s)(api.EditAuditSink(ctx, "gone", nil, client.AuditSinkChange{MaxLagRecords: &none})); one.OverLimit != nil || one.To != address {
		t.Errorf("without a limit: %+v", one)
	}
	must[[]byte](s)(api.ExportAudit(ctx, nil))
	must[struct{}](s)(api.RemoveAuditSink(ctx, "gone", nil))
	must[client.RevealedSecret](s)(api.RevealSecret(ctx, account.Id, client.ReasonRequest{Reason: "the sink is gone"}))
	must[struct{}](s)(api.RemoveAuditSink(ctx, "local", nil))
}

func (s *story) accounts(host *testlab.Host, pass string) {
	t, c, api := s.t, s.c, s.api
	t.Helper()
	ctx := t.Context()
	agent := c.Agent("dmz", systemtest.AgentOptions{})
	must[client.AgentPage](s)(api.ListAgents(ctx, nil))
	must[client.Agent](s)(api.GetAgent(ctx, agent.Name))
	must[client.JoinToken](s)(api.CreateAgentJoinToken(ctx, client.AgentJoinTokenRequest{Name: "spare", Site: "dmz"}))
	must[client.Connector](s)(api.RegisterConnector(ctx, nil, description(t, "ssh")))
	connectors := must[client.ConnectorPage](s)(api.ListConnectors(ctx, nil))
	must[client.Connector](s)(api.GetConnector(ctx, "ssh"))
	must[client.RolePage](s)(api.ListRoles(ctx, nil))

	g := c.AddAsset("dmz", "web1", systemtest.HostTarget(host, "root", pass))
	a := must[client.Asset](s)(api.AddAsset(ctx, &client.AddAssetParams{IdempotencyKey: key()}, client.AssetRequest{Name: "bare", Site: "dmz", Connector: "ssh", Address: host.Addr}))
	must[client.Asset](s)(api.SetManagementAccount(ctx, a.Id, nil, client.ManagementAccountRequest{Username: "root", Password: &pass}))
	must[client.Asset](s)(api.TrustAsset(ctx, "bare", nil, client.TrustRequest{HostKeys: &[]string{host.HostKey()}}))
	must[client.JobRef](s)(api.VerifyAsset(ctx, "bare", nil))
	must[client.Asset](s)(api.GetAsset(ctx, "bare"))
	must[client.AssetPage](s)(api.ListAssets(ctx, nil))
	s.scopes()
	must[client.Asset](s)(api.LabelAsset(ctx, "bare", nil, client.TagsRequest{Tags: map[string]string{"team": "web"}}))
	c.Eventually("the other asset is verified", func() (bool, string) { return c.Asset("bare").ManagementAccount.Verified, "not yet" })
	c.Eventually("it can be retired", func() (bool, string) {
		_, err := fleet.Answer[struct{}](api.RetireAsset(ctx, "bare", nil))
		return err == nil, fmt.Sprint(err)
	})

	s.legacy()
	s.rights("web1")
	account := c.Provision("alice", g)
	s.refusedReveal()
	revealed := must[client.RevealedSecret](s)(api.RevealSecret(ctx, account.Id, client.ReasonRequest{Reason: "to test"}))
	if err := g.Login(ctx, account.Name, revealed.Password); err != nil {
		t.Errorf("the revealed password does not open the account: %v", err)
	}
	s.services(account)
	s.wraps(account, revealed.Password)
	job := must[client.JobRef](s)(api.ActOnAccount(ctx, "alice@web1", "verify", nil))
	s.logs(job)
	s.superseded(account.Id)
	must[client.Account](s)(api.GetAccount(ctx, account.Id))
	must[client.AccountPage](s)(api.ListAccounts(ctx, nil))
	must[client.Job](s)(api.GetJob(ctx, job.Job))

	agent.Stop() // what is asked for now waits
	waiting := must[client.Batch](s)(api.ProvisionAccounts(ctx, nil, client.ProvisionRequest{Name: "bob", Assets: []string{"web1"}, Role: account.Role}))
	must[client.Job](s)(api.CancelJob(ctx, *waiting.Accounts[0].Job, nil))
	list := must[client.JobPage](s)(api.ListJobs(ctx, nil)).Items
	if !slices.IsSortedFunc(list, func(a, b client.Job) int { return strings.Compare(b.Id, a.Id) }) || list[0].Id != *waiting.Accounts[0].Job {
		t.Errorf("the newest job is not first of %d", len(list))
	}
	two := 2
	var walked []string
	for cursor := (*string)(nil); ; {
		page := must[client.JobPage](s)(api.ListJobs(ctx, &client.ListJobsParams{Limit: &two, Cursor: cursor}))
		for _, j := range page.Items {
			walked = append(walked, j.Id)
		}
		if cursor = page.Next; cursor == nil {
			break
		}
	}
	if len(walked) != len(list) || walked[len(walked)-1] != list[len(list)-1].Id {
		t.Errorf("pages show %d jobs, the list %d", len(walked), len(list))
	}
	must[client.Agent](s)(api.BanAgent(ctx, agent.ID, nil, client.ReasonRequest{Reason: "to test"}))
	must[client.Agent](s)(api.UnbanAgent(ctx, agent.ID, nil, client.ReasonRequest{Reason: "it was a test"}))
	for _, known := range connectors.Items {
		if known.Name == "mysql" {
			must[struct{}](s)(api.RevokeConnectorDigest(ctx, "mysql", known.Digests[0].Sha256, nil))
		}
	}
	nothingShown(t, c, revealed.Password)
}

// wraps: a password for whoever holds a token, once.
func (s *story) wraps(account client.Account, password string) {
	t, api := s.t, s.api
	t.Helper()
	ctx := t.Context()
	made := must[client.CreatedWrap](s)(api.WrapSecret(ctx, account.Id, client.WrapRequest{Reason: "for a program"}))
	if w := made.Wrap; w.State != "open" || w.MadeBy != "root" || w.Account != "alice@web1" || w.AccountId != account.Id || w.ExpiresAt.Sub(w.CreatedAt) != 5*time.Minute {
		t.Errorf("made: %+v", w)
	}
	if w := must[client.Wrap](s)(api.LookUpWrap(ctx, client.UnwrapRequest{Token: &made.Secret}, nobody)); w.State != "open" || w.Id != made.Wrap.Id {
		t.Errorf("looked up: %+v", w)
	}
	if got := must[client.RevealedSecret](s)(api.Unwrap(ctx, client.UnwrapRequest{Token: &made.Secret}, nobody)); got.Password != password || *got.Username != account.Name {
		t.Errorf("unwrapped as %s, version %d, and another password: %t", *got.Username, got.Version, got.Password != password)
	}
	if _, err := fleet.Answer[client.RevealedSecret](api.Unwrap(ctx, client.UnwrapRequest{Token: &made.Secret}, nobody)); err == nil || !strings.Contains(err.Error(), "wrap_used") {
		t.Errorf("once more: %v", err)
	}
	if w := must[client.Wrap](s)(api.LookUpWrap(ctx, client.UnwrapRequest{Token: &made.Secret}, nobody)); w.State != "opened" || w.OpenedAt == nil || w.OpenedFrom == nil {
		t.Errorf("looked up: %+v", w)
	}
	second := must[client.CreatedWrap](s)(api.WrapSecret(ctx, account.Id, client.WrapRequest{Reason: "for nobody"}))
	if all := must[client.WrapPage](s)(api.ListWraps(ctx, nil)).Items; len(all) != 2 || all[0].State != "opened" || all[1].Id != second.Wrap.Id {
		t.Errorf("listed: %+v", all)
	}
	must[struct{}](s)(api.RevokeWrap(ctx, second.Wrap.Id, &client.RevokeWrapParams{IdempotencyKey: key()}))
	if _, err := fleet.Answer[client.RevealedSecret](api.Unwrap(ctx, client.UnwrapRequest{Token: &second.Secret}, nobody)); err == nil || !strings.Contains(err.Error(), "wrap_unknown") {
		t.Errorf("revoked: %v", err)
	}
	nothingShown(t, s.c, made.Secret, second.Secret)
}

// nobody shows no token.
func nobody(_ context.Context, r *http.Request) error {
	r.Header.Del("Authorization")
	return nil
}

// superseded: whether a password that was replaced still works is answered with the job.
func (s *story) superseded(account string) {
	t, c, api := s.t, s.c, s.api
	t.Helper()
	ask := func(action string, version int64) (client.JobRef, error) {
		return fleet.Answer[client.JobRef](api.ActOnAccount(t.Context(), account, action, &client.ActOnAccountParams{PasswordVersion: &version}))
	}
	for action, code := range map[string]string{"verify": "password_version_in_use", "inspect": "password_version_misplaced"} {
		if _, err := ask(action, 1); err == nil || !strings.Contains(err.Error(), code) {
			t.Errorf("%s: %v", action, err)
		}
	}
	c.Act(account, "rotate", "once")
	c.AwaitSync(account)
	ref, err := ask("verify", 1)
	if err != nil {
		t.Fatal(err)
	}
	c.AwaitJob(ref.Job, "has ended", systemtest.Final)
	job := must[client.Job](s)(api.GetJob(t.Context(), ref.Job))
	if job.Logins == nil || len(*job.Logins) != 1 || (*job.Logins)[0] != (client.Login{Slot: "history-1", Version: 1, Verdict: "bad_credential"}) {
		t.Errorf("%+v", job.Logins)
	}
}

// refusedReveal: what is refused is on record, and so is what is shown.
func (s *story) refusedReveal() {
	t, c, api := s.t, s.c, s.api
	t.Helper()
	_, err := fleet.Answer[client.RevealedSecret](api.RevealSecret(t.Context(), "nobody@web1", client.ReasonRequest{Reason: "curious"}))
	if err == nil || !strings.Contains(err.Error(), "account_not_found") {
		t.Errorf("%v", err)
	}
	r := records(t, c, "secret.reveal")
	if len(r) != 1 || r[0].Outcome != "denied" || r[0].Object != "nobody@web1" || (*r[0].Details)["reason"] != "curious" || (*r[0].Details)["code"] != "account_not_found" {
		t.Errorf("%+v", r)
	}
}

// event is one server-sent event.
type event struct{ name, id, data string }

func (s *story) stream(job string, follow bool, last string, most int) (events []event) {
	t := s.t
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	p := &client.GetJobLogParams{Follow: &follow}
	if last != "" {
		p.LastEventID = &last
	}
	// Not through the witness, which would wait for the end.
	resp, err := s.c.Client(follower(s.c)).GetJobLog(ctx, job, p)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%s %v", resp.Status, resp.Header)
	}
	var e event
	sc := bufio.NewScanner(resp.Body)
	sc.Buffer(nil, 1<<20)
	for len(events) != most && sc.Scan() {
		field, v, _ := strings.Cut(sc.Text(), ": ")
		switch field {
		case "event":
			e.name = v
		case "id":
			e.id = v
		case "data":
			e.data = v
		case "":
			events = append(events, e)
			e = event{}
		}
	}
	return events
}

// logs follows a job from its start to its end, and comes back at every place in between.
func (s *story) logs(ref client.JobRef) {
	t := s.t
	t.Helper()
	all := s.stream(ref.Job, true, "", -1)
	if len(all) < 3 || all[len(all)-1].name != "end" {
		t.Fatalf("%d events: %+v", len(all), all)
	}
	var ended client.Job
	if err := json.Unmarshal([]byte(all[len(all)-1].data), &ended); err != nil || ended.Id != ref.Job || ended.State != client.JobStateDone {
		t.Errorf("%+v %v", ended, err)
	}
	lines := all[:len(all)-1]
	if got := s.stream(ref.Job, false, "", -1); !slices.Equal(got, lines) {
		t.Errorf("without following: %d events, want %d", len(got), len(lines))
	}
	for i, e := range lines {
		if e.name != "log" || e.id == "" || !json.Valid([]byte(e.data)) {
			t.Errorf("event %d: %+v", i, e)
		}
		if got := s.stream(ref.Job, true, e.id, -1); !slices.Equal(got, all[i+1:]) {
			t.Errorf("from event %d on there are %d events, want %d", i, len(got), len(all)-i-1)
		}
	}
	if got := s.stream(ref.Job, true, "", 1); !slices.Equal(got, all[:1]) { // a reader who leaves
		t.Errorf("%+v", got)
	}
	follow := false
	must[[]byte](s)(s.api.GetJobLog(t.Context(), ref.Job, &client.GetJobLogParams{Follow: &follow}))
}

func (s *story) cluster() {
	t, c, api := s.t, s.c, s.api
	t.Helper()
	ctx := t.Context()
	must[client.Cluster](s)(api.GetCluster(ctx))
	token := must[client.JoinToken](s)(api.CreateNodeJoinToken(ctx, client.NodeJoinTokenRequest{Name: "c9"}))
	id, err := pki.OpenNodeIdentity(filepath.Join(t.TempDir(), "identity"))
	if err != nil {
		t.Fatal(err)
	}
	s.join(id, token)
	must[struct{}](s)(api.RemoveNode(ctx, "c9", &client.RemoveNodeParams{IdempotencyKey: key()}))

	s.keys()
	snap := must[[]byte](s)(api.SaveSnapshot(ctx))
	c.AddSite("later")
	for name, bad := range map[string][]byte{"cut off": snap[:len(snap)/2], "changed": flipped(snap)} {
		before := head(t, c)
		_, err := fleet.Answer[struct{}](api.RestoreSnapshotWithBody(ctx, "application/octet-stream", bytes.NewReader(bad)))
		if err == nil || !strings.Contains(err.Error(), "snapshot_") || head(t, c) != before {
			t.Errorf("a snapshot %s: %v", name, err)
		}
	}
	must[struct{}](s)(api.RestoreSnapshotWithBody(ctx, "application/octet-stream", bytes.NewReader(snap)))
	s.led()
	if _, err := systemtest.Try[client.Site](c, func(api *client.Client) (*http.Response, error) { return api.GetSite(ctx, "later") }); err == nil {
		t.Error("what came after the snapshot is still there")
	}
	c.AwaitVoters(3)
	must[struct{}](s)(api.TransferLeadership(ctx, client.TransferRequest{}))
	s.led()
	st := must[client.Status](s)(api.SealNode(ctx))
	share := c.Shares[0].Reveal()
	if !st.Sealed {
		t.Errorf("%+v", st)
	}
	must[client.Status](s)(api.UnsealNode(ctx, client.UnsealRequest{Share: &share}))
}

// keys rotates the keys, gives one rekeying up and brings another to its end.
func (s *story) keys() {
	t, c, api := s.t, s.c, s.api
	t.Helper()
	ctx := t.Context()
	before := must[client.Seal](s)(api.GetSeal(ctx))
	after := must[client.Seal](s)(api.RotateKeys(ctx, &client.RotateKeysParams{IdempotencyKey: key()}))
	if len(after.Terms) != 2*len(before.Terms) || after.Generation != before.Generation {
		t.Errorf("%d terms, then %d", len(before.Terms), len(after.Terms))
	}
	c.Eventually("everything is sealed again", func() (bool, string) {
		now := must[client.Seal](s)(api.GetSeal(ctx))
		return now.Rewrapped, fmt.Sprintf("%+v", now)
	})
	shares, threshold := 3, 2
	start := func() client.StartedRekey {
		return must[client.StartedRekey](s)(api.StartRekey(ctx, client.RekeyRequest{Shares: &shares, Threshold: &threshold}))
	}
	gone := start()
	must[struct{}](s)(api.CancelRekey(ctx, gone.Rekey.Id))
	if _, err := fleet.Answer[client.Seal](api.ProveRekey(ctx, gone.Rekey.Id, client.RekeyProof{Share: &gone.Shares[0]})); err == nil || !strings.Contains(err.Error(), "rekey_unknown") {
		t.Errorf("a rekeying that was given up: %v", err)
	}
	made := start()
	var now client.Seal
	for i, share := range made.Shares {
		now = must[client.Seal](s)(api.ProveRekey(ctx, made.Rekey.Id, client.RekeyProof{Share: &share}))
		if i < 2 && (now.Rekey == nil || len(now.Rekey.Proven) != i+1 || now.Generation != before.Generation) {
			t.Errorf("after %d proofs: %+v", i+1, now)
		}
		c.Shares[i] = reeve.SecretString(share)
	}
	if now.Generation != before.Generation+1 || now.Rekey != nil || !now.Rewrapped {
		t.Errorf("after the last proof: %+v", now)
	}
}

// join enrols a node that never runs, and renews its certificate.
func (s *story) join(id *pki.NodeIdentity, token client.JoinToken) {
	t, c := s.t, s.c
	t.Helper()
	csr, err := id.Request()
	if err != nil {
		t.Fatal(err)
	}
	parsed := parseToken(t, token.Token)
	made := must[client.JoinResult](s)(s.api.JoinCluster(t.Context(), client.JoinRequest{Token: parsed, Csr: csr,
		RaftAddress: "127.0.0.1:1", ApiAddress: "127.0.0.1:2", AgentAddress: "127.0.0.1:3"}))
	if err := id.Install(enrolment(t, made)); err != nil {
		t.Fatal(err)
	}
	conf, err := id.ForwardTLS()
	if err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{TLSClientConfig: conf}
	defer tr.CloseIdleConnections()
	asNode, err := client.NewClient(c.URL(c.Leader()), client.WithHTTPClient(&http.Client{Transport: &witness{t: t, doc: s.w.doc, next: tr, done: s.w.done}}))
	if err != nil {
		t.Fatal(err)
	}
	must[client.JoinResult](s)(asNode.RenewNode(t.Context(), client.RenewNodeRequest{Csr: csr, RaftAddress: "127.0.0.1:1", ApiAddress: "127.0.0.1:2", AgentAddress: "127.0.0.1:3"}))
}

func flipped(b []byte) []byte {
	b = bytes.Clone(b)
	b[len(b)/2] ^= 1
	return b
}

// description is what a connector's binary says of itself, for a build that nobody has.
func description(t *testing.T, name string) client.ConnectorRequest {
	t.Helper()
	dir, err := systemtest.Connectors()
	if err != nil {
		t.Fatal(err)
	}
	d, _, err := pluginhost.Describe(t.Context(), filepath.Join(dir, "connector-"+name))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := proto.Marshal(sdk.DescriptionToProto(d))
	if err != nil {
		t.Fatal(err)
	}
	return client.ConnectorRequest{Sha256: strings.Repeat("ab", 32), Description: raw}
}

func parseToken(t *testing.T, text string) []byte {
	t.Helper()
	parsed, err := jointoken.Parse(reeve.SecretString(text))
	if err != nil {
		t.Fatal(err)
	}
	return parsed.Secret.Bytes()
}

func enrolment(t *testing.T, res client.JoinResult) *pki.NodeEnrollment {
	t.Helper()
	block, _ := pem.Decode([]byte(res.Certificate))
	if block == nil {
		t.Fatal("no certificate")
	}
	return &pki.NodeEnrollment{Cluster: res.Cluster, Certificate: block.Bytes, CA: []byte(res.Ca), Node: &pki.Node{ID: reeve.NodeID(res.Node), Name: res.Name}}
}
