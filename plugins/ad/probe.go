package main

import (
	"context"
	"slices"
	"strings"

	"github.com/go-ldap/ldap/v3"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// levels are the functional levels of domain controllers (MS-ADTS 6.1.4.2); Windows shows no other version.
var levels = map[string]string{
	"0": "2000", "2": "2003", "3": "2008", "4": "2008 R2", "5": "2012", "6": "2012 R2", "7": "2016", "10": "2025",
}

// needed are the attributes of accounts that the management account has to write.
var needed = []string{"accountExpires", "description", "lockoutTime", "userAccountControl"}

// renamed are those it has to write to give an account in quarantine another name.
var renamed = []string{"sAMAccountName", "userPrincipalName"}

// Probe implements sdk.Prober. The server itself says what the management account may do in the unit; that it may
// reset passwords it does not say, and what roles need is refused when it is used.
func (connector) Probe(ctx context.Context, t sdk.Target) (sdk.Fingerprint, error) {
	s, err := manage(ctx, t)
	if err != nil {
		return sdk.Fingerprint{}, err
	}
	defer s.close()
	level := s.root.GetAttributeValue("domainControllerFunctionality")
	if name, known := levels[level]; known {
		level = name
	}
	f := sdk.Fingerprint{
		Product: "Active Directory", Version: "level " + level,
		Attributes: map[string]string{
			"domain": s.place.domain, "base_dn": s.base, "dns_host_name": s.root.GetAttributeValue("dnsHostName"),
			"domain_level": s.root.GetAttributeValue("domainFunctionality"), "forest_level": s.root.GetAttributeValue("forestFunctionality"),
		},
	}
	if vendor := s.root.GetAttributeValue("vendorName"); vendor != "" { // Windows has none
		f.Product, f.Version = "Active Directory on Samba", "level "+level
		if v := s.root.GetAttributeValue("vendorVersion"); v != "" {
			f.Version = v
		}
	}
	domain, err := s.search(ctx, "read the domain", s.base, ldap.ScopeBaseObject, "(objectClass=*)", []string{"fSMORoleOwner"})
	if err != nil {
		return sdk.Fingerprint{}, err
	}
	if len(domain) == 1 {
		f.Attributes["pdc_emulator"] = "no"
		if strings.EqualFold(domain[0].GetAttributeValue("fSMORoleOwner"), s.root.GetAttributeValue("dsServiceName")) {
			f.Attributes["pdc_emulator"] = "yes" // passwords are known here first
		}
	}
	if f.MissingRights, err = s.missing(ctx, s.place.ou, needed); err != nil || s.place.quarantine == "" {
		return f, err
	}
	missing, err := s.missing(ctx, s.place.quarantine, renamed)
	f.MissingRights = append(f.MissingRights, missing...)
	return f, err
}

// missing asks the server which rights lack in a unit.
func (s *session) missing(ctx context.Context, unit string, attributes []string) ([]string, error) {
	found, err := s.search(ctx, "read "+unit, unit, ldap.ScopeBaseObject, "(objectClass=*)", []string{"allowedChildClassesEffective"})
	if sdk.ClassOf(err) == sdk.ClassNotFound || err == nil && len(found) == 0 {
		return nil, sdk.Errorf(sdk.ClassInvalid, "there is no %s, or the management account may not read it", unit).
			WithFix("make the unit, or correct the target's options")
	}
	if err != nil {
		return nil, err
	}
	var missing []string
	if !slices.Contains(found[0].GetAttributeValues("allowedChildClassesEffective"), "user") {
		missing = append(missing, "create and delete user objects in "+unit)
	}
	// What may be written shows on accounts only; one tells for all, since rights are inherited.
	sample := ""
	err = s.pages(ctx, "look for an account", unit, ldap.ScopeSingleLevel, "(&"+users+"(!(adminCount=1)))", []string{"objectSid"},
		func(e *ldap.Entry) (bool, error) { sample = e.DN; return false, nil })
	if err != nil || sample == "" {
		return missing, err
	}
	found, err = s.search(ctx, "read an account", sample, ldap.ScopeBaseObject, "(objectClass=*)", []string{"allowedAttributesEffective"})
	if sdk.ClassOf(err) == sdk.ClassNotFound { // it has gone meanwhile
		return missing, nil
	}
	if err != nil || len(found) == 0 {
		return missing, err
	}
	for _, name := range attributes {
		if !slices.Contains(found[0].GetAttributeValues("allowedAttributesEffective"), name) {
			missing = append(missing, "write "+name+" of user objects in "+unit)
		}
	}
	return missing, nil
}
