package sdk_test

import (
	"testing"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

func TestPlanHashIsStable(t *testing.T) {
	t.Parallel()
	plan := sdk.Plan{Action: sdk.Provision, Account: "alice", Steps: []sdk.Step{
		{ID: "create", Title: "Create <the> account", Command: "useradd -m -- 'alice' && true", Compensation: "userdel", Changes: true},
		{ID: "read", Title: "Lies zurück", Command: "id"},
	}}
	for _, c := range []struct {
		name string
		plan sdk.Plan
		want string
	}{
		// printf %s '{"action":"rotate","account":"bob","steps":[]}' | sha256sum
		{"no steps", sdk.Plan{Action: sdk.Rotate, Account: "bob"}, "d39a81e949bd51ca148dba3aa23f98784c5e0ca42fcced0c0869c0bc0b5ab4d3"},
		{"steps", plan, "6db7342dcfd893b76b722ec37aa4d4c1baf5e51d0921a56a1107d0c73966489f"},
	} {
		if got := sdk.PlanHash(c.plan); got != c.want {
			t.Errorf("%s: hash %s, want %s: approvals given to earlier plans would be void", c.name, got, c.want)
		}
	}
}

func TestPlanHashCoversEveryField(t *testing.T) {
	t.Parallel()
	base := func() sdk.Plan {
		return sdk.Plan{Action: sdk.Provision, Account: "a", Steps: []sdk.Step{{ID: "i", Title: "t", Command: "c", Compensation: "u", Changes: true}}}
	}
	hashes := map[string]string{sdk.PlanHash(base()): "unchanged"}
	for name, change := range map[string]func(*sdk.Plan){
		"action":       func(p *sdk.Plan) { p.Action = sdk.Rotate },
		"account":      func(p *sdk.Plan) { p.Account = "b" },
		"id":           func(p *sdk.Plan) { p.Steps[0].ID = "x" },
		"title":        func(p *sdk.Plan) { p.Steps[0].Title = "x" },
		"command":      func(p *sdk.Plan) { p.Steps[0].Command = "x" },
		"compensation": func(p *sdk.Plan) { p.Steps[0].Compensation = "" },
		"changes":      func(p *sdk.Plan) { p.Steps[0].Changes = false },
		"more steps":   func(p *sdk.Plan) { p.Steps = append(p.Steps, p.Steps[0]) },
	} {
		p := base()
		change(&p)
		h := sdk.PlanHash(p)
		if other, ok := hashes[h]; ok {
			t.Errorf("%s: same hash as %s", name, other)
		}
		hashes[h] = name
	}
}
