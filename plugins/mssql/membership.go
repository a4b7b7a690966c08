package main

import (
	"slices"
	"strings"

	"github.com/reeve-pam/reeve/plugins/sdk/template"
)

// membership is what a command changes about who is in a role.
type membership struct {
	server       bool // a role of the server, not of a database
	role, member string
	add          bool
}

// modern writes a command that calls sp_addsrvrolemember or one of its kin, which Microsoft has deprecated since SQL Server 2012,
// as ALTER ROLE. It works on commands with placeholders. ok is false for other commands.
//
//	CALL master..sp_addsrvrolemember @loginame = N'%Username%', @rolename = N'sysadmin'
//	ALTER SERVER ROLE [sysadmin] ADD MEMBER %Username%
func modern(command string) (_ string, ok bool) {
	words, err := wordsOf(executed(command))
	if err != nil {
		return "", false
	}
	m, outdated, ok := membershipOf(words)
	if !ok || !outdated {
		return "", false
	}
	out := "ALTER ROLE "
	if m.server {
		out = "ALTER SERVER ROLE "
	}
	verb := " DROP MEMBER "
	if m.add {
		verb = " ADD MEMBER "
	}
	return out + bracketed(m.role) + verb + bracketed(m.member), true
}

// bracketed writes a name, or a placeholder as it is.
func bracketed(name string) string {
	if n := len(name); n > 2 && name[0] == '%' && name[n-1] == '%' && template.ValidName(name[1:n-1]) {
		return name
	}
	return "[" + strings.ReplaceAll(name, "]", "]]") + "]"
}

// procedures are the outdated ones, with the names of their parameters in order.
// learn.microsoft.com/sql/relational-databases/system-stored-procedures/sp-addsrvrolemember-transact-sql
var procedures = map[string]struct {
	server, add    bool
	parameters     [2]string
	role, memberAt int
}{
	"sp_addsrvrolemember":  {true, true, [2]string{"@loginame", "@rolename"}, 1, 0},
	"sp_dropsrvrolemember": {true, false, [2]string{"@loginame", "@rolename"}, 1, 0},
	"sp_addrolemember":     {false, true, [2]string{"@rolename", "@membername"}, 0, 1},
	"sp_droprolemember":    {false, false, [2]string{"@rolename", "@membername"}, 0, 1},
}

// membershipOf understands ALTER [SERVER] ROLE … ADD|DROP MEMBER … and the procedures that came before it.
func membershipOf(words []template.Token) (m membership, outdated, ok bool) {
	if len(words) > 0 && (is(words[0], "EXEC") || is(words[0], "EXECUTE")) {
		m, ok = called(words[1:])
		return m, true, ok
	}
	var shape []string
	for _, w := range words {
		if w.Kind == template.Name {
			shape = append(shape, "[]")
		} else {
			shape = append(shape, strings.ToUpper(w.Text))
		}
	}
	at := 1 // of ROLE
	if len(words) > 1 && shape[1] == "SERVER" {
		m.server, at = true, 2
	}
	if len(words) != at+5 || shape[0] != "ALTER" || shape[at] != "ROLE" || shape[at+3] != "MEMBER" ||
		shape[at+2] != "ADD" && shape[at+2] != "DROP" || !named(words[at+1]) || !named(words[at+4]) {
		return membership{}, false, false
	}
	m.role, m.member, m.add = words[at+1].Value, words[at+4].Value, shape[at+2] == "ADD"
	return m, false, true
}

func named(t template.Token) bool { return t.Kind == template.Name || t.Kind == template.Word }

// called understands [database.][owner.]procedure [@name =] 'value', [@name =] 'value'.
func called(words []template.Token) (membership, bool) {
	args := slices.IndexFunc(words, func(t template.Token) bool { return t.Kind == template.Text || strings.HasPrefix(t.Text, "@") })
	if args < 1 || !named(words[args-1]) {
		return membership{}, false
	}
	for _, w := range words[:args-1] {
		if w.Text != "." && !named(w) {
			return membership{}, false
		}
	}
	p, known := procedures[strings.ToLower(words[args-1].Value)]
	if !known {
		return membership{}, false
	}
	values := map[string]string{}
	rest := words[args:]
	for n := 0; len(rest) > 0; n++ {
		if n > 0 {
			if rest[0].Text != "," {
				return membership{}, false
			}
			rest = rest[1:]
		}
		name := ""
		if n < len(p.parameters) {
			name = p.parameters[n]
		}
		if len(rest) > 2 && strings.HasPrefix(rest[0].Text, "@") && rest[1].Text == "=" {
			name, rest = strings.ToLower(rest[0].Text), rest[2:]
		}
		if len(rest) == 0 || rest[0].Kind != template.Text && rest[0].Kind != template.Name || values[name] != "" {
			return membership{}, false
		}
		values[name], rest = rest[0].Value, rest[1:]
	}
	m := membership{server: p.server, add: p.add, role: values[p.parameters[p.role]], member: values[p.parameters[p.memberAt]]}
	return m, len(values) == 2 && m.role != "" && m.member != ""
}
