package main

import (
	"context"
	"strings"

	"github.com/go-ldap/ldap/v3"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// levels are the functional levels of domain controllers (MS-ADTS 6.1.4.2); Windows shows no other version.
var levels = map[string]string{
	"0": "2000", "2": "2003", "3": "2008", "4": "2008 R2", "5": "2012", "6": "2012 R2", "7": "2016", "10": "2025",
}

// Probe implements sdk.Prober. Rights that cannot be read are not called missing, and those that only roles need are for
// CheckRights.
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
	k, err := s.rightsCheck(ctx)
	if c := sdk.ClassOf(err); c == sdk.ClassUnsupported || c == sdk.ClassNotPermitted {
		return f, nil // what cannot be found out is no reason not to work
	}
	if err == nil {
		err = k.everyRole(ctx)
	}
	if err != nil {
		return sdk.Fingerprint{}, err
	}
	f.MissingRights = k.missing
	return f, nil
}
