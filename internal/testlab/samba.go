//go:build linux

package testlab

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode/utf16"

	"github.com/go-ldap/ldap/v3"
)

// SambaOptions says what a domain controller is like.
type SambaOptions struct {
	Config []string // further lines of the [global] section, e.g. "old password allowed period = 60"
	Node   *Node    // the network node the server is; nil: a loopback address of this machine
}

// What every domain of the lab has.
const (
	DomainDN      = "DC=lab,DC=test"
	DomainName    = "lab.test"
	AccountsOU    = "OU=Reeve,DC=lab,DC=test"      // the management account's own
	QuarantineOU  = "OU=Quarantine,DC=lab,DC=test" // as well
	GroupsOU      = "OU=Groups,DC=lab,DC=test"     // of whose groups it may change the members
	Administrator = "Administrator"
)

// adminPassword is set once, when the template is made.
const adminPassword = "Lab-1-Administrator" //nolint:gosec // of a domain that lives as long as a test

// DomainController is a running Samba AD DC of a domain of its own. Five wrong passwords lock an account.
type DomainController struct {
	Addr               string // IP address; ports 636 (LDAPS) and 389 (StartTLS)
	CAPEM              string // the certificate authority of its TLS certificate
	ManagementPassword string // of the account Management, to which AccountsOU is delegated and nothing more

	srv  *server
	opts SambaOptions
	dir  string
}

// SambaAD starts a domain controller and returns once it answers. It speaks LDAP only: no Kerberos, no DNS, no SMB.
func (l *Lab) SambaAD(opts SambaOptions) (*DomainController, error) {
	d := &DomainController{opts: opts, ManagementPassword: newPassword()}
	var err error
	if opts.Node != nil {
		d.Addr = opts.Node.Addr
	} else if d.Addr, err = l.address(); err != nil {
		return nil, err
	}
	tmpl, err := template("samba", fmt.Sprint("1 ", provision(l.ctx, ""), written), func(dir string) error {
		for _, cmd := range provision(l.ctx, dir) {
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("%s: %w: %s", cmd, err, out[max(0, len(out)-2000):])
			}
		}
		return delegate(l.ctx, dir)
	})
	if err != nil {
		return nil, err
	}
	if d.dir, err = l.mkdir("samba"); err != nil {
		return nil, err
	}
	if out, err := exec.CommandContext(l.ctx, "cp", "-a", tmpl+"/.", d.dir).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("copy the template: %w: %s", err, out)
	}
	ca, err := newAuthority()
	if err != nil {
		return nil, err
	}
	if err := ca.issue(d.dir, d.Addr); err != nil {
		return nil, err
	}
	d.CAPEM = string(ca.pem)
	if err := d.configure(); err != nil {
		return nil, err
	}
	d.srv = newServer(l, "samba "+d.Addr, d.dir, opts.Node)
	if err := d.start(); err != nil {
		return nil, err
	}
	if err := d.SetPassword(l.ctx, Management, d.ManagementPassword); err != nil {
		d.srv.kill()
		return nil, err
	}
	return d, l.onClose(d.srv.kill)
}

// provision are the commands that make a domain in dir.
func provision(ctx context.Context, dir string) []*exec.Cmd {
	conf, db := dir+"/etc/smb.conf", dir+"/private/sam.ldb"
	var all []*exec.Cmd
	for _, args := range [][]string{
		{"domain", "provision", "--configfile=/dev/null", "--targetdir=" + dir, "--realm=LAB.TEST", "--domain=LAB",
			"--server-role=dc", "--adminpass=" + adminPassword, "--dns-backend=SAMBA_INTERNAL", "--host-name=dc1",
			"--host-ip=127.0.0.10", "--option=posix:eadb=" + dir + "/eadb.tdb", "--option=ldb:nosync=true"},
		{"domain", "passwordsettings", "set", "-s", conf, "--min-pwd-age=0", "--history-length=3",
			"--account-lockout-threshold=5", "--account-lockout-duration=1", "--reset-account-lockout-after=1"},
		{"ou", "create", AccountsOU, "-s", conf, "-H", db},
		{"ou", "create", QuarantineOU, "-s", conf, "-H", db},
		{"ou", "create", GroupsOU, "-s", conf, "-H", db},
		{"user", "create", Management, adminPassword, "-s", conf, "-H", db},
	} {
		all = append(all, sambaTool(ctx, args...))
	}
	return all
}

func sambaTool(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "samba-tool", args...)
	cmd.Env = []string{path, "LC_ALL=C.UTF-8", "HOME=/nonexistent"}
	return cmd
}

// Schema GUIDs of classes and attributes, and the extended right to reset a password.
// https://learn.microsoft.com/en-us/windows/win32/adschema/active-directory-schema
const (
	classUser     = "bf967aba-0de6-11d0-a285-00aa003049e2"
	classGroup    = "bf967a9c-0de6-11d0-a285-00aa003049e2"
	attrMember    = "bf9679c0-0de6-11d0-a285-00aa003049e2"
	resetPassword = "00299570-246d-11d0-a768-00aa006e0529"
)

// written are the attributes of users that the management account may write.
var written = map[string]string{
	"userAccountControl": "bf967a68-0de6-11d0-a285-00aa003049e2",
	"accountExpires":     "bf967915-0de6-11d0-a285-00aa003049e2",
	"lockoutTime":        "28630ebf-41d5-11d1-a9c1-0000f80367c1",
	"description":        "bf967950-0de6-11d0-a285-00aa003049e2",
	"extensionName":      "bf967972-0de6-11d0-a285-00aa003049e2",
	"sAMAccountName":     "3e0abfd0-126a-11d0-a060-00aa006c33ed",
	"userPrincipalName":  "28630ebb-41d5-11d1-a9c1-0000f80367c1",
	"cn":                 "bf96793f-0de6-11d0-a285-00aa003049e2",
	"name":               "bf967a0e-0de6-11d0-a285-00aa003049e2",
}

// delegate gives the management account what docs/connectors/ad.md says it needs.
func delegate(ctx context.Context, dir string) error {
	conf, db := dir+"/etc/smb.conf", dir+"/private/sam.ldb"
	out, err := sambaTool(ctx, "user", "show", Management, "--attributes=objectSid", "-s", conf, "-H", db).CombinedOutput()
	_, sid, found := strings.Cut(string(out), "objectSid: ")
	if err != nil || !found {
		return fmt.Errorf("read the SID of %s: %w: %s", Management, err, out)
	}
	sid = strings.Fields(sid)[0]
	users := "(OA;CI;CCDC;" + classUser + ";;" + sid + ")(OA;CIIO;CR;" + resetPassword + ";" + classUser + ";" + sid + ")"
	for _, guid := range written {
		users += "(OA;CIIO;RPWP;" + guid + ";" + classUser + ";" + sid + ")"
	}
	for ou, sddl := range map[string]string{
		AccountsOU:   users,
		QuarantineOU: users,
		GroupsOU:     "(OA;CIIO;RPWP;" + attrMember + ";" + classGroup + ";" + sid + ")",
	} {
		cmd := sambaTool(ctx, "dsacl", "set", "-s", conf, "-H", db, "--objectdn="+ou, "--action=allow", "--sddl="+sddl)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("delegate %s: %w: %s", ou, err, out)
		}
	}
	return nil
}

// configure writes smb.conf: all paths are in it, so a template works wherever it is copied to.
func (d *DomainController) configure() error {
	for _, sub := range []string{"lock", "run/ncalrpc", "cache"} {
		if err := os.MkdirAll(filepath.Join(d.dir, sub), 0o755); err != nil {
			return err
		}
	}
	mask := "/8" // one of /32 is "no network interfaces found"
	if d.opts.Node != nil {
		mask = "/24"
	}
	lines := []string{
		"netbios name = DC1", "realm = LAB.TEST", "workgroup = LAB",
		"server role = active directory domain controller", "server services = ldap",
		"interfaces = " + d.Addr + mask, "bind interfaces only = yes",
		"private dir = " + d.dir + "/private", "state directory = " + d.dir + "/state",
		"cache directory = " + d.dir + "/cache", "lock directory = " + d.dir + "/lock",
		"pid directory = " + d.dir + "/run", "ncalrpc dir = " + d.dir + "/run/ncalrpc",
		"posix:eadb = " + d.dir + "/eadb.tdb", "ldb:nosync = true",
		"tls enabled = yes", "tls keyfile = " + d.dir + "/server.key", "tls certfile = " + d.dir + "/server.pem",
		"tls cafile = " + d.dir + "/ca.pem", "disable netbios = yes",
		"old password allowed period = 0", // Config may set it again; the last one counts
	}
	lines = append(lines, d.opts.Config...)
	return os.WriteFile(d.dir+"/etc/smb.conf", []byte("[global]\n"+strings.Join(lines, "\n")+"\n"), 0o600)
}

func (d *DomainController) start() error {
	cmd := exec.CommandContext(d.srv.ctx, "samba", "-i", "-M", "single", "-s", d.dir+"/etc/smb.conf", "--debug-stdout")
	cmd.Env, cmd.Dir = []string{path, "LC_ALL=C.UTF-8", "TZ=UTC"}, d.dir
	return d.srv.start(cmd, syscall.CLONE_NEWPID|syscall.CLONE_NEWIPC|syscall.CLONE_NEWNS, func(ctx context.Context) error {
		return d.Login(ctx, Administrator, adminPassword)
	})
}

// As binds over LDAPS with the bare driver, as NAME@lab.test. The caller closes the connection.
func (d *DomainController) As(ctx context.Context, user, password string) (*ldap.Conn, error) {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(d.CAPEM))
	dial := new(net.Dialer).DialContext
	if d.opts.Node != nil {
		dial = d.opts.Node.Dial
	}
	raw, err := dial(ctx, "tcp", net.JoinHostPort(d.Addr, "636"))
	if err != nil {
		return nil, err
	}
	secured := tls.Client(raw, &tls.Config{RootCAs: roots, ServerName: d.Addr, MinVersion: tls.VersionTLS12})
	if err := secured.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, err
	}
	conn := ldap.NewConn(secured, true)
	conn.SetTimeout(startLimit)
	conn.Start()
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	defer stop()
	if err := conn.Bind(user+"@"+DomainName, password); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

// AsAdministrator is a session of the domain's administrator. The caller closes it.
func (d *DomainController) AsAdministrator(ctx context.Context) (*ldap.Conn, error) {
	return d.As(ctx, Administrator, adminPassword)
}

// AdministratorPassword is for tests of what only the administrator may do.
func (d *DomainController) AdministratorPassword() string { return adminPassword }

// Login tries one plain bind over LDAPS. A refusal is ErrRefused and holds the directory's reason, as "data 52e".
func (d *DomainController) Login(ctx context.Context, user, password string) error {
	conn, err := d.As(ctx, user, password)
	if err == nil {
		return conn.Close()
	}
	if e, ok := errors.AsType[*ldap.Error](err); ok && e.ResultCode == ldap.LDAPResultInvalidCredentials {
		_, data, _ := strings.Cut(e.Err.Error(), "data ")
		data, _, _ = strings.Cut(data, ",")
		return fmt.Errorf("%w: %s: data %s", ErrRefused, user, data)
	}
	return err
}

// Find reads the one object that a filter matches, as the administrator and past the product. It is nil if there is none.
func (d *DomainController) Find(ctx context.Context, filter string, attributes ...string) (*ldap.Entry, error) {
	all, err := d.Search(ctx, filter, attributes...)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	if len(all) > 1 {
		return nil, fmt.Errorf("%d objects match %s", len(all), filter)
	}
	return all[0], nil
}

// Search reads all objects of the domain that a filter matches, as the administrator.
func (d *DomainController) Search(ctx context.Context, filter string, attributes ...string) ([]*ldap.Entry, error) {
	conn, err := d.AsAdministrator(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	found, err := conn.SearchWithPaging(ldap.NewSearchRequest(DomainDN, ldap.ScopeWholeSubtree, ldap.NeverDerefAliases,
		0, 0, false, filter, attributes, nil), 500)
	if err != nil {
		return nil, fmt.Errorf("search %s: %w", filter, err)
	}
	slices.SortFunc(found.Entries, func(a, b *ldap.Entry) int { return strings.Compare(a.DN, b.DN) })
	return found.Entries, nil
}

// Account reads a user by its sAMAccountName; nil if there is none.
func (d *DomainController) Account(ctx context.Context, name string) (*ldap.Entry, error) {
	return d.Find(ctx, "(&(objectClass=user)(sAMAccountName="+ldap.EscapeFilter(name)+"))")
}

// Add makes an object as the administrator, behind the product's back.
func (d *DomainController) Add(ctx context.Context, dn string, attributes map[string][]string) error {
	add := ldap.NewAddRequest(dn, nil)
	for name, values := range attributes {
		add.Attribute(name, values)
	}
	return d.do(ctx, func(c *ldap.Conn) error { return c.Add(add) })
}

// Replace sets attributes of an object as the administrator.
func (d *DomainController) Replace(ctx context.Context, dn string, attributes map[string][]string) error {
	modify := ldap.NewModifyRequest(dn, nil)
	for name, values := range attributes {
		modify.Replace(name, values)
	}
	return d.do(ctx, func(c *ldap.Conn) error { return c.Modify(modify) })
}

// Delete removes an object as the administrator.
func (d *DomainController) Delete(ctx context.Context, dn string) error {
	return d.do(ctx, func(c *ldap.Conn) error { return c.Del(ldap.NewDelRequest(dn, nil)) })
}

// AddAccount makes an enabled user in AccountsOU that Reeve knows nothing of.
func (d *DomainController) AddAccount(ctx context.Context, name, password string) error {
	return d.Add(ctx, "CN="+name+","+AccountsOU, map[string][]string{
		"objectClass": {"user"}, "sAMAccountName": {name}, "userPrincipalName": {name + "@" + DomainName},
		"unicodePwd": {UnicodePassword(password)}, "userAccountControl": {"512"},
	})
}

// SetPassword resets an account's password as the administrator.
func (d *DomainController) SetPassword(ctx context.Context, name, password string) error {
	a, err := d.Account(ctx, name)
	if err != nil {
		return err
	}
	if a == nil {
		return fmt.Errorf("there is no account %s", name)
	}
	return d.Replace(ctx, a.DN, map[string][]string{"unicodePwd": {UnicodePassword(password)}})
}

func (d *DomainController) do(ctx context.Context, change func(*ldap.Conn) error) error {
	conn, err := d.AsAdministrator(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	return change(conn)
}

// UnicodePassword is the value of the attribute unicodePwd: the password in quotes, in UTF-16LE (MS-ADTS 3.1.1.3.1.5.1).
func UnicodePassword(password string) string {
	return utf16LE(`"` + password + `"`)
}

// Logs is all the server has logged.
func (d *DomainController) Logs() string { return d.srv.logged() }

// Command runs a command of an administrator on the domain controller's machine, as it stands.
func (d *DomainController) Command(ctx context.Context, line string) error {
	cmd := exec.CommandContext(ctx, "sh", "-c", line)
	cmd.Env = []string{path, "LC_ALL=C.UTF-8", "HOME=/nonexistent", "SMB_CONF_PATH=" + d.dir + "/etc/smb.conf"}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", line, err, out)
	}
	return nil
}

// Hang stops the server: connections open and nobody answers.
func (d *DomainController) Hang() error { return d.srv.stop() }

// Resume undoes Hang.
func (d *DomainController) Resume() error { return d.srv.signal(syscall.SIGCONT) }

// Crash kills the server. Its data stay for Restart.
func (d *DomainController) Crash() { d.srv.kill() }

// Restart starts a crashed server again on the same data, at the same address.
func (d *DomainController) Restart() error {
	_ = os.Remove(d.dir + "/run/samba.pid") // a crash leaves it, and pid 1 of the new namespace is running
	return d.start()
}

// FileTime is a time as attributes hold it: intervals of 100 ns since 1601 (MS-DTYP 2.3.3).
func FileTime(t time.Time) string { return fmt.Sprint(t.UnixNano()/100 + 116444736000000000) }

func utf16LE(s string) string {
	var b []byte
	for _, u := range utf16.Encode([]rune(s)) {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return string(b)
}
