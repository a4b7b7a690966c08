package rest_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/internal/systemtest"
)

// thing is an object that lists show, as root sees it.
type thing struct {
	list, id string
	refs     []string // what else names it
	site     string
	asset    string // it is, or lies on; "": none
}

// drawn is a case of the property below: who somebody is, what they hold and what is shown
// to them. A subject is user, group, vendors, or other: somebody else.
type drawn struct {
	vendor       bool
	held, limits []drawnScope
	rules        map[string]client.AssetGroupRule // of asset groups
	put          map[string][]string
}

type drawnScope struct {
	subject string
	scope   client.Scope
}

func drawSome(t *rapid.T, label string, from ...string) *[]string {
	out := []string{}
	for _, v := range from {
		if rapid.Bool().Draw(t, label+" "+v) {
			out = append(out, v)
		}
	}
	if len(out) == 0 {
		out = from[:1]
	}
	return &out
}

func drawRule(t *rapid.T, label string) (out client.AssetGroupRule) {
	for _, what := range *drawSome(t, label+" by", "types", "sites", "tags") {
		switch what {
		case "types":
			out.Types = drawSome(t, label+" type", "mysql", "ssh")
		case "sites":
			out.Sites = drawSome(t, label+" site", "inside", "outside", "third")
		case "tags":
			out.Tags = &map[string]string{"team": rapid.SampledFrom([]string{"inside", "outside"}).Draw(t, label+" team")}
		}
	}
	return out
}

func drawPlace(t *rapid.T, label string) client.Scope {
	switch rapid.IntRange(0, 5).Draw(t, label) {
	case 0:
		return everywhere()
	case 1, 2:
		return client.Scope{AssetGroups: drawSome(t, label+" group", "one", "two")}
	}
	r := drawRule(t, label)
	return client.Scope{Types: r.Types, Sites: r.Sites, Tags: r.Tags}
}

func drawCase(assets []string) func(t *rapid.T) drawn {
	return func(t *rapid.T) drawn {
		d := drawn{vendor: rapid.Bool().Draw(t, "vendor"), rules: map[string]client.AssetGroupRule{}, put: map[string][]string{}}
		for _, g := range []string{"one", "two"} {
			if rapid.Bool().Draw(t, g+" has a rule") {
				d.rules[g] = drawRule(t, g)
			}
			d.put[g] = rapid.SliceOfNDistinct(rapid.SampledFrom(assets), 0, 3, rapid.ID).Draw(t, "put into "+g)
		}
		for i := range rapid.IntRange(0, 3).Draw(t, "assignments") {
			d.held = append(d.held, drawnScope{rapid.SampledFrom([]string{"user", "user", "group", "other"}).Draw(t, fmt.Sprint("assigned ", i)), drawPlace(t, fmt.Sprint("assignment ", i))})
		}
		for i := range rapid.IntRange(0, 2).Draw(t, "policies") {
			d.limits = append(d.limits, drawnScope{rapid.SampledFrom([]string{"user", "group", "vendors", "other"}).Draw(t, fmt.Sprint("limited ", i)), drawPlace(t, fmt.Sprint("policy ", i))})
		}
		return d
	}
}

// covers is what the contract says of scopes, said a second time.
func (d drawn) covers(s client.Scope, o thing, assets map[string]client.Asset) bool {
	if s.Everything != nil && *s.Everything {
		return true
	}
	a, lies := assets[o.asset]
	ok := s.Sites != nil || s.Types != nil || s.Tags != nil || s.AssetGroups != nil
	if s.Sites != nil {
		ok = ok && slices.Contains(*s.Sites, o.site)
	}
	if s.Types != nil {
		ok = ok && lies && slices.Contains(*s.Types, a.Connector)
	}
	if s.Tags != nil {
		for k, v := range *s.Tags {
			ok = ok && lies && a.Tags != nil && (*a.Tags)[k] == v
		}
	}
	if s.AssetGroups != nil {
		ok = ok && lies && slices.ContainsFunc(*s.AssetGroups, func(g string) bool {
			r := d.rules[g]
			return slices.Contains(d.put[g], o.asset) || d.covers(client.Scope{Sites: r.Sites, Types: r.Types, Tags: r.Tags}, o, assets)
		})
	}
	return ok
}

// shown reports whether the somebody of the case is to see the object.
func (d drawn) shown(o thing, assets map[string]client.Asset) bool {
	applies := map[string]bool{"user": true, "group": true, "vendors": d.vendor}
	held, limited, seen := false, false, false
	for _, h := range d.held {
		held = held || applies[h.subject] && d.covers(h.scope, o, assets)
	}
	for _, l := range d.limits {
		limited = limited || applies[l.subject]
		seen = seen || applies[l.subject] && d.covers(l.scope, o, assets)
	}
	return held && (!limited || seen)
}

// A5.19: whatever assignments, asset groups and access policies there are, lists show what
// they leave and nothing else, whatever names an object finds it only if a list shows it,
// and reeve can says the same.
func TestListsAndLookupsShowWhatAssignmentsAndPoliciesLeave_A5_19(t *testing.T) {
	t.Parallel()
	c := systemtest.Start(t, systemtest.Options{})
	scene(t, c)
	ctx, service, pass := t.Context(), true, canary
	c.AddSite("third")
	for i := range 6 {
		in := client.AssetRequest{Name: fmt.Sprint("more-", i), Connector: []string{"ssh", "mysql"}[i%2], Site: []string{"inside", "outside", "third"}[i%3],
			Address: "192.0.2.1", Tags: &map[string]string{"team": []string{"inside", "outside", "outside"}[i/2]}}
		if in.Site == "third" { // where no agent takes its job
			in.ManagementAccount = &client.ManagementAccountRequest{Username: "root", Password: &pass}
		}
		systemtest.Call[client.Asset](c, func(api *client.Client) (*http.Response, error) { return api.AddAsset(ctx, nil, in) })
	}
	systemtest.Call[client.PAMRole](c, func(api *client.Client) (*http.Response, error) {
		return api.AddPAMRole(ctx, nil, client.PAMRoleRequest{Name: "reader", Privileges: []string{"asset.read", "lifecycle.view", "job.read", "site.read", "agent.read"}})
	})
	quiet := func(do func(*client.Client) (*http.Response, error)) {
		t.Helper()
		if _, err := systemtest.Try[any](c, do); err != nil && !strings.Contains(err.Error(), "EOF") {
			t.Fatal(err)
		}
	}
	quiet(func(api *client.Client) (*http.Response, error) { return api.DeleteAccessPolicy(ctx, "vendors", nil) })
	for _, g := range []string{"one", "two"} {
		quiet(func(api *client.Client) (*http.Response, error) {
			return api.CreateAssetGroup(ctx, nil, client.AssetGroupRequest{Name: g})
		})
	}
	other, others := "other", "others"
	quiet(func(api *client.Client) (*http.Response, error) {
		return api.AddUser(ctx, nil, client.UserRequest{Name: other, Service: &service})
	})
	quiet(func(api *client.Client) (*http.Response, error) {
		return api.AddGroup(ctx, nil, client.GroupRequest{Name: others})
	})
	all, assets := everythingThereIs(t, c)
	names := []string{}
	for name := range assets {
		names = append(names, name)
	}
	slices.Sort(names)
	cases := rapid.Custom(drawCase(names))
	both := map[bool]int{}
	for i := range 20 {
		d := cases.Example(i)
		user, group := fmt.Sprint("user-", i), fmt.Sprint("group-", i)
		quiet(func(api *client.Client) (*http.Response, error) {
			return api.AddUser(ctx, nil, client.UserRequest{Name: user, Service: &service, Profile: &client.UserProfile{Vendor: &d.vendor}})
		})
		quiet(func(api *client.Client) (*http.Response, error) {
			return api.AddGroup(ctx, nil, client.GroupRequest{Name: group})
		})
		quiet(func(api *client.Client) (*http.Response, error) { return api.AddGroupMember(ctx, group, user, nil) })
		for g, assets := range d.put {
			rule := d.rules[g]
			quiet(func(api *client.Client) (*http.Response, error) {
				return api.EditAssetGroup(ctx, g, nil, client.AssetGroupText{Rule: &rule})
			})
			for _, asset := range assets {
				quiet(func(api *client.Client) (*http.Response, error) { return api.AddGroupedAsset(ctx, g, asset, nil) })
			}
		}
		for _, h := range d.held {
			in := client.AssignmentRequest{Role: "reader", Scope: h.scope}
			*map[string]**string{"user": &in.User, "group": &in.Group, "other": &in.User}[h.subject] = map[string]*string{"user": &user, "group": &group, "other": &other}[h.subject]
			_, err := systemtest.Try[client.Assignment](c, func(api *client.Client) (*http.Response, error) { return api.AddAssignment(ctx, nil, in) })
			if err != nil && !strings.Contains(err.Error(), "assignment_exists") {
				t.Fatal(err)
			}
		}
		for n, l := range d.limits {
			in := client.AccessPolicyRequest{Name: fmt.Sprint("policy-", i, "-", n), Scope: l.scope}
			switch vendors := true; l.subject {
			case "user":
				in.Users = &[]string{user}
			case "group":
				in.Groups = &[]string{group}
			case "vendors":
				in.Vendors = &vendors
			case "other":
				in.Users, in.Groups = &[]string{other}, &[]string{others}
			}
			quiet(func(api *client.Client) (*http.Response, error) { return api.CreateAccessPolicy(ctx, nil, in) })
		}
		token := systemtest.Call[client.CreatedToken](c, func(api *client.Client) (*http.Response, error) {
			return api.CreateToken(ctx, client.TokenRequest{Name: user, Principal: &user})
		}).Secret
		what, _ := json.Marshal(d.described())
		for _, list := range []string{"sites", "agents", "assets", "accounts", "jobs"} {
			var want []string
			for _, o := range all {
				if o.list == list && d.shown(o, assets) {
					want = append(want, o.id)
				}
			}
			slices.Sort(want)
			if diff := cmp.Diff(want, listed(t, c, list, token)); diff != "" {
				t.Errorf("case %d, %s: %s (- should be shown, + is): %s", i, what, list, diff)
			}
		}
		for _, o := range all {
			shown := d.shown(o, assets)
			both[shown]++
			prefix, _, _ := strings.Cut(o.id, "_")
			absent := looked(t, c, o.list, prefix+"_"+strings.Repeat("0", 26), token)
			for _, ref := range append(o.refs, o.id) {
				if got := looked(t, c, o.list, ref, token); shown != strings.HasPrefix(got, "200 ") || !shown && got != absent {
					t.Errorf("case %d, %s: %s %s is shown: %t, and its answer is %s; that of what is not there is %s", i, what, o.list, ref, shown, got, absent)
				}
			}
			if kind := map[string]string{"sites": "site", "assets": "asset", "accounts": "account"}[o.list]; kind != "" {
				p := map[string]string{"site": "site.read", "asset": "asset.read", "account": "lifecycle.view"}[kind]
				g := send(t, c, 0, call{method: "GET", path: "/v1/can?user=" + user + "&privilege=" + p + "&" + kind + "=" + o.id, token: c.RootToken.Reveal()})
				var says client.Decision
				if err := json.Unmarshal(g.raw, &says); err != nil || says.Allowed != shown {
					t.Errorf("case %d, %s: can says of %s %s: %s", i, what, o.list, o.id, g.raw)
				}
			}
		}
		for n := range d.limits { // those of vendors would limit the next
			quiet(func(api *client.Client) (*http.Response, error) {
				return api.DeleteAccessPolicy(ctx, fmt.Sprint("policy-", i, "-", n), nil)
			})
		}
		for g, assets := range d.put {
			quiet(func(api *client.Client) (*http.Response, error) {
				return api.EditAssetGroup(ctx, g, nil, client.AssetGroupText{})
			})
			for _, asset := range assets {
				quiet(func(api *client.Client) (*http.Response, error) { return api.RemoveGroupedAsset(ctx, g, asset, nil) })
			}
		}
	}
	if both[true] < 20 || both[false] < 20 {
		t.Errorf("the cases are one-sided: %v", both)
	}
}

func (d drawn) described() map[string]any {
	say := func(all []drawnScope) (out []string) {
		for _, s := range all {
			text, _ := json.Marshal(s.scope)
			out = append(out, s.subject+" "+string(text))
		}
		return out
	}
	return map[string]any{"vendor": d.vendor, "held": say(d.held), "limits": say(d.limits), "rules": d.rules, "put": d.put}
}

// everythingThereIs is what root sees, and its assets by name.
func everythingThereIs(t *testing.T, c *systemtest.Cluster) (out []thing, assets map[string]client.Asset) {
	t.Helper()
	ctx := t.Context()
	assets = map[string]client.Asset{}
	for _, a := range systemtest.Call[client.AssetPage](c, func(api *client.Client) (*http.Response, error) { return api.ListAssets(ctx, nil) }).Items {
		assets[a.Name] = a
		out = append(out, thing{"assets", a.Id, []string{a.Name}, a.Site, a.Name})
	}
	for _, s := range systemtest.Call[client.SitePage](c, func(api *client.Client) (*http.Response, error) { return api.ListSites(ctx, nil) }).Items {
		out = append(out, thing{"sites", s.Id, []string{s.Name}, s.Name, ""})
	}
	for _, a := range systemtest.Call[client.AgentPage](c, func(api *client.Client) (*http.Response, error) { return api.ListAgents(ctx, nil) }).Items {
		out = append(out, thing{"agents", a.Id, []string{a.Name}, a.Site, ""})
	}
	for _, a := range systemtest.Call[client.AccountPage](c, func(api *client.Client) (*http.Response, error) { return api.ListAccounts(ctx, nil) }).Items {
		out = append(out, thing{"accounts", a.Id, []string{a.Name + "@" + a.Asset}, a.Site, a.Asset})
	}
	for _, j := range systemtest.Call[client.JobPage](c, func(api *client.Client) (*http.Response, error) { return api.ListJobs(ctx, nil) }).Items {
		out = append(out, thing{"jobs", j.Id, nil, j.Site, *j.Asset})
	}
	return out, assets
}

// listed are the ids that a list shows, sorted; none if somebody holds nothing to list.
func listed(t *testing.T, c *systemtest.Cluster, list, token string) (out []string) {
	t.Helper()
	g := send(t, c, 0, call{method: "GET", path: "/v1/" + list, token: token})
	var page struct{ Items []struct{ ID string } }
	if err := json.Unmarshal(g.raw, &page); err != nil || g.StatusCode != http.StatusOK && g.problem.Code != "not_permitted" {
		t.Fatalf("%s: %d %s", list, g.StatusCode, g.raw)
	}
	for _, item := range page.Items {
		out = append(out, item.ID)
	}
	slices.Sort(out)
	return out
}

// looked is the answer to a look-up, without what differs from call to call.
func looked(t *testing.T, c *systemtest.Cluster, list, ref, token string) string {
	t.Helper()
	g := send(t, c, 0, call{method: "GET", path: "/v1/" + list + "/" + url.PathEscape(ref), token: token})
	text := strings.ReplaceAll(string(g.raw), ref, "REF")
	if g.problem.RequestId != nil {
		text = strings.ReplaceAll(text, *g.problem.RequestId, "REQUEST")
	}
	return fmt.Sprint(g.StatusCode, " ", text)
}
