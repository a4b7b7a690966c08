package inventory

import (
	"strings"

	"github.com/reeve-pam/reeve/plugins/sdk/template"
)

// Advice is a better way to write a command. The command as it stands is accepted too.
type Advice struct {
	Phase, Command string
	Modern         string // what to write instead
	Reason         string
}

// Advice looks for commands of the role that have a modern form. dialect is that of its
// connector.
func (r *Role) Advice(dialect string) []Advice {
	var all []Advice
	for _, ph := range r.Role.M.GetPhases() {
		for _, c := range ph.GetCommands() {
			if modern, reason := modernTSQL(dialect, c); modern != "" {
				all = append(all, Advice{Phase: ph.GetPhase(), Command: c, Modern: modern, Reason: reason})
			}
		}
	}
	return all
}

// membership are procedures that Microsoft marks as to be removed, with their modern form
// and the names of their arguments: the role, the member.
// https://learn.microsoft.com/sql/relational-databases/system-stored-procedures/sp-addsrvrolemember-transact-sql
var membership = map[string]struct{ object, verb, role, member string }{
	"sp_addsrvrolemember":  {"SERVER ROLE", "ADD", "@rolename", "@loginame"},
	"sp_dropsrvrolemember": {"SERVER ROLE", "DROP", "@rolename", "@loginame"},
	"sp_addrolemember":     {"ROLE", "ADD", "@rolename", "@membername"},
	"sp_droprolemember":    {"ROLE", "DROP", "@rolename", "@membername"},
}

// modernTSQL understands [CALL | EXEC | EXECUTE] [database.[owner].]procedure with one
// value for the role and one for the member, each a string, by name or in order.
func modernTSQL(dialect, command string) (modern, reason string) {
	if dialect != template.TSQL.String() {
		return "", ""
	}
	tokens, err := template.TSQL.Tokens(command)
	if err != nil {
		return "", ""
	}
	i := 0
	next := func() template.Token {
		for ; i < len(tokens); i++ {
			if k := tokens[i].Kind; k != template.Space && k != template.Comment {
				i++
				return tokens[i-1]
			}
		}
		return template.Token{}
	}
	t := next()
	switch strings.ToUpper(t.Text) {
	case "CALL", "EXEC", "EXECUTE":
		t = next()
	}
	name := t.Value
	for t = next(); t.Text == "."; t = next() {
		if last := next(); last.Text == "." {
			i-- // an empty part
		} else {
			name = last.Value
		}
	}
	m, known := membership[strings.ToLower(name)]
	if !known {
		return "", ""
	}
	values := map[string]string{}
	order := []string{m.member, m.role}
	if m.object == "ROLE" {
		order = []string{m.role, m.member}
	}
	for ; ; t = next() {
		argument := strings.ToLower(t.Text)
		if strings.HasPrefix(argument, "@") {
			if next().Text != "=" {
				return "", ""
			}
			t = next()
		} else if len(values) < len(order) {
			argument = order[len(values)]
		}
		if t.Kind != template.Text || values[argument] != "" {
			return "", ""
		}
		values[argument] = t.Value
		switch t = next(); t.Text {
		case ",":
			continue
		case ";", "":
		default:
			return "", ""
		}
		break
	}
	role, member := values[m.role], values[m.member]
	if role == "" || member == "" || len(values) != 2 || next().Text != "" {
		return "", ""
	}
	modern = "ALTER " + m.object + " " + written(role) + " " + m.verb + " MEMBER " + written(member)
	if _, err := template.TSQL.Parse(modern); err != nil {
		return "", ""
	}
	return modern, name + " is kept by SQL Server for old scripts and will be removed"
}

// written is a value of a string as a name: a placeholder alone, or within brackets.
func written(value string) string {
	if name, ok := strings.CutPrefix(value, "%"); ok {
		if name, ok = strings.CutSuffix(name, "%"); ok && template.ValidName(name) {
			return value
		}
	}
	return "[" + strings.ReplaceAll(value, "]", "]]") + "]"
}
