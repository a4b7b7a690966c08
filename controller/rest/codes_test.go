package rest_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// found is a code in the source.
type found struct {
	kind, message, fix string
	file               string
}

// unmet are codes that no caller of the API can meet, by the beginning of the path of the
// file that makes them.
var unmet = map[string]string{
	"controller/cluster/fsm.go":    "in the log of a node that stops",
	"controller/cluster/stream.go": "between controllers",
	"controller/cluster/tls.go":    "between controllers",
	"controller/cmd/":              "the program's own",
	"controller/bootstrap.go":      "`reeved init` meets these",
	"controller/config.go":         "at the start of a node",
	"controller/controller.go":     "at the start of a node",
	"controller/gateway/":          "agents meet these",
	"controller/jobs/pull.go":      "agents meet these",
	"controller/jobs/report.go":    "agents meet these",
	"controller/join.go":           "`reeved join` meets these",
	"controller/pki/enroll.go":     "agents meet these",
	"controller/pki/identity.go":   "at the start of a node",
	"controller/pki/renew.go":      "agents meet these",
	"controller/seal/keyfile.go":   "at the start of a node",
	"internal/envelope/":           "agents meet these",
	"internal/jointoken/":          "who joins meets these",
}

// unmetCodes are single ones of files that also have others.
var unmetCodes = map[string]string{
	"already_bootstrapped": "bootstrap", "bootstrap_failed": "bootstrap", "cluster_name_invalid": "bootstrap", "root_exists": "bootstrap",
	"data_loss_not_accepted": "recovery", "recovery_failed": "recovery", "nothing_to_recover": "recovery", "root_missing": "recovery", "shares_missing": "recovery",
	"cluster_config_invalid": "start", "data_dir_in_use": "start", "data_dir_unusable": "start", "lead_invalid": "start", "node_already_ran": "start", "node_id_invalid": "start",
	"raft_start_failed": "start", "state_format_unknown": "start", "state_in_use": "start", "store_config_invalid": "start", "policy_invalid": "start",
	"agent_certificate_stale": "agents", "agent_unknown": "agents", "certificate_expired": "agents", "result_invalid": "agents",
	"factor_by_token":  "caught by the rules of the calls",
	"candidate_exists": "caught by lifecycle", "job_invalid": "caught by lifecycle", "not_candidate": "caught by lifecycle", "not_proven": "caught by lifecycle",
	"plan_invalid": "caught by lifecycle", "proof_stale": "caught by lifecycle", "secret_kind_invalid": "caught by lifecycle",
	"lifetime_invalid": "bounded by the contract", "principal_kind_invalid": "bounded by the contract", "site_missing": "required by the contract",
	"site_unexpected": "no call names one",
}

// codes finds every error code in the source of the controller: the literal handed to
// reeve.Errorf, or to a function that hands its parameter "code" on to it, or returned as
// its result "code".
func codes(t *testing.T) map[string]found {
	t.Helper()
	root := filepath.Join("..", "..")
	out := map[string]found{}
	for _, dir := range []string{"controller", "internal/envelope", "internal/jointoken"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.HasSuffix(path, ".gen.go") ||
				strings.Contains(path, "storetest") || strings.Contains(path, "clustertest") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(root, path)
			if err != nil {
				return err
			}
			collect(file, filepath.ToSlash(rel), out)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func collect(file *ast.File, path string, out map[string]found) {
	makers := map[string]int{} // functions with a parameter named code, and its place
	maker := func(name string, f *ast.FuncType) {
		place := 0
		for _, p := range f.Params.List {
			for _, n := range p.Names {
				if n.Name == "code" {
					makers[name] = place
				}
				place++
			}
		}
	}
	returners := map[*ast.BlockStmt]bool{} // bodies of functions whose first result is named code
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			maker(n.Name.Name, n.Type)
			if r := n.Type.Results; r != nil && len(r.List[0].Names) > 0 && r.List[0].Names[0].Name == "code" {
				returners[n.Body] = true
			}
		case *ast.AssignStmt:
			for i, rhs := range n.Rhs {
				if lit, ok := rhs.(*ast.FuncLit); ok && i < len(n.Lhs) {
					if id, ok := n.Lhs[i].(*ast.Ident); ok {
						maker(id.Name, lit.Type)
					}
				}
			}
		}
		return true
	})
	add := func(e ast.Expr, f found) {
		if code, ok := text(e); ok {
			f.file = path
			if old, dup := out[code]; !dup || unreachable(old.file) {
				out[code] = f
			}
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CallExpr:
			name, f := callee(n), found{}
			if name == "WithFix" { // its receiver is the call that made the error
				inner, ok := n.Fun.(*ast.SelectorExpr).X.(*ast.CallExpr)
				if ok && callee(inner) == "Errorf" && len(inner.Args) > 2 {
					f.fix, _ = text(n.Args[0])
					f.kind, f.message = kind(inner.Args[0]), ""
					f.message, _ = text(inner.Args[2])
					add(inner.Args[1], f)
				}
				return true
			}
			if place, ok := makers[name]; ok && len(n.Args) > place {
				add(n.Args[place], f)
			}
			if name == "Errorf" && len(n.Args) > 2 {
				f.kind = kind(n.Args[0])
				f.message, _ = text(n.Args[2])
				if code, ok := text(n.Args[1]); ok && out[code].fix == "" {
					add(n.Args[1], f)
				}
			}
		case *ast.BlockStmt:
			if returners[n] {
				ast.Inspect(n, func(n ast.Node) bool {
					if r, ok := n.(*ast.ReturnStmt); ok && len(r.Results) > 0 {
						add(r.Results[0], found{})
					}
					return true
				})
			}
		}
		return true
	})
}

func callee(c *ast.CallExpr) string {
	switch f := c.Fun.(type) {
	case *ast.Ident:
		return f.Name
	case *ast.SelectorExpr:
		return f.Sel.Name
	}
	return ""
}

func kind(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.SelectorExpr:
		return e.Sel.Name
	case *ast.Ident:
		return e.Name
	}
	return ""
}

var codeRule = regexp.MustCompile(`^[a-z0-9]+(_[a-z0-9]+)*$`)

func text(e ast.Expr) (string, bool) {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	s, err := strconv.Unquote(lit.Value)
	return s, err == nil
}

func unreachable(file string) bool {
	for prefix := range unmet {
		if strings.HasPrefix(file, prefix) {
			return true
		}
	}
	return false
}

// derived are codes that the source puts together from a table or noun.
var derived = []string{
	"account_not_found", "audit_sink_not_found", "agent_not_found", "asset_not_found", "connector_not_found", "job_not_found", "node_not_found", "site_not_found", "token_not_found",
	"token_malformed", "session_malformed", "invitation_malformed", "wrap_malformed", "session_not_found", "factor_not_found", "assignment_not_found", "role_not_found", "group_name_taken", "asset_group_name_taken", "access_policy_name_taken", "principal_name_taken", "asset_in_use", "site_in_use", "placeholder_unknown", "placeholder_unsafe",
}

var row = regexp.MustCompile("(?m)^\\| `([a-z0-9_]+)` \\| ([0-9]{3}) \\| [^|]+ \\| [^|]+ \\|$")

func TestEveryErrorCodeIsDocumented(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "api.md"))
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	for _, m := range row.FindAllStringSubmatch(string(page), -1) {
		if documented[m[1]] {
			t.Errorf("docs/api.md has %s twice", m[1])
		}
		documented[m[1]] = true
	}
	source := codes(t)
	if len(source) < 150 {
		t.Fatalf("only %d codes found: the test looks in the wrong place", len(source))
	}
	known := map[string]bool{}
	for _, code := range derived {
		known[code] = true
	}
	for code, at := range source {
		if !codeRule.MatchString(code) {
			t.Errorf("%s: %q is not a code", at.file, code)
		}
		if known[code] = true; !documented[code] && !unreachable(at.file) && unmetCodes[code] == "" {
			t.Errorf("docs/api.md has no row for %s of %s", code, at.file)
		}
	}
	for code := range unmetCodes {
		if _, there := source[code]; !there || documented[code] {
			t.Errorf("%s is gone or documented: take it off unmetCodes", code)
		}
	}
	for _, code := range slices.Sorted(maps.Keys(documented)) {
		if !known[code] {
			t.Errorf("docs/api.md has %s, which the source does not", code)
		}
	}
}
