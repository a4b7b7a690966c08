package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/reeve-pam/reeve/api/client"
)

// roleFile is a role as people write it.
type roleFile struct {
	Name        string      `yaml:"name"`
	Connector   string      `yaml:"connector"`
	Version     int64       `yaml:"version,omitempty"` // of an edit: the one it began with
	Title       string      `yaml:"title"`
	Description string      `yaml:"description,omitempty"`
	HighRisk    bool        `yaml:"high_risk,omitempty"`
	Params      []roleParam `yaml:"params,omitempty"`
	Phases      phasesFile  `yaml:"phases"`
}

type roleParam struct {
	Name     string `yaml:"name"`
	Help     string `yaml:"help,omitempty"`
	Pattern  string `yaml:"pattern"`
	Required bool   `yaml:"required,omitempty"`
}

// phasesFile are the commands of each phase, in the order of an account's life.
type phasesFile struct {
	Create  []string `yaml:"create,omitempty"`
	Grant   []string `yaml:"grant,omitempty"`
	Rotate  []string `yaml:"rotate,omitempty"`
	Enable  []string `yaml:"enable,omitempty"`
	Disable []string `yaml:"disable,omitempty"`
	Revoke  []string `yaml:"revoke,omitempty"`
	Remove  []string `yaml:"remove,omitempty"`
	Verify  []string `yaml:"verify,omitempty"`
	Facts   []string `yaml:"facts,omitempty"`
}

type phase struct {
	name     string
	commands *[]string
}

func (p *phasesFile) each() []phase {
	return []phase{{"create", &p.Create}, {"grant", &p.Grant}, {"rotate", &p.Rotate}, {"enable", &p.Enable}, {"disable", &p.Disable},
		{"revoke", &p.Revoke}, {"remove", &p.Remove}, {"verify", &p.Verify}, {"facts", &p.Facts}}
}

// readRole reads a role file; - is standard input.
func (a *app) readRole(path string) (roleFile, error) {
	var f roleFile
	var raw []byte
	var err error
	if path == "-" {
		if raw, err = io.ReadAll(io.LimitReader(a.in, 1<<20)); err != nil {
			err = usagef("--file: standard input cannot be read: %w", err)
		}
	} else {
		raw, err = readNamed("--file", path)
	}
	if err != nil {
		return f, err
	}
	dec := yaml.NewDecoder(bytes.NewReader(raw))
	dec.KnownFields(true)
	if err := dec.Decode(&f); err != nil {
		return f, usagef("--file %s: %s\n  to do: see reeve role add --help, or begin with: reeve role show ROLE --export", path, yamlFault(err))
	}
	return f, nil
}

func (f *roleFile) params() *[]client.RoleParamRequest {
	out := []client.RoleParamRequest{}
	for _, p := range f.Params {
		out = append(out, client.RoleParamRequest{Name: p.Name, Help: &p.Help, Pattern: p.Pattern, Required: &p.Required})
	}
	return &out
}

func (f *roleFile) phases() *[]client.RolePhaseRequest {
	out := []client.RolePhaseRequest{}
	for _, p := range f.Phases.each() {
		if len(*p.commands) > 0 {
			out = append(out, client.RolePhaseRequest{Phase: client.RolePhaseRequestPhase(p.name), Commands: *p.commands})
		}
	}
	return &out
}

// fileOf is the role file of a role.
func fileOf(r client.Role) roleFile {
	f := roleFile{Name: r.Name, Connector: r.Connector, Version: int64(r.Version), Title: r.Title, Description: str(r.Description), HighRisk: r.HighRisk}
	for _, p := range r.Params {
		f.Params = append(f.Params, roleParam{Name: p.Name, Help: p.Help, Pattern: str(p.Pattern), Required: p.Required})
	}
	for _, ph := range r.Phases {
		for _, p := range f.Phases.each() {
			if p.name == ph.Phase {
				*p.commands = ph.Commands
			}
		}
	}
	return f
}

func (a *app) roleCmd() *cobra.Command {
	return group("role", "See the role catalogue, and add roles of your own", "  reeve role list\n  reeve role clone linux-log-reader our-log-reader",
		a.roleListCmd(), a.roleShowCmd(), a.roleAddCmd(), a.roleCloneCmd(), a.roleEditCmd(), a.roleRetireCmd())
}

func (a *app) roleListCmd() *cobra.Command {
	var connector string
	list := &cobra.Command{
		Use: "list", Short: "List the role catalogue", Example: "  reeve role list --connector ssh", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			return listed(a, []any{"name", "connector", "title", "kind", "risk", "params", "version"}, func(cur *string) ([]client.Role, *string, error) {
				p := &client.ListRolesParams{Cursor: cur}
				if connector != "" {
					p.Connector = &connector
				}
				page, err := call[client.RolePage](c.ListRoles(cmd.Context(), p))
				return page.Items, page.Next, err
			}, func(r client.Role) []any {
				risk, kind := "", "custom"
				if r.HighRisk {
					risk = "⚠ high"
				}
				if r.Predefined {
					kind = "predefined"
				}
				var params []string
				for _, p := range r.Params {
					params = append(params, p.Name)
				}
				return []any{r.Name, r.Connector, r.Title, kind, risk, strings.Join(params, ", "), r.Version}
			})
		},
	}
	list.Flags().StringVar(&connector, "connector", "", "only roles of this connector")
	return list
}

func (a *app) roleShowCmd() *cobra.Command {
	var version int64
	var export bool
	show := &cobra.Command{
		Use: "show NAME", Short: "Show a role with its commands",
		Example: "  reeve role show linux-admin-sudo\n  reeve role show our-log-reader --export > our-log-reader.yaml", Args: exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			p := &client.GetRoleParams{}
			if version != 0 {
				p.Version = &version
			}
			r, err := call[client.Role](c.GetRole(cmd.Context(), args[0], p))
			if err != nil {
				return err
			}
			if export {
				return a.exportRole(fileOf(r))
			}
			return a.show(r, func() { a.describeRole(r) })
		},
	}
	show.Flags().Int64Var(&version, "version", 0, "that version, also of a retired role")
	show.Flags().BoolVar(&export, "export", false, "as a file that role add and role edit take")
	return show
}

// exportRole prints a role file, which is YAML, and so may be JSON.
func (a *app) exportRole(f roleFile) error {
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(f); err != nil {
		return err
	}
	var v map[string]any
	if err := yaml.Unmarshal(b.Bytes(), &v); err != nil {
		return err
	}
	return a.show(v, func() { _, _ = a.out.Write(b.Bytes()) })
}

func (a *app) describeRole(r client.Role) {
	kind := "custom, by " + str(r.CreatedBy)
	if r.Predefined {
		kind = "predefined"
	}
	risk := ""
	if r.HighRisk {
		risk = "⚠ high"
	}
	kv := []string{"role", r.Name, "title", r.Title, "description", str(r.Description), "connector", r.Connector, "category", r.Category,
		"version", fmt.Sprintf("%d, %s", r.Version, kind), "made", when(&r.CreatedAt), "retired", when(r.RetiredAt), "risk", risk}
	for _, p := range r.Params {
		kv = append(kv, "param "+p.Name, p.Help)
	}
	for _, ph := range r.Phases {
		kv = append(kv, ph.Phase, strings.Join(ph.Commands, "\n"))
	}
	a.pairs(kv...)
	advise(a.out, r)
}

// advise offers the modern form of commands that are accepted as they are.
func advise(to io.Writer, r client.Role) {
	if r.Advice == nil {
		return
	}
	for _, x := range *r.Advice {
		_, _ = fmt.Fprintf(to, "advice, phase %s: %s\n  as written: %s\n  modern:     %s\n", x.Phase, x.Reason, x.Command, x.Modern)
	}
}

// savedRole shows what became of a change.
func (a *app) savedRole(r client.Role) error {
	return a.show(r, func() {
		a.say("role %s has version %d", r.Name, r.Version)
		advise(a.err, r)
	})
}

const roleHelp = `The file is YAML: name, connector, title, description, high_risk, params (name, help, pattern, required)
and phases, each with a list of commands in the connector's language. %Username% is the account; every
parameter is a placeholder of its own.

Every command is read as the target will read it. One in which a value could become something else is
refused, with the place and what to write instead. Passwords do not belong into roles.`

func (a *app) roleAddCmd() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "add", Short: "Add a custom role", Long: roleHelp,
		Example: "  reeve role add --file our-log-reader.yaml", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			f, err := a.readRole(file)
			if err != nil {
				return err
			}
			r, err := call[client.Role](c.AddRole(cmd.Context(), &client.AddRoleParams{IdempotencyKey: newKey()}, client.RoleRequest{
				Name: f.Name, Connector: f.Connector, Title: f.Title, Description: &f.Description, HighRisk: &f.HighRisk, Params: f.params(), Phases: f.phases()}))
			if err != nil {
				return err
			}
			return a.savedRole(r)
		},
	}
	roleFileFlag(cmd, &file)
	return cmd
}

func roleFileFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVar(file, "file", "", "file with the role, in YAML; - for standard input (required)")
	_ = cmd.MarkFlagRequired("file")
}

func (a *app) roleCloneCmd() *cobra.Command {
	return &cobra.Command{
		Use: "clone NAME NEW-NAME", Short: "Add a custom role that is another one under a new name",
		Example: "  reeve role clone linux-log-reader our-log-reader", Args: exactArgs("NAME", "NEW-NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			r, err := call[client.Role](c.CloneRole(cmd.Context(), args[0], &client.CloneRoleParams{IdempotencyKey: newKey()}, client.RoleCloneRequest{Name: args[1]}))
			if err != nil {
				return err
			}
			return a.savedRole(r)
		},
	}
}

func (a *app) roleEditCmd() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "edit NAME", Short: "Make the next version of a custom role",
		Long: `Accounts keep the version they were made with; new ones get the new version. What the file leaves out is
empty in the new version. With a version in the file, which role show --export writes, an edit that began with
another version than the current one is refused.

` + roleHelp,
		Example: "  reeve role show our-log-reader --export > our-log-reader.yaml\n  reeve role edit our-log-reader --file our-log-reader.yaml",
		Args:    exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			f, err := a.readRole(file)
			if err != nil {
				return err
			}
			if err := a.fits(cmd.Context(), c, args[0], &f); err != nil {
				return err
			}
			r, err := call[client.Role](c.EditRole(cmd.Context(), args[0], &client.EditRoleParams{IdempotencyKey: newKey()}, client.RoleEdit{
				Version: f.Version, Title: f.Title, Description: &f.Description, HighRisk: &f.HighRisk, Params: f.params(), Phases: f.phases()}))
			if err != nil {
				return err
			}
			return a.savedRole(r)
		},
	}
	roleFileFlag(cmd, &file)
	return cmd
}

// fits checks that a file is for the role that is edited, and fills in its version.
func (a *app) fits(ctx context.Context, c *api, name string, f *roleFile) error {
	now, err := call[client.Role](c.GetRole(ctx, name, &client.GetRoleParams{}))
	if err != nil {
		return err
	}
	if f.Name != "" && f.Name != now.Name || f.Connector != "" && f.Connector != now.Connector {
		return usagef("the file is for role %s of %s, not for %s of %s; a role keeps its name and its connector", f.Name, f.Connector, now.Name, now.Connector)
	}
	if f.Version == 0 {
		f.Version = int64(now.Version)
	}
	return nil
}

func (a *app) roleRetireCmd() *cobra.Command {
	return &cobra.Command{
		Use: "retire NAME", Short: "Take a custom role out of the catalogue", Example: "  reeve role retire our-log-reader", Args: exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			if _, err := call[none](c.RetireRole(cmd.Context(), args[0], &client.RetireRoleParams{IdempotencyKey: newKey()})); err != nil {
				return err
			}
			a.say("role %s cannot be chosen any more; accounts that have it keep it", args[0])
			return nil
		},
	}
}
