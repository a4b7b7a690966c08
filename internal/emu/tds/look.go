package tds

import (
	"fmt"
	"slices"
	"strings"
)

// Login is what the server knows of a login.
type Login struct {
	SID                                      []byte
	Disabled, LockedOut, Expired, MustChange bool
	Roles                                    []string
	Bad                                      int // wrong passwords since the last login
}

// Login looks at a login; ok is false if there is none.
func (s *Server) Login(name string) (_ Login, ok bool) {
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	l := s.state.logins[strings.ToLower(name)]
	if l == nil {
		return Login{}, false
	}
	out := Login{SID: l.sid, Disabled: l.disabled, LockedOut: l.lockedOut, Expired: l.expired, MustChange: l.mustRenew, Bad: l.bad}
	for r := range l.roles {
		out.Roles = append(out.Roles, r)
	}
	slices.Sort(out.Roles)
	return out, true
}

// Change changes the state of a login behind everybody's back. Only flags are taken over.
func (s *Server) Change(name string, f func(*Login)) {
	l, _ := s.Login(name)
	f(&l)
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	if at := s.state.logins[strings.ToLower(name)]; at != nil {
		at.disabled, at.lockedOut, at.expired, at.mustRenew = l.Disabled, l.LockedOut, l.Expired, l.MustChange
	}
}

// AddJob makes a job of SQL Server Agent that belongs to a login.
func (s *Server) AddJob(id, owner string) {
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	s.state.jobs = append(s.state.jobs, &job{id, "job " + id, s.state.logins[strings.ToLower(owner)].sid})
}

// AddTable makes a table in a database.
func (s *Server) AddTable(database, name string) {
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	d := s.state.databases[strings.ToLower(database)]
	d.objects[100+len(d.objects)] = name
}

// Snapshot is everything that a connector could change, as text.
func (s *Server) Snapshot() string {
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	var b strings.Builder
	for _, l := range byID(s.state.logins, func(l *login) int { return l.id }) {
		fmt.Fprintf(&b, "%s %x %x %t %v %v %s\n", l.name, l.sid, l.hash, l.disabled, l.roles, l.rights, l.database)
	}
	for _, d := range byID(s.state.databases, func(d *database) int { return d.id }) {
		fmt.Fprintf(&b, "%s %x\n", d.name, d.owner)
		for _, u := range byID(d.principals, func(u *principal) int { return u.id }) {
			fmt.Fprintf(&b, " %s %x %d %v %v\n", u.name, u.sid, u.owner, u.roles, u.rights)
		}
		for _, sc := range d.schemas {
			fmt.Fprintf(&b, " %s %d\n", sc.name, sc.owner)
		}
	}
	for _, j := range s.state.jobs {
		fmt.Fprintf(&b, "%s %x\n", j.id, j.owner)
	}
	return b.String()
}

// Sessions counts the sessions of a login.
func (s *Server) Sessions(name string) int {
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	n := 0
	for _, session := range s.state.sessions {
		if strings.EqualFold(session.login.name, name) {
			n++
		}
	}
	return n
}

// EndSessions ends the sessions of a login behind everybody's back.
func (s *Server) EndSessions(name string) {
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	for _, session := range s.state.sessions {
		if strings.EqualFold(session.login.name, name) {
			session.kill()
		}
	}
}

// DropDatabase drops a database behind everybody's back.
func (s *Server) DropDatabase(name string) {
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	delete(s.state.databases, strings.ToLower(name))
}
