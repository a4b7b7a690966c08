package rest_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/controller/rest"
	"github.com/reeve-pam/reeve/internal/systemtest"
	"github.com/reeve-pam/reeve/internal/testlab"
)

var updateMatrix = flag.Bool("update", false, "write testdata/authz.txt anew; look at the difference before it is committed")

// who is a column of the matrix: a principal of one kind, as a service account with a token.
type who struct {
	name   string
	roles  map[string]client.Scope
	group  bool // it has them through a group
	limits []string
	vendor bool // the access policy of vendors shows it the inside alone
	change func(t *testing.T, c *systemtest.Cluster, user string)
	token  string
}

func everywhere() client.Scope { yes := true; return client.Scope{Everything: &yes} }

func inSites(names ...string) client.Scope { return client.Scope{Sites: &names} }

// columns are who is asked for in the matrix.
func columns() []*who {
	out := []*who{{name: "nobody"}, {name: "stranger", roles: map[string]client.Scope{}}, {name: "root"}}
	for _, role := range []string{"administrator", "approver", "asset-manager", "auditor", "lifecycle-operator", "task-author", "task-operator", "user"} {
		out = append(out, &who{name: role, roles: map[string]client.Scope{role: everywhere()}},
			&who{name: role + "/site", roles: map[string]client.Scope{role: inSites("inside")}})
	}
	tagged := client.Scope{Tags: &map[string]string{"team": "inside"}}
	grouped := client.Scope{AssetGroups: &[]string{"inside"}}
	return append(out,
		&who{name: "administrator/tag", roles: map[string]client.Scope{"administrator": tagged}},
		&who{name: "administrator/assets", roles: map[string]client.Scope{"administrator": grouped}},
		&who{name: "administrator/vendor", roles: map[string]client.Scope{"administrator": everywhere()}, vendor: true},
		&who{name: "administrator/group", roles: map[string]client.Scope{"administrator": inSites("inside")}, group: true},
		&who{name: "administrator/token", roles: map[string]client.Scope{"administrator": everywhere()}, limits: []string{"asset.read", "site.read"}},
		&who{name: "administrator/disabled", roles: map[string]client.Scope{"administrator": everywhere()}, change: func(t *testing.T, c *systemtest.Cluster, user string) {
			systemtest.Call[client.User](c, func(api *client.Client) (*http.Response, error) { return api.DisableUser(t.Context(), user, nil) })
		}},
	)
}

// Every operation, by every kind of principal, to an object inside and one outside its
// scope, against a table that people have read. What is allowed stops at the contract
// check, by a parameter no call takes, so that nothing happens.
func TestTheMatrixOfOperationsAndPrincipals_Z1(t *testing.T) {
	t.Parallel()
	c := systemtest.Start(t, systemtest.Options{})
	objects := scene(t, c)
	cols := columns()
	for i, w := range cols {
		w.enrol(t, c, fmt.Sprintf("col-%d", i))
	}
	ops := operations(t)
	slices.SortFunc(ops, func(a, b operation) int { return strings.Compare(a.id, b.id) })
	var rows []string
	header := []string{"operation", "object"}
	for _, w := range cols {
		header = append(header, w.name)
	}
	rows = append(rows, strings.Join(header, " "))
	for _, op := range ops {
		if openTo[op.id] != "" {
			continue
		}
		for _, place := range objects.places(op) {
			row := []string{op.id, place}
			for _, w := range cols {
				row = append(row, verdict(t, c, op, objects.path(op, place), w.token))
			}
			rows = append(rows, strings.Join(row, " "))
		}
	}
	got := strings.Join(rows, "\n") + "\n"
	const file = "testdata/authz.txt"
	if *updateMatrix {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil { //nolint:gosec // for people
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	differ := differing(string(want), got)
	if differ > 0 {
		t.Errorf("%d cells differ from %s (- the table, + what happens): %s", differ, file, cmp.Diff(strings.Split(string(want), "\n"), rows))
	}
	_, _ = fmt.Fprintf(os.Stdout, "authz: %d routes, %d principals, %d cells, %d differ\n", len(ops)-len(openTo), len(cols), (len(rows)-1)*len(cols), differ)
}

// CVE-2025-0937, GHSA-xg4h, CVE-2022-36130: lists, page by page, show what is inside and nothing else, streams, searches and bodies
// reach no further, and what is outside answers exactly as what is not there.
func TestWhatIsOutsideIsNotThere_CVE_2025_0937_CVE_2022_36130(t *testing.T) {
	t.Parallel()
	c := systemtest.Start(t, systemtest.Options{})
	objects := scene(t, c)
	for i, inside := range []*who{
		{name: "by a site", roles: map[string]client.Scope{"administrator": inSites("inside")}},
		{name: "by an asset group", roles: map[string]client.Scope{"administrator": {AssetGroups: &[]string{"inside"}}}},
		{name: "by an access policy", roles: map[string]client.Scope{"administrator": everywhere()}, vendor: true},
	} {
		inside.enrol(t, c, fmt.Sprint("limited-", i))
		t.Run(inside.name, func(t *testing.T) { outsideIsNotThere(t, c, objects, inside) })
	}
}

func outsideIsNotThere(t *testing.T, c *systemtest.Cluster, objects things, inside *who) {
	t.Helper()
	lists := []string{"sites", "agents", "assets", "accounts", "jobs"}
	for _, id := range rest.Filtered() {
		if !slices.Contains(lists, strings.ToLower(strings.TrimPrefix(id, "List"))) {
			t.Errorf("%s shows what its caller may see, and is not asked here", id)
		}
	}
	for _, list := range lists {
		// Page by page it is the same, also from where somebody else's page ended.
		for cursor, pages := "", 0; ; pages++ {
			by, all := inside.token, call{method: "GET", path: "/v1/" + list + "?limit=1" + cursor, token: c.RootToken.Reveal()}
			whole := send(t, c, 0, all)
			all.token = by
			mine := send(t, c, 0, all)
			var next struct{ Next string }
			if err := json.Unmarshal(whole.raw, &next); err != nil || mine.StatusCode != http.StatusOK {
				t.Fatalf("%s: %v %s", list, err, mine.raw)
			}
			if bytes.Contains(mine.raw, []byte("outside")) {
				t.Errorf("page %d of %s: %s", pages, list, mine.raw)
			}
			for _, at := range objects {
				if bytes.Contains(mine.raw, []byte(at["outside"])) {
					t.Errorf("page %d of %s shows %s: %s", pages, list, at["outside"], mine.raw)
				}
			}
			if next.Next == "" {
				break
			}
			cursor = "&cursor=" + url.QueryEscape(next.Next)
		}
		g := send(t, c, 0, call{method: "GET", path: "/v1/" + list, token: inside.token})
		var page struct{ Items []struct{ ID string } }
		if err := json.Unmarshal(g.raw, &page); err != nil || g.StatusCode != http.StatusOK {
			t.Fatalf("%s: %d %v", list, g.StatusCode, err)
		}
		for _, item := range page.Items {
			if list == "jobs" { // the asset's own job as well
				if _, err := systemtest.Try[client.Job](c, func(*client.Client) (*http.Response, error) {
					return c.Stranger(0, inside.token).GetJob(t.Context(), item.ID)
				}); err != nil {
					t.Errorf("jobs lists %s: %v", item.ID, err)
				}
			} else if want := objects[strings.TrimSuffix(list, "s")]["inside"]; item.ID != want {
				t.Errorf("%s lists %s, want %s alone", list, item.ID, want)
			}
		}
		unplaced := (list == "sites" || list == "agents") && inside.name == "by an asset group" // which holds none
		if (len(page.Items) == 0) != unplaced || bytes.Contains(g.raw, []byte("outside")) {
			t.Errorf("%s: %s", list, g.raw)
		}
	}
	body := func(format string, args ...any) string { return fmt.Sprintf(format, args...) }
	for what, try := range map[string]func(ref map[string]string) call{
		"get site":       func(ref map[string]string) call { return call{method: "GET", path: "/v1/sites/" + ref["site"]} },
		"get agent":      func(ref map[string]string) call { return call{method: "GET", path: "/v1/agents/" + ref["agent"]} },
		"get asset":      func(ref map[string]string) call { return call{method: "GET", path: "/v1/assets/" + ref["asset"]} },
		"get account":    func(ref map[string]string) call { return call{method: "GET", path: "/v1/accounts/" + ref["account"]} },
		"get job":        func(ref map[string]string) call { return call{method: "GET", path: "/v1/jobs/" + ref["job"]} },
		"follow its log": func(ref map[string]string) call { return call{method: "GET", path: "/v1/jobs/" + ref["job"] + "/log"} },
		"assets of site": func(ref map[string]string) call { return call{method: "GET", path: "/v1/assets?site=" + ref["site"]} },
		"accounts of asset": func(ref map[string]string) call {
			return call{method: "GET", path: "/v1/accounts?asset=" + ref["asset"]}
		},
		"jobs of account": func(ref map[string]string) call {
			return call{method: "GET", path: "/v1/jobs?account=" + ref["account"]}
		},
		"reveal": func(ref map[string]string) call {
			return call{method: "POST", path: "/v1/accounts/" + ref["account"] + "/secret", body: `{"reason":"curiosity"}`}
		},
		"rotate": func(ref map[string]string) call {
			return call{method: "POST", path: "/v1/accounts/" + ref["account"] + "/rotate"}
		},
		"retire": func(ref map[string]string) call { return call{method: "DELETE", path: "/v1/assets/" + ref["asset"]} },
		"add an asset": func(ref map[string]string) call {
			return call{method: "POST", path: "/v1/assets", body: body(`{"name":"new","site":"%s","connector":"ssh","address":"192.0.2.1"}`, ref["site"])}
		},
		"let an agent join": func(ref map[string]string) call {
			return call{method: "POST", path: "/v1/agents/join-tokens", body: body(`{"name":"new","site":"%s"}`, ref["site"])}
		},
		"provision": func(ref map[string]string) call {
			return call{method: "POST", path: "/v1/accounts", body: body(`{"assets":["%s"],"name":"new","role":"mysql-db-rw"}`, ref["asset"])}
		},
		"put it into a group": func(ref map[string]string) call {
			return call{method: "PUT", path: "/v1/asset-groups/inside/assets/" + ref["asset"]}
		},
		"put it into a group that is not there": func(ref map[string]string) call {
			return call{method: "PUT", path: "/v1/asset-groups/none/assets/" + ref["asset"]}
		},
		"provision inside and outside": func(ref map[string]string) call {
			return call{method: "POST", path: "/v1/accounts", body: body(`{"assets":["%s","%s"],"name":"new","role":"mysql-db-rw"}`, objects["asset"]["inside"], ref["asset"])}
		},
		"verify": func(ref map[string]string) call {
			return call{method: "POST", path: "/v1/assets/" + ref["asset"] + "/verify"}
		},
		"label it": func(ref map[string]string) call {
			return call{method: "PUT", path: "/v1/assets/" + ref["asset"] + "/tags", body: `{"tags":{"team":"inside"}}`}
		},
		"search the jobs of its account": func(ref map[string]string) call {
			return call{method: "GET", path: "/v1/jobs?state=done&account=" + ref["account"]}
		},
		"follow its log, without waiting": func(ref map[string]string) call {
			return call{method: "GET", path: "/v1/jobs/" + ref["job"] + "/log?follow=false"}
		},
		"cancel its job": func(ref map[string]string) call {
			return call{method: "POST", path: "/v1/jobs/" + ref["job"] + "/cancel"}
		},
		"ban its agent": func(ref map[string]string) call {
			return call{method: "POST", path: "/v1/agents/" + ref["agent"] + "/ban", body: `{"reason":"malice"}`}
		},
		"ask about it": func(ref map[string]string) call {
			return call{method: "GET", path: "/v1/can?privilege=asset.read&asset=" + ref["asset"]}
		},
	} {
		answer := func(ref map[string]string) string {
			in := try(ref)
			in.token = inside.token
			g := send(t, c, 0, in)
			text := string(g.raw)
			if g.problem.RequestId != nil {
				text = strings.ReplaceAll(text, *g.problem.RequestId, "REQUEST")
			}
			for _, id := range ref {
				text = strings.ReplaceAll(text, id, "REF")
			}
			if g.StatusCode != http.StatusNotFound {
				t.Errorf("%s: %d %s", what, g.StatusCode, g.raw)
			}
			return text
		}
		outside, missing := map[string]string{}, map[string]string{}
		for param, at := range objects {
			outside[param] = at["outside"]
			prefix, _, _ := strings.Cut(at["outside"], "_")
			missing[param] = prefix + "_" + strings.Repeat("0", 26)
		}
		if diff := cmp.Diff(answer(missing), answer(outside)); diff != "" {
			t.Errorf("%s tells what is outside from what is not there (- missing, + outside): %s", what, diff)
		}
	}
	// CVE-2026-33343: of a batch that names what is outside, nothing was done to what is inside.
	if g := send(t, c, 0, call{method: "GET", path: "/v1/accounts", token: c.RootToken.Reveal()}); bytes.Contains(g.raw, []byte(`"name":"new"`)) {
		t.Errorf("half a batch was done: %s", g.raw)
	}
}

// differing counts cells, by operation, object and column.
func differing(want, got string) (n int) {
	cells := func(table string) map[string]string {
		out, lines := map[string]string{}, strings.Split(strings.TrimSpace(table), "\n")
		cols := strings.Fields(lines[0])
		for _, line := range lines[1:] {
			f := strings.Fields(line)
			for i := 2; i < len(f) && i < len(cols); i++ {
				out[f[0]+" "+f[1]+" "+cols[i]] = f[i]
			}
		}
		return out
	}
	w, g := cells(want), cells(got)
	for k := range maps.Keys(w) {
		if g[k] != w[k] {
			n++
		}
	}
	for k := range maps.Keys(g) {
		if _, known := w[k]; !known {
			n++
		}
	}
	return n
}

// verdict is what became of a call: yes, no (403), session (it takes no token), hidden (404 for what is there), or
// unknown (401).
func verdict(t *testing.T, c *systemtest.Cluster, op operation, path, token string) string {
	t.Helper()
	g := send(t, c, 0, call{method: op.method, path: path + "?nobody-takes=this", token: token})
	switch {
	case g.StatusCode == http.StatusUnauthorized:
		return "unknown"
	case g.StatusCode == http.StatusForbidden && g.problem.Code == "not_permitted":
		return "no"
	case g.StatusCode == http.StatusForbidden && g.problem.Code == "session_needed":
		return "session"
	case g.StatusCode == http.StatusNotFound:
		return "hidden"
	case g.StatusCode == http.StatusUnprocessableEntity && g.problem.Code == "unknown_parameter":
		return "yes"
	default:
		return fmt.Sprintf("%d:%s", g.StatusCode, g.problem.Code)
	}
}

// things are objects inside and outside of the scopes of the matrix, by path parameter.
type things map[string]map[string]string

// scene makes two sites with an agent, an asset, an account and a job each. The asset group
// inside holds the asset inside, and the access policy of vendors shows the site inside.
func scene(t *testing.T, c *systemtest.Cluster) things {
	t.Helper()
	out := things{}
	put := func(param, place, id string) {
		if out[param] == nil {
			out[param] = map[string]string{}
		}
		out[param][place] = id
	}
	database := testlab.MariaDB(t, testlab.MariaDBOptions{})
	for _, place := range []string{"inside", "outside"} {
		put("agent", place, c.Agent(place, systemtest.AgentOptions{}).ID)
		put("site", place, c.AddSite(place).Id)
		target := c.AddAsset(place, place+"-db", systemtest.DatabaseTarget(database))
		a := systemtest.Call[client.Asset](c, func(api *client.Client) (*http.Response, error) {
			return api.LabelAsset(t.Context(), target.Asset, nil, client.TagsRequest{Tags: map[string]string{"team": place}})
		})
		put("asset", place, a.Id)
		account := c.Provision("of_"+place, target)
		put("account", place, account.Id)
		of := client.ListJobsParams{Account: &account.Id}
		put("job", place, systemtest.Call[client.JobPage](c, func(api *client.Client) (*http.Response, error) { return api.ListJobs(t.Context(), &of) }).Items[0].Id)
	}
	systemtest.Call[client.AssetGroup](c, func(api *client.Client) (*http.Response, error) {
		return api.CreateAssetGroup(t.Context(), nil, client.AssetGroupRequest{Name: "inside"})
	})
	systemtest.Call[struct{}](c, func(api *client.Client) (*http.Response, error) {
		return api.AddGroupedAsset(t.Context(), "inside", out["asset"]["inside"], nil)
	})
	vendors := true
	systemtest.Call[client.AccessPolicy](c, func(api *client.Client) (*http.Response, error) {
		return api.CreateAccessPolicy(t.Context(), nil, client.AccessPolicyRequest{Name: "vendors", Vendors: &vendors, Scope: inSites("inside")})
	})
	return out
}

// places are inside and outside for an operation on such an object, else whole.
func (o things) places(op operation) []string {
	for param := range o {
		if strings.Contains(op.template, "{"+param+"}") {
			return []string{"inside", "outside"}
		}
	}
	return []string{"whole"}
}

func (o things) path(op operation, place string) string {
	path := op.template
	for param, at := range o {
		path = strings.ReplaceAll(path, "{"+param+"}", at[place])
	}
	return fill.Replace(path)
}

// enrol makes the principal of a column and its token.
func (w *who) enrol(t *testing.T, c *systemtest.Cluster, user string) {
	switch {
	case w.name == "root":
		w.token = c.RootToken.Reveal()
		return
	case w.roles == nil:
		return
	}
	ctx, service := t.Context(), true
	systemtest.Call[client.User](c, func(api *client.Client) (*http.Response, error) {
		return api.AddUser(ctx, nil, client.UserRequest{Name: user, Service: &service, Profile: &client.UserProfile{Vendor: &w.vendor}})
	})
	subject := client.AssignmentRequest{User: &user}
	if w.group {
		group := user + "-group"
		systemtest.Call[client.Group](c, func(api *client.Client) (*http.Response, error) {
			return api.AddGroup(ctx, nil, client.GroupRequest{Name: group})
		})
		systemtest.Call[struct{}](c, func(api *client.Client) (*http.Response, error) { return api.AddGroupMember(ctx, group, user, nil) })
		subject = client.AssignmentRequest{Group: &group}
	}
	for role, scope := range w.roles {
		in := subject
		in.Role, in.Scope = role, scope
		systemtest.Call[client.Assignment](c, func(api *client.Client) (*http.Response, error) { return api.AddAssignment(ctx, nil, in) })
	}
	in := client.TokenRequest{Name: user, Principal: &user}
	if w.limits != nil {
		in.Privileges = &w.limits
	}
	w.token = systemtest.Call[client.CreatedToken](c, func(api *client.Client) (*http.Response, error) { return api.CreateToken(ctx, in) }).Secret
	if w.change != nil {
		w.change(t, c, user)
	}
}

// CVE-2026-33413, CVE-2026-33343: an operation within another one needs what it needs by
// itself, and a replay needs what the first call needed.
func TestWhatACallDoesBesidesIsAskedForToo_CVE_2026_33413_CVE_2026_33343(t *testing.T) {
	t.Parallel()
	c := systemtest.Start(t, systemtest.Options{})
	ctx := t.Context()
	c.RegisterConnectors()
	c.AddSite("inside")
	service, user := true, "adder"
	systemtest.Call[client.User](c, func(api *client.Client) (*http.Response, error) {
		return api.AddUser(ctx, nil, client.UserRequest{Name: user, Service: &service})
	})
	systemtest.Call[client.PAMRole](c, func(api *client.Client) (*http.Response, error) {
		return api.AddPAMRole(ctx, nil, client.PAMRoleRequest{Name: "adder", Privileges: []string{"asset.manage", "asset.read", "site.read"}})
	})
	given := systemtest.Call[client.Assignment](c, func(api *client.Client) (*http.Response, error) {
		return api.AddAssignment(ctx, nil, client.AssignmentRequest{User: &user, Role: "adder", Scope: inSites("inside")})
	})
	systemtest.Call[client.Assignment](c, func(api *client.Client) (*http.Response, error) {
		return api.AddAssignment(ctx, nil, client.AssignmentRequest{User: &user, Role: "adder", Scope: client.Scope{Tags: &map[string]string{"team": "other"}}})
	})
	token := systemtest.Call[client.CreatedToken](c, func(api *client.Client) (*http.Response, error) {
		return api.CreateToken(ctx, client.TokenRequest{Name: user, Principal: &user})
	}).Secret
	add := func(extra, key string) got {
		return send(t, c, 0, call{method: "POST", path: "/v1/assets", token: token, header: http.Header{"Idempotency-Key": {key}},
			body: `{"name":"new","site":"inside","connector":"ssh","address":"192.0.2.1"` + extra + `}`})
	}
	if g := add(`,"management_account":{"username":"root","password":"Canary-management"}`, "key-0001"); g.StatusCode != http.StatusForbidden || g.problem.Code != "not_permitted" {
		t.Errorf("a management account without lifecycle.configure: %d %s", g.StatusCode, g.raw)
	}
	first := add("", "key-0002")
	if again := add("", "key-0002"); first.StatusCode != http.StatusCreated || !bytes.Equal(first.raw, again.raw) {
		t.Fatalf("%d %s, again: %d %s", first.StatusCode, first.raw, again.StatusCode, again.raw)
	}
	systemtest.Call[struct{}](c, func(api *client.Client) (*http.Response, error) { return api.DeleteAssignment(ctx, given.Id, nil) })
	if g := add("", "key-0002"); g.StatusCode != http.StatusForbidden || bytes.Contains(g.raw, []byte("192.0.2.1")) {
		t.Errorf("a replay after the assignment was taken back: %d %s", g.StatusCode, g.raw)
	}
}

// CVE-2024-33891: there is one way in. What is no operation of the contract does not exist,
// and every spelling of one that needs a token needs it.
func TestThereIsOneWayIn_CVE_2024_33891(t *testing.T) {
	t.Parallel()
	c := systemtest.Start(t, systemtest.Options{})
	before := systemtest.Call[client.UserPage](c, func(api *client.Client) (*http.Response, error) { return api.ListUsers(t.Context(), nil) })
	for _, prefix := range []string{"", "/", "/v0", "/v2", "/api", "/api/v1", "/V1", "/v1/", "/v1//", "/v1;x=1", "/v1/.", "/v1/x/..", "/v1/%2e", "/soap", "/legacy/v1", "//v1"} {
		for _, path := range []string{"/users", "/users/", "/users.json", "/USERS", "/users%2f", "/users?token=x", "/users?access_token=x"} {
			for _, method := range []string{"GET", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PROPFIND"} {
				for _, header := range []http.Header{nil, {"X-Http-Method-Override": {"GET"}}, {"X-Original-Url": {"/v1/status"}}, {"Cookie": {"token=" + c.RootToken.Reveal()}}} {
					g := send(t, c, 0, call{method: method, path: prefix + path, header: header, body: `{"name":"intruder"}`})
					if g.StatusCode < 400 || bytes.Contains(g.raw, []byte(`"root"`)) {
						t.Errorf("%s %s%s %v: %d %s", method, prefix, path, header, g.StatusCode, g.raw)
					}
				}
			}
		}
	}
	after := systemtest.Call[client.UserPage](c, func(api *client.Client) (*http.Response, error) { return api.ListUsers(t.Context(), nil) })
	if diff := cmp.Diff(before, after); diff != "" {
		t.Error(diff)
	}
}
