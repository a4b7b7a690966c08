package main

import "github.com/reeve-pam/reeve/plugins/sdk"

// group is the parameter of roles that are about a group of the site's own.
var group = sdk.RoleParam{
	Name: "Group", Required: true, Pattern: `^[^"/\\\[\]:;|=,+*?<>@\x00-\x1f\x7f]{1,64}$`,
	Help: "the sAMAccountName of a group: 1 to 64 characters, without \" / \\ [ ] : ; | = , + * ? < > and @",
}

// roles is the catalogue. Groups of the domain and of every server are named by the fixed
// numbers of their SIDs, since their names depend on the language of the installation.
// https://learn.microsoft.com/en-us/windows-server/identity/ad-ds/manage/understand-security-identifiers
func roles() []sdk.Role {
	member := func(name, title, description, of string, params ...sdk.RoleParam) sdk.Role {
		return sdk.Role{
			Name: name, Title: title, Description: description, Version: 1, Params: params,
			Phases: map[sdk.Phase][]string{
				sdk.PhaseGrant:  {"add-to-group " + of},
				sdk.PhaseRevoke: {"remove-from-group " + of},
			},
		}
	}
	highRisk := func(r sdk.Role) sdk.Role {
		r.HighRisk = true
		return r
	}
	return []sdk.Role{
		{Name: "ad-domain-user", Title: "Domain user", Version: 1,
			Description: "What every user of the domain has, and nothing more."},
		highRisk(member("ad-domain-admin", "Domain administrator", "Everything in the domain and on its computers.", "rid:512")),
		highRisk(member("ad-enterprise-admin", "Enterprise administrator", "Everything in the forest; the target is its root domain.", "rid:519")),
		highRisk(member("ad-schema-admin", "Schema administrator", "Change the forest's schema; the target is its root domain.", "rid:518")),
		highRisk(member("ad-server-operator", "Server operator", "Log on to domain controllers and run their services.", "sid:S-1-5-32-549")),
		highRisk(member("ad-account-operator", "Account operator", "Manage most users and groups.", "sid:S-1-5-32-548")),
		highRisk(member("ad-backup-operator", "Backup operator", "Read and write every file of domain controllers, past its rights.", "sid:S-1-5-32-551")),
		highRisk(member("ad-print-operator", "Print operator", "Manage printers of domain controllers, and load drivers there.", "sid:S-1-5-32-550")),
		highRisk(member("ad-dns-admin", "DNS administrator", "Manage the DNS service of the domain's controllers.", "name DnsAdmins")),
		highRisk(member("ad-gpo-creator", "Group policy creator", "Make group policies and change those it made.", "rid:520")),
		member("ad-remote-desktop", "Remote desktop user", "Log on to domain controllers by Remote Desktop.", "sid:S-1-5-32-555"),
		member("ad-event-log-reader", "Event log reader", "Read the event logs of domain controllers.", "sid:S-1-5-32-573"),
		member("ad-helpdesk", "Help desk", "A group of the site's own, to which the help desk's rights are delegated.", "name %Group%", group),
		member("ad-protected-user", "Protected user", "No NTLM, no delegation, no weak keys, short tickets.", "rid:525"),
		serviceAccount(),
		member("ad-jit-group-member", "Member of a group for a while", "One group, until the access ends.", "name %Group%", group),
	}
}

// serviceAccount keeps a service account from logging on interactively by the only means a domain has: a group to
// which a policy of the site denies that.
func serviceAccount() sdk.Role {
	deny := group
	deny.Name = "DenyLogonGroup"
	deny.Help = "the group to which a group policy denies interactive logon; " + group.Help
	return sdk.Role{
		Name: "ad-service-account", Title: "Service account", Version: 1,
		Description: "One service principal name, no delegation, no expiry of the password, and a group that must not log on interactively.",
		Params: []sdk.RoleParam{
			{Name: "SPN", Required: true, Pattern: spnText.String(), Help: "the service principal name, e.g. HTTP/web.example.com"},
			deny,
		},
		Phases: map[sdk.Phase][]string{
			sdk.PhaseGrant: {
				"add-spn %SPN%", "set-flag not-delegated", "set-flag password-never-expires",
				"add-to-group name %DenyLogonGroup%",
			},
			sdk.PhaseRevoke: {"remove-spn %SPN%", "remove-from-group name %DenyLogonGroup%"},
		},
	}
}
