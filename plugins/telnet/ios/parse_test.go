package ios

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const example8 = "$8$TnGX/fE4KGHOVU$pEhnEvxrvaynpi8j4f.EMHr6M.FzU8xnZnBr/tJdFWk"

func TestUsersAreReadAsDevicesPrintThem(t *testing.T) {
	t.Parallel()
	got := parseUsers([]string{
		"username admin privilege 15 secret 8 " + example8,
		"username old password 7 0822455D0A16",
		"username five privilege 7 secret 5 $1$mERr$hx5rVt7rPNoS4wqbXKX7m0",
		"username none",
		"username two privilege 3",
		"username two secret 9 $9$abc$def",
		"username privilege privilege 2 secret 0 privilege 9",
		"no username gone", "hostname R1", "username",
	})
	want := map[string]*user{
		"admin":     {name: "admin", privilege: 15, kind: "secret 8", secret: example8},
		"old":       {name: "old", privilege: 1, kind: "password 7"},
		"five":      {name: "five", privilege: 7, kind: "secret 5"},
		"none":      {name: "none", privilege: 1},
		"two":       {name: "two", privilege: 3, kind: "secret 9"},
		"privilege": {name: "privilege", privilege: 2, kind: "secret 0"},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(user{})); diff != "" {
		t.Error(diff)
	}
}

func TestSessionsAreReadAsDevicesPrintThem(t *testing.T) {
	t.Parallel()
	got := parseSessions([]string{
		"    Line       User       Host(s)              Idle       Location",
		"   0 con 0     ops        idle                 00:01:02",
		"*  2 vty 0     admin      idle                 00:00:00 192.0.2.7",
		" 515 vty 1     ops        idle                 00:00:09 192.0.2.8",
		"   4 vty 2                idle                 00:00:09 192.0.2.8",
		"  Interface    User               Mode         Idle     Peer Address",
	})
	if diff := cmp.Diff(map[string][]int{"ops": {0, 515}, "admin": {2}, "idle": {4}}, got); diff != "" {
		t.Error(diff)
	}
}

func TestVersionIsFound(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"Cisco IOS Software, C2900 Software (C2900-UNIVERSALK9-M), Version 15.7(3)M8, RELEASE SOFTWARE (fc1)": "15.7(3)M8",
		"Cisco IOS XE Software, Version 17.03.04a":                                                            "17.03.04a",
		"IOS (tm) 3600 Software (C3640-JK9S-M), Version 12.4(25d), RELEASE SOFTWARE (fc1)":                    "12.4(25d)",
		"Some other device": "",
	} {
		if got := parseVersion([]string{"", line}); got != want {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
}

func TestSecretsOfConfigurationsAreMasked(t *testing.T) {
	t.Parallel()
	const canary = "C4nary-Secret"
	for _, line := range []string{
		"enable secret 8 " + canary, "enable password " + canary, "username a privilege 15 secret 5 " + canary,
		"username a password 7 " + canary, " password " + canary, "snmp-server community " + canary + " RO 10",
		"snmp-server host 192.0.2.1 version 2c " + canary, "snmp-server host 192.0.2.1 " + canary,
		"snmp-server user u g v3 auth sha " + canary + " priv aes 128 " + canary,
		"tacacs-server key 7 " + canary, "tacacs-server host 192.0.2.1 key " + canary, "radius-server host 192.0.2.1 auth-port 1812 key " + canary,
		" key 7 " + canary, " key " + canary, "crypto isakmp key " + canary + " address 192.0.2.1", " key-string " + canary,
		" pre-shared-key address 0.0.0.0 key " + canary, " pre-shared-key " + canary, " neighbor 192.0.2.1 password 7 " + canary,
		" ip ospf message-digest-key 1 md5 7 " + canary, " ip ospf authentication-key " + canary, " ppp chap password 0 " + canary,
		" wpa-psk ascii 0 " + canary, " standby 1 authentication md5 key-string 7 " + canary,
	} {
		if got := mask(line); strings.Contains(got, canary) || !strings.Contains(got, "********") {
			t.Errorf("%q is shown as %q", line, got)
		}
	}
	for _, line := range []string{"interface GigabitEthernet0/0", " description the key to the house", "service password-encryption", " login local"} {
		if got := mask(line); got != line {
			t.Errorf("%q is shown as %q", line, got)
		}
	}
}

// FuzzConfiguration reads anything as what a device prints; of what is read, names and secrets stand in it.
func FuzzConfiguration(f *testing.F) {
	for _, seed := range []string{
		"username admin privilege 15 secret 8 " + example8, "username a secret\nusername a privilege", "*  2 vty 0     admin      idle",
		"Cisco IOS Software, Version 15.7(3)M8,", "enable secret 8 x", "  515 vty 1 a b",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		lines := strings.Split(text, "\n")
		for name, u := range parseUsers(lines) {
			if name != u.name || !strings.Contains(text, name) || !strings.Contains(text, string(u.secret)) || u.privilege < 0 || u.privilege > 15 {
				t.Errorf("%+v", u)
			}
			if u.secret != "" && u.secret.salt() == "" {
				t.Errorf("%q has no salt", u.secret)
			}
			if facts := u.facts(name); !facts.Exists || facts.Identity != name {
				t.Errorf("%+v", facts)
			}
		}
		for _, numbers := range parseSessions(lines) {
			for _, n := range numbers {
				if n < 0 || n > 99999 {
					t.Errorf("line %d", n)
				}
			}
		}
		if v := parseVersion(lines); len(v) > 64 {
			t.Errorf("version %q", v)
		}
		for _, line := range lines {
			if strings.Contains(mask(line), "\n") {
				t.Errorf("%q was masked to several lines", line)
			}
		}
	})
}
