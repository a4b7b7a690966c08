package main

import (
	"context"
	"regexp"
	"strings"

	"github.com/go-ldap/ldap/v3"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/template"
)

// trustee is whom rights are given to.
type trustee struct{ sid, name string }

// permit is an entry of an access list that gives a right, as an administrator adds it.
type permit struct {
	inherit          string // CI: the object and what is below; CIIO: what is below; empty: the object
	rights           string // in SDDL
	object, guid     string // what it is about; empty: everything
	class, classGUID string // the class of the objects that inherit it; empty: all
}

// trustee is the account among SIDs of a login; the others are groups.
func (s *session) trustee(ctx context.Context, sids []string) (trustee, error) {
	var which string
	for _, sid := range sids {
		which += "(objectSid=" + sid + ")"
	}
	found, err := s.search(ctx, "look for the management account", s.base, ldap.ScopeWholeSubtree, "(&(objectClass=user)(|"+which+"))",
		[]string{"objectSid", "sAMAccountName"})
	if err != nil {
		return trustee{}, err
	}
	if len(found) != 1 {
		return trustee{}, sdk.Errorf(sdk.ClassUnsupported, "the management account is not in the domain %s, or may not read itself", s.place.domain).
			WithFix("use an account of that domain, or compare its rights with the connector's page")
	}
	sid, err := sidString(found[0].GetRawAttributeValue("objectSid"))
	if err != nil {
		return trustee{}, err
	}
	w := trustee{sid: sid, name: sid}
	if name := found[0].GetAttributeValue("sAMAccountName"); plainTrustee.MatchString(name) {
		w.name = name + "@" + s.place.domain
	}
	return w, nil
}

// plainTrustee are names that no shell reads as something else.
var plainTrustee = regexp.MustCompile(`^[A-Za-z0-9_.-]+$`)

// grant is the command with which an administrator gives a right: of Samba on a domain controller of Samba, else that of
// Windows.
// https://learn.microsoft.com/en-us/previous-versions/windows/it-pro/windows-server-2012-r2-and-2012/cc771151(v=ws.11)
func (k *rightsCheck) grant(dn string, p permit) string {
	if dn = plainDN(dn); dn == "" {
		return ""
	}
	if k.root.GetAttributeValue("vendorName") != "" { // Windows has none
		return `samba-tool dsacl set --action=allow --objectdn="` + dn + `" --sddl="` + p.sddl(k.who.sid) + `"`
	}
	inherit := map[string]string{"CI": " /I:T", "CIIO": " /I:S"}[p.inherit]
	rights := p.rights
	if rights == "CR" {
		rights = "CA"
	}
	about := strings.TrimRight(";"+p.object+";"+p.class, ";")
	return `dsacls "` + dn + `"` + inherit + ` /G "` + k.who.name + ":" + rights + about + `"`
}

// sddl is thp permit in the security descriptor definition language (MS-DTYP 2.5.1).
func (p permit) sddl(sid string) string {
	kind := "A"
	if p.guid != "" || p.classGUID != "" {
		kind = "OA"
	}
	return "(" + strings.Join([]string{kind, p.inherit, p.rights, p.guid, p.classGUID, sid}, ";") + ")"
}

// plainDN writes a distinguished name so that it means the same within double quotes of every shell; empty if it cannot
// be read.
func plainDN(dn string) string {
	parsed, err := ldap.ParseDN(dn)
	if err != nil {
		return ""
	}
	var parts []string
	for _, rdn := range parsed.RDNs {
		var values []string
		for _, a := range rdn.Attributes {
			c, err := template.LDAPName.Parse(a.Type + "=%Username%")
			if err == nil {
				var text string
				if text, err = c.Render(func(template.Slot) (string, error) { return a.Value, nil }, nil); err == nil {
					values = append(values, text)
				}
			}
			if err != nil {
				return ""
			}
		}
		parts = append(parts, strings.Join(values, "+"))
	}
	return strings.Join(parts, ",")
}
