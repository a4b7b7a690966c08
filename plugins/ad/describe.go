package main

import (
	"regexp"
	"strings"

	"github.com/go-ldap/ldap/v3"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/template"
)

// The options of a target.
const (
	optionOU         = "account_ou"
	optionSuffix     = "upn_suffix"
	optionQuarantine = "quarantine_ou"
	optionStartTLS   = "start_tls"
)

// Describe implements sdk.Connector.
func (connector) Describe() sdk.Description {
	return sdk.Description{
		Name:        "ad",
		Title:       "Active Directory",
		Version:     "1.0.0",
		Category:    sdk.ActiveDirectory,
		DefaultPort: 636,
		Options: []sdk.Option{
			{Name: optionOU, Required: true,
				Help: "the organizational unit in which accounts are made, e.g. OU=Reeve,DC=example,DC=com"},
			{Name: optionSuffix,
				Help: "the part of user principal names behind the @; empty: the domain's own name"},
			{Name: optionQuarantine,
				Help: "the organizational unit that removed accounts are moved to, disabled; empty: they are deleted"},
			{Name: optionStartTLS, Default: "no", Allowed: []string{"yes", "no"},
				Help: "begin without TLS and turn it on before anything else is sent; with yes set the port too, usually to 389"},
		},
		Roles:       roles(),
		Dialect:     template.LDAPCommand.String(),
		CommandRule: sdk.CommandRule{Pattern: commandPattern, Help: commandHelp},
		NameRule: sdk.NameRule{
			Pattern:  `^[A-Za-z_]([A-Za-z0-9_.-]{0,18}[A-Za-z0-9_-])?$`,
			MaxBytes: 20, // of sAMAccountName, for users
			Help:     "1 to 20 of A-Z, a-z, 0-9, _, . and -, starting with a letter or _ and not ending with a dot",
		},
		PasswordRule: sdk.PasswordRule{MinLength: 8, MaxLength: 127},
	}
}

// place is where accounts live.
type place struct {
	ou, quarantine string // DNs; quarantine may be empty
	domain         string // its DNS name
	suffix         string // of user principal names
	startTLS       bool
}

var dnsName = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9._-]{0,253}[A-Za-z0-9_])?$`)

// placeOf reads the target's options.
func placeOf(t sdk.Target) (place, error) {
	p := place{ou: t.Options[optionOU], quarantine: t.Options[optionQuarantine], startTLS: t.Options[optionStartTLS] == "yes"}
	var err error
	if p.domain, err = domainOf(optionOU, p.ou); err != nil {
		return place{}, err
	}
	if p.quarantine != "" {
		domain, err := domainOf(optionQuarantine, p.quarantine)
		if err != nil {
			return place{}, err
		}
		if domain != p.domain {
			return place{}, sdk.Errorf(sdk.ClassInvalid, "the options %s and %s are of different domains", optionOU, optionQuarantine).
				WithFix("choose a quarantine unit in the domain of %s", optionOU)
		}
	}
	p.suffix = t.Options[optionSuffix]
	if p.suffix == "" {
		p.suffix = p.domain
	}
	if !dnsName.MatchString(p.suffix) {
		return place{}, sdk.Errorf(sdk.ClassInvalid, "the option %s is not what can stand behind an @", optionSuffix).
			WithFix("give a name such as example.com, without the @")
	}
	if p.startTLS && t.Port == 636 {
		return place{}, sdk.Errorf(sdk.ClassInvalid, "the option %s is for port 389, and the port is 636", optionStartTLS).
			WithFix("set the target's port to 389, or the option to no")
	}
	return p, nil
}

// domainOf is the DNS name of the domain that a DN is in.
func domainOf(option, dn string) (string, error) {
	invalid := sdk.Errorf(sdk.ClassInvalid, "the option %s is not the distinguished name of an organizational unit", option).
		WithFix("give it in full, e.g. OU=Reeve,DC=example,DC=com")
	if _, err := template.LDAPName.Tokens(dn); err != nil {
		return "", invalid
	}
	parsed, err := ldap.ParseDN(dn)
	if err != nil || len(parsed.RDNs) < 2 {
		return "", invalid
	}
	var labels []string
	for i, rdn := range parsed.RDNs {
		a := rdn.Attributes[0]
		if len(rdn.Attributes) != 1 || i == 0 && strings.EqualFold(a.Type, "DC") {
			return "", invalid
		}
		if strings.EqualFold(a.Type, "DC") {
			labels = append(labels, strings.ToLower(a.Value))
		} else if len(labels) > 0 {
			return "", invalid
		}
	}
	domain := strings.Join(labels, ".")
	if !dnsName.MatchString(domain) {
		return "", invalid
	}
	return domain, nil
}

// rdn is the relative name of a new object.
func rdn(name string) (string, error) {
	c, err := template.LDAPName.Parse("CN=%Username%")
	if err != nil {
		return "", err
	}
	return c.Render(func(template.Slot) (string, error) { return name, nil }, nil)
}

// within reports whether a DN is below another one, or it. What cannot be read is not.
func within(dn, ancestor string) bool {
	a, err := ldap.ParseDN(dn)
	if err != nil {
		return false
	}
	b, err := ldap.ParseDN(ancestor)
	return err == nil && (b.AncestorOfFold(a) || b.EqualFold(a))
}
