package main

import "github.com/reeve-pam/reeve/plugins/sdk"

// The commands predefined roles are made of. Groups are named by SID: their names differ by language.
const (
	addTo                = "Add-LocalGroupMember -SID '"
	takeFrom             = "Remove-LocalGroupMember -SID '"
	member               = "' -Member %Username%"
	giveRight, takeRight = "Add-AccountRight -Right ", "Remove-AccountRight -Right "
	who                  = " -Member %Username%"
)

// Well-known SIDs of local groups.
// https://learn.microsoft.com/windows-server/identity/ad-ds/manage/understand-security-identifiers
const builtin = "S-1-5-32-"

func roles() []sdk.Role {
	group := func(name, title, rid, description string, highRisk bool) sdk.Role {
		return sdk.Role{
			Name: name, Title: title, Description: description, Version: 1, HighRisk: highRisk,
			Phases: map[sdk.Phase][]string{
				sdk.PhaseGrant:  {addTo + builtin + rid + member},
				sdk.PhaseRevoke: {takeFrom + builtin + rid + member},
			},
		}
	}
	return []sdk.Role{
		group("win-administrator", "Administrator", "544", "member of Administrators: may do everything", true),
		group("win-user", "User", "545", "member of Users: may log in at the console", false),
		group("win-rdp-user", "Remote desktop user", "555", "member of Remote Desktop Users", false),
		group("win-remote-management", "Remote management user", "580", "member of Remote Management Users: may use WinRM", false),
		group("win-backup-operator", "Backup operator", "551",
			"member of Backup Operators: may read and overwrite every file, which is as good as Administrators", true),
		group("win-power-user", "Power user", "547", "member of Power Users, which current Windows gives no more than Users", false),
		group("win-network-config", "Network configuration operator", "556",
			"member of Network Configuration Operators: may change TCP/IP settings", false),
		group("win-perf-monitor", "Performance monitor user", "558", "member of Performance Monitor Users: may read counters", false),
		group("win-perf-log", "Performance log user", "559", "member of Performance Log Users: may schedule the logging of counters", false),
		group("win-event-log-reader", "Event log reader", "573", "member of Event Log Readers", false),
		group("win-hyperv-admin", "Hyper-V administrator", "578",
			"member of Hyper-V Administrators: may do everything to virtual machines and, through them, to much else", true),
		group("win-iis-operator", "IIS operator", "568",
			"member of IIS_IUSRS; what else it may do with IIS is up to a JEA endpoint, which is set up on the server", false),
		{
			Name: "win-service-account", Title: "Service account", Version: 1,
			Description: "may log on as a service and neither at the console nor by remote desktop",
			Phases: map[sdk.Phase][]string{
				sdk.PhaseGrant: {
					giveRight + "SeServiceLogonRight" + who,
					giveRight + "SeDenyInteractiveLogonRight" + who,
					giveRight + "SeDenyRemoteInteractiveLogonRight" + who,
				},
				sdk.PhaseRevoke: {
					takeRight + "SeServiceLogonRight" + who,
					takeRight + "SeDenyInteractiveLogonRight" + who,
					takeRight + "SeDenyRemoteInteractiveLogonRight" + who,
				},
			},
		},
	}
}
