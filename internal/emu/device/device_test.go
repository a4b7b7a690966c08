package device_test

import (
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/internal/emu/device"
)

// client is a plain one, which answers no option.
type client struct {
	*testing.T
	conn net.Conn
}

func dial(t *testing.T, o device.Options) (*device.Device, *client) {
	t.Helper()
	d, err := device.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	conn, err := net.DialTimeout("tcp", net.JoinHostPort(d.Addr, strconv.Itoa(d.Port)), 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return d, &client{T: t, conn: conn}
}

func (c *client) send(text string) {
	c.Helper()
	if _, err := c.conn.Write([]byte(text)); err != nil {
		c.Fatal(err)
	}
}

// until reads until the text ends in what is wanted.
func (c *client) until(want string) string {
	c.Helper()
	_ = c.conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	var all strings.Builder
	one := make([]byte, 1)
	for !strings.HasSuffix(all.String(), want) {
		if _, err := c.conn.Read(one); err != nil {
			c.Fatalf("after %q: %v, want %q", all.String(), err, want)
		}
		all.Write(one)
	}
	return all.String()
}

func options() device.Options {
	return device.Options{
		Users: map[string]device.User{
			"ops":   {Privilege: 15, Kind: "8", Secret: device.Secret("s3cret", "12345678901234")},
			"guest": {Privilege: 1, Kind: "8", Secret: device.Secret("gu?st", "12345678901234")},
		},
		EnableSecret: "more",
	}
}

func (c *client) login(user, password, prompt string) {
	c.Helper()
	c.until("Username: ")
	c.send(user + "\r\n")
	c.until("Password: ")
	c.send(password + "\r\x00")
	if said := c.until(prompt); strings.Contains(said, password) {
		c.Errorf("the password was echoed: %q", said)
	}
}

func TestThreeWrongPasswordsEndTheConnection(t *testing.T) {
	t.Parallel()
	_, c := dial(t, options())
	for range 3 {
		c.login("ops", "wrong", "% Login invalid\r\n\r\n")
	}
	c.until("% Bad passwords\r\n")
	if _, err := c.conn.Read(make([]byte, 1)); err == nil {
		t.Error("the connection goes on")
	}
}

func TestCommandsAreAsGoodAsTheirUser(t *testing.T) {
	t.Parallel()
	d, c := dial(t, options())
	c.login("guest", "gu?st", "R1>")
	for _, command := range []string{"show running-config", "configure terminal", "write memory", "nonsense"} {
		c.send(command + "\r\n")
		if said := c.until("R1>"); !strings.Contains(said, "% Invalid input detected") {
			t.Errorf("%s: %q", command, said)
		}
	}
	c.send("enable\r\n")
	c.until("Password: ")
	c.send("more\r\n")
	c.until("R1#")
	c.send("conf t\r\n")
	c.until("R1(config)#")
	c.send("username new privilege 7\r\n")
	c.until("R1(config)#")
	c.send("no username guest\r\n")
	c.until("[confirm]")
	c.send("n")
	c.until("R1(config)#")
	if _, there := d.User("guest"); !there {
		t.Error("what was not confirmed was done")
	}
	if u, _ := d.User("new"); u.Privilege != 7 || strings.Contains(d.Saved(), "username new") {
		t.Errorf("%+v\n%s", u, d.Saved())
	}
}

func TestPagesWaitForAKey(t *testing.T) {
	t.Parallel()
	o := options()
	for i := range 40 {
		o.Users["user"+strconv.Itoa(i)] = device.User{Privilege: 1}
	}
	_, c := dial(t, o)
	c.login("ops", "s3cret", "R1#")
	c.send("show running-config\r\n")
	if first := c.until(" --More-- "); strings.Count(first, "\n") != 23+3 { // a page, the echo and two lines before it
		t.Errorf("a page of %d lines", strings.Count(first, "\n"))
	}
	c.send("q")
	c.until("R1#")
	c.send("terminal length 0\r\n")
	c.until("R1#")
	c.send("show running-config\r\n")
	if all := c.until("R1#"); strings.Contains(all, "More") || !strings.Contains(all, "username user39") {
		t.Errorf("%q", all)
	}
}

func TestBreachesOfTelnetAreNoticed(t *testing.T) {
	t.Parallel()
	for name, in := range map[string]string{
		"an option nobody asked for": "\xff\xfb\x05", "two answers": "\xff\xfd\x01\xff\xfd\x01", "a line feed alone": "x\n",
		"CR without its NUL": "ops\rx", "a subnegotiation of nothing": "\xff\xfa\x63\xff\xf0",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, c := dial(t, options())
			c.until("Username: ")
			c.send(in + "\r\n")
			c.until("Password: ")
			if len(d.Violations()) == 0 {
				t.Error("nobody noticed")
			}
		})
	}
}
