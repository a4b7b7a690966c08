package connector

import "github.com/reeve-pam/reeve/plugins/sdk"

// unitsPattern is names of systemd units, separated by spaces.
const unitsPattern = `^[A-Za-z0-9_][A-Za-z0-9@_.-]*( [A-Za-z0-9_][A-Za-z0-9@_.-]*)*$`

// roles is the catalogue. The commands are those of parseCommand.
func roles() []sdk.Role {
	grant := func(commands ...string) map[sdk.Phase][]string {
		return map[sdk.Phase][]string{sdk.PhaseGrant: commands}
	}
	return []sdk.Role{
		{
			Name: "linux-standard", Title: "Standard user", Version: 1,
			Description: "An account with a home directory and no further rights",
		},
		{
			Name: "linux-admin-sudo", Title: "Administrator", Version: 1,
			Description: "May become root with sudo and the account's own password",
			Phases:      grant("group sudo|wheel"),
		},
		{
			Name: "linux-sudo-nopasswd", Title: "Administrator without password", Version: 1, HighRisk: true,
			Description: "May become root with sudo, and is not asked for a password",
			Phases:      grant("sudoers %Username% ALL=(ALL:ALL) NOPASSWD: ALL"),
		},
		{
			Name: "linux-log-reader", Title: "Log reader", Version: 1,
			Description: "May read system logs",
			Phases:      grant("group adm", "group? systemd-journal"),
		},
		{
			Name: "linux-docker", Title: "Docker user", Version: 1, HighRisk: true,
			Description: "May use Docker, which is as good as being root",
			Phases:      grant("group docker"),
		},
		{
			Name: "linux-backup-operator", Title: "Backup operator", Version: 1,
			Description: "May read everything under the given directories, as a tar stream: " +
				"sudo tar --one-file-system -cf - DIRECTORY",
			Params: []sdk.RoleParam{{
				Name: "Paths", Help: "absolute directories, separated by spaces", Required: true,
				Pattern: `^/[A-Za-z0-9@_./-]*( /[A-Za-z0-9@_./-]*)*$`,
			}},
			Phases: grant("group? backup",
				"sudoers %Username% ALL=(root) NOPASSWD: /usr/bin/tar --one-file-system -cf - %Paths%"),
		},
		{
			Name: "linux-service-operator", Title: "Service operator", Version: 1,
			Description: "May start, stop, restart and look at the given systemd units: " +
				"sudo systemctl --no-pager status UNIT",
			Params: []sdk.RoleParam{{
				Name: "Units", Help: "names of units, separated by spaces", Required: true,
				Pattern: unitsPattern,
			}},
			Phases: grant(
				"sudoers %Username% ALL=(root) NOPASSWD: /usr/bin/systemctl start %Units%",
				"sudoers %Username% ALL=(root) NOPASSWD: /usr/bin/systemctl stop %Units%",
				"sudoers %Username% ALL=(root) NOPASSWD: /usr/bin/systemctl restart %Units%",
				"sudoers %Username% ALL=(root) NOPASSWD: /usr/bin/systemctl --no-pager status %Units%",
			),
		},
		{
			Name: "linux-web-admin", Title: "Web administrator", Version: 1,
			Description: "Member of www-data; may start, stop, restart, reload and look at the web server's units, and check its configuration",
			Params: []sdk.RoleParam{{
				Name: "Units", Help: "names of the web server's units, separated by spaces, e.g. nginx.service", Required: true,
				Pattern: unitsPattern,
			}},
			Phases: grant(
				"group? www-data",
				"sudoers %Username% ALL=(root) NOPASSWD: /usr/bin/systemctl start %Units%",
				"sudoers %Username% ALL=(root) NOPASSWD: /usr/bin/systemctl stop %Units%",
				"sudoers %Username% ALL=(root) NOPASSWD: /usr/bin/systemctl restart %Units%",
				"sudoers %Username% ALL=(root) NOPASSWD: /usr/bin/systemctl reload %Units%",
				"sudoers %Username% ALL=(root) NOPASSWD: /usr/bin/systemctl --no-pager status %Units%",
				"sudoers %Username% ALL=(root) NOPASSWD: /usr/sbin/nginx -t",
				"sudoers %Username% ALL=(root) NOPASSWD: /usr/sbin/apache2ctl configtest",
			),
		},
		{
			// Not ip and tcpdump as they are: "ip netns exec" and "tcpdump -z" run any program.
			Name: "linux-network-operator", Title: "Network operator", Version: 1,
			Description: "Member of netdev; may look at addresses, routes and sockets, switch the given interfaces on and off, " +
				"and see 1000 packets of one: sudo tcpdump -nn -c 1000 -i INTERFACE",
			Params: []sdk.RoleParam{{
				Name: "Interfaces", Help: "names of interfaces, separated by spaces, e.g. eth0", Required: true,
				Pattern: `^[A-Za-z0-9][A-Za-z0-9@_.-]{0,14}( [A-Za-z0-9][A-Za-z0-9@_.-]{0,14})*$`,
			}},
			Phases: grant(
				"group? netdev",
				"sudoers %Username% ALL=(root) NOPASSWD: /usr/sbin/ip address show",
				"sudoers %Username% ALL=(root) NOPASSWD: /usr/sbin/ip route show",
				"sudoers %Username% ALL=(root) NOPASSWD: /usr/sbin/ip link set dev %Interfaces% up",
				"sudoers %Username% ALL=(root) NOPASSWD: /usr/sbin/ip link set dev %Interfaces% down",
				"sudoers %Username% ALL=(root) NOPASSWD: /usr/bin/ss -tulpn",
				"sudoers %Username% ALL=(root) NOPASSWD: /usr/bin/tcpdump -nn -c 1000 -i %Interfaces%",
			),
		},
		{
			Name: "linux-sftp-only", Title: "File transfer only", Version: 1,
			Description: "No shell; member of the group to which the host's sshd_config gives SFTP and nothing else: " +
				"Match Group GROUP, ForceCommand internal-sftp",
			Params: []sdk.RoleParam{{
				Name: "Group", Help: "the group named in sshd_config, e.g. sftponly", Required: true, Pattern: `^[a-z_][a-z0-9_-]{0,31}$`,
			}},
			Phases: grant("shell /usr/sbin/nologin", "group %Group%"),
		},
		{
			Name: "linux-ssh-key-only", Title: "Login with a key", Version: 1,
			Description: "The person logs in with the given public key, and never learns the account's password, " +
				"with which Reeve proves that the account works",
			Params: []sdk.RoleParam{
				{
					Name: "KeyType", Help: "the first word of the public key, e.g. ssh-ed25519", Required: true,
					Pattern: `^(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521)|sk-ssh-ed25519@openssh\.com|sk-ecdsa-sha2-nistp256@openssh\.com)$`,
				},
				{Name: "Key", Help: "the second word of the public key, AAAA…", Required: true, Pattern: `^AAAA[A-Za-z0-9+/]{32,1000}={0,2}$`},
			},
			Phases: grant("key %KeyType% %Key%"),
		},
		{
			Name: "linux-audit-readonly", Title: "Auditor", Version: 1,
			Description: "May read system logs, the audit log and its rules, and who may use sudo; changes nothing",
			Phases: grant(
				"group adm", "group? systemd-journal",
				"sudoers %Username% ALL=(root) NOPASSWD: /usr/sbin/aureport --summary",
				"sudoers %Username% ALL=(root) NOPASSWD: /usr/sbin/aureport --auth",
				"sudoers %Username% ALL=(root) NOPASSWD: /usr/sbin/auditctl -l",
				"sudoers %Username% ALL=(root) NOPASSWD: /usr/sbin/auditctl -s",
				"sudoers %Username% ALL=(root) NOPASSWD: /usr/bin/cat /var/log/audit/audit.log",
				"sudoers %Username% ALL=(root) NOPASSWD: /usr/bin/cat /etc/sudoers",
				"sudoers %Username% ALL=(root) NOPASSWD: /usr/bin/ls -l /etc/sudoers.d",
			),
		},
	}
}
