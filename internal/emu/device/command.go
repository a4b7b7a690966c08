package device

import (
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// exec does a command outside configuration mode.
func (s *session) exec(line string, words []string) {
	d := s.device
	switch {
	case is(words, "exit"), is(words, "logout"):
		s.over = true
	case is(words, "enable"):
		s.enable()
	case is(words, "disable"):
		s.level = 1
	case len(words) == 3 && is(words[:2], "terminal length"):
		n, err := strconv.Atoi(words[2])
		if err != nil || n < 0 || n > 512 || d.fault().AlwaysPage {
			s.invalid()
			return
		}
		s.length = n
	case len(words) == 3 && is(words[:2], "terminal width"):
		if n, err := strconv.Atoi(words[2]); err != nil || n < 0 || n > 512 {
			s.invalid()
		}
	case is(words, "show version"):
		s.line("Cisco IOS Software, Emulated Software (EMU-UNIVERSALK9-M), Version 15.7(3)M8, RELEASE SOFTWARE (fc1)")
		s.line("%s uptime is 1 day", d.options.Hostname)
	case is(words, "show users"):
		s.showUsers()
	case is(words, "show ip interface brief"):
		s.line("%-27s%-16s%-4s%-7s%-22s%s", "Interface", "IP-Address", "OK?", "Method", "Status", "Protocol")
		d.mu.Lock()
		interfaces := maps.Clone(d.interfaces)
		d.mu.Unlock()
		for _, name := range slices.Sorted(maps.Keys(interfaces)) {
			status := "administratively down"
			if interfaces[name] {
				status = "up"
			}
			s.line("%-27s%-16s%-4s%-7s%-22s%s", name, "unassigned", "YES", "unset", status, strings.TrimPrefix(status, "administratively "))
		}
	case len(words) == 4 && is(words[:3], "show ip arp"):
		s.line("%s", "Protocol  Address          Age (min)  Hardware Addr   Type   Interface")
		if hardware, ok := d.options.ARP[words[3]]; ok {
			s.line("Internet  %-16s         3  %s  ARPA   GigabitEthernet0/0", words[3], hardware)
		}
	case is(words, "show privilege"):
		s.line("Current privilege level is %d", s.level)
	case s.level < 15:
		s.invalid()
	case is(words, "show aaa local user lockout"):
		s.line("%s", "        Local-user          Lock time")
		for _, name := range d.LockedOut() {
			s.line("        %-20s%s", name, "04:28:49 UTC Sat Jun 19 2004")
		}
	case is(words, "configure terminal"):
		s.mode = "config"
		s.print("Enter configuration commands, one per line.  End with CNTL/Z.\r\n")
	case len(words) > 1 && is(words[:2], "show running-config"):
		s.showConfig(line)
	case is(words, "write memory"), is(words, "write"):
		s.print("Building configuration...\r\n")
		if d.fault().SaveFails {
			s.print("% Error writing nvram\r\n")
			return
		}
		d.mu.Lock()
		d.saved = strings.Join(d.config(), "\n")
		d.mu.Unlock()
		s.print("[OK]\r\n")
	case len(words) == 3 && is(words[:2], "clear line"):
		s.clearLine(words[2])
	case is(words, "reload"):
		if s.confirm("Proceed with reload? ") {
			s.over = true
		}
	default:
		s.invalid()
	}
}

func (s *session) enable() {
	if s.device.options.EnableSecret == "" {
		s.print("% Error in authentication.\r\n\r\n")
		return
	}
	for range 3 {
		s.print("Password: ")
		password, ok := s.readLine(s.device.fault().EchoSecret, false)
		if !ok {
			s.over = true
			return
		}
		if password == s.device.options.EnableSecret {
			s.level = 15
			return
		}
	}
	s.print("% Bad secrets\r\n\r\n")
}

func (s *session) showUsers() {
	d := s.device
	d.mu.Lock()
	sessions := map[int]string{}
	for o := range d.sessions {
		if o.user != "" {
			sessions[o.number] = o.user
		}
	}
	d.mu.Unlock()
	s.line("    Line       User       Host(s)              Idle       Location")
	for _, n := range slices.Sorted(maps.Keys(sessions)) {
		own := " "
		if n == s.number {
			own = "*"
		}
		s.line("%s %2d vty %d     %-10s idle                 00:00:00 127.0.0.1", own, n, n-2, sessions[n])
	}
	s.line("")
	s.line("  Interface    User               Mode         Idle     Peer Address")
}

var include = regexp.MustCompile(`^sh\S* run\S* \| inc\S* (.+)$`)

func (s *session) showConfig(line string) {
	d := s.device
	d.mu.Lock()
	lines := d.config()
	d.mu.Unlock()
	only := regexp.MustCompile("")
	if m := include.FindStringSubmatch(line); m != nil {
		re, err := regexp.Compile(m[1])
		if err != nil {
			s.invalid()
			return
		}
		only = re
	} else if len(strings.Fields(line)) > 2 {
		s.invalid()
		return
	} else {
		s.print("Building configuration...\r\n\r\n")
	}
	for _, l := range lines {
		if only.MatchString(l) {
			s.line("%s", l)
		}
	}
}

func (s *session) clearLine(number string) {
	n, err := strconv.Atoi(number)
	if err != nil {
		s.invalid()
		return
	}
	if !s.confirm("") {
		return
	}
	d := s.device
	d.mu.Lock()
	for o := range d.sessions {
		if o.number == n {
			_ = o.conn.Close()
			delete(d.sessions, o)
		}
	}
	d.mu.Unlock()
	s.print(" [OK]\r\n")
}

// configure does a command of configuration mode.
func (s *session) configure(words []string) {
	d := s.device
	f := d.fault()
	name := regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}$`)
	switch {
	case words[0] == "end":
		s.mode, s.iface = "", ""
	case words[0] == "exit":
		if s.mode == "config" {
			s.mode = ""
		} else {
			s.mode = "config"
		}
	case len(words) > 2 && words[0] == "username" && name.MatchString(words[1]):
		s.setUser(words[1], words[2:])
	case len(words) == 3 && words[0] == "no" && words[1] == "username":
		if _, ok := d.User(words[2]); !ok {
			return
		}
		if s.confirm("This operation will remove all username related configurations with same name.Do you want to continue? ") && !f.Deaf {
			d.mu.Lock()
			delete(d.users, words[2])
			d.mu.Unlock()
		}
	case len(words) == 2 && words[0] == "interface":
		d.mu.Lock()
		_, ok := d.interfaces[words[1]]
		d.mu.Unlock()
		if !ok {
			s.invalid()
			return
		}
		s.mode, s.iface = "config-if", words[1]
	case s.mode == "config-if" && (slices.Equal(words, []string{"shutdown"}) || slices.Equal(words, []string{"no", "shutdown"})):
		up := len(words) == 2
		d.mu.Lock()
		d.interfaces[s.iface] = up
		d.events = append(d.events, s.iface+map[bool]string{true: " up", false: " down"}[up])
		d.mu.Unlock()
	default:
		s.invalid()
	}
}

// setUser does "username NAME [privilege N] [secret TYPE VALUE]".
func (s *session) setUser(name string, words []string) {
	d := s.device
	u, ok := d.User(name)
	if !ok {
		u.Privilege = 1
	}
	for len(words) > 0 {
		switch {
		case len(words) >= 2 && words[0] == "privilege":
			n, err := strconv.Atoi(words[1])
			if err != nil || n < 0 || n > 15 {
				s.invalid()
				return
			}
			u.Privilege, words = n, words[2:]
		case len(words) == 3 && words[0] == "secret" && words[1] == "8" && !d.fault().OldSecrets:
			if !secretForm.MatchString(words[2]) {
				s.print("ERROR: The secret you entered is not a valid encrypted secret.\r\n")
				return
			}
			u.Kind, u.Secret, words = "8", words[2], nil
		default:
			s.invalid()
			return
		}
	}
	if !d.fault().Deaf {
		d.SetUser(name, u)
	}
}
