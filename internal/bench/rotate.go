package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/internal/testlab"
)

// rotateRows: new passwords over SSH, from the API request to the proof by a fresh login, through three controllers, an
// agent and its connector. The floor is bare x/crypto/ssh, 16 in flight, which runs the commands that the connector
// runs and makes the same two logins as the account, with the old password before and with the new one after. On many
// hosts it makes one fresh connection for the commands on each; on one host a fresh one for each command.
func rotateRows() []row {
	return []row{{
		name: "rotate-hosts", work: "set password over SSH, one account on each of 20 hosts, 16 in flight", unit: "accounts/s", more: true, require: 0.8,
		prepare: func(ctx context.Context, e *env) (*sides, error) { return rotateSides(ctx, e, 20, 1, false) },
	}, {
		name: "rotate-host", work: "set password over SSH, 20 accounts on one host, against a fresh connection each", unit: "accounts/s", more: true, require: 2,
		prepare: func(ctx context.Context, e *env) (*sides, error) { return rotateSides(ctx, e, 1, 20, true) },
	}}
}

// rotations is how often each account is rotated in a run.
const rotations = 3

// sshAccount is an account of a floor.
type sshAccount struct {
	host           *testlab.Host
	name, password string
}

func rotateSides(ctx context.Context, e *env, hosts, accounts int, freshEach bool) (*sides, error) {
	w, err := startTargets(ctx, e)
	if err != nil {
		return nil, err
	}
	if e.quick {
		hosts, accounts = min(hosts, 2), min(accounts, 2)
	}
	s, err := w.rotateSides(ctx, e, hosts, accounts, freshEach)
	if err != nil {
		w.fleet.Tails(e.stderr, 20)
		return nil, errors.Join(err, w.close())
	}
	return s, nil
}

func (w *targets) rotateSides(ctx context.Context, e *env, hosts, accounts int, freshEach bool) (*sides, error) {
	root := rand.Text()
	var orders []client.ProvisionRequest
	var bare []*sshAccount
	var servers []*testlab.Host
	yes := true
	for i := range hosts {
		options := testlab.HostOptions{Name: fmt.Sprintf("host%d", i), Accounts: []testlab.HostAccount{{Name: "root", Password: root}}}
		for k := range accounts {
			options.Accounts = append(options.Accounts, testlab.HostAccount{Name: fmt.Sprintf("bare%d", k), Password: rand.Text()})
		}
		h, err := w.lab.SSHHost(options)
		if err != nil {
			return nil, err
		}
		servers = append(servers, h)
		for k, a := range options.Accounts[1:] {
			bare = append(bare, &sshAccount{host: h, name: a.Name, password: a.Password})
			orders = append(orders, client.ProvisionRequest{Name: fmt.Sprintf("user%d", k), Role: "linux-standard", Assets: []string{options.Name},
				RotationEnabled: &yes})
		}
		err = w.addAsset(ctx, client.AssetRequest{Name: options.Name, Connector: "ssh", Address: h.Addr, HostKeys: &[]string{h.HostKey()},
			ManagementAccount: &client.ManagementAccountRequest{Username: "root", Password: &root}})
		if err != nil {
			return nil, err
		}
	}
	ids, _, err := w.provision(ctx, orders)
	if err = errors.Join(err, w.allWell(ctx, ids)); err != nil {
		return nil, err
	}
	rounds := e.few(rotations)
	n := rounds * len(ids)
	cost := w.costsOf(func() (pids []int) {
		for _, h := range servers {
			pids = append(pids, h.PID())
		}
		return pids
	})
	reeve := func(ctx context.Context) ([]float64, error) {
		var took time.Duration
		err := cost.reeve.measure(n, func() error {
			for range rounds {
				d, err := w.rotate(ctx, ids)
				if err != nil {
					return err
				}
				took += d
			}
			return nil
		})
		return perSecond(n, took), errors.Join(err, w.allWell(ctx, ids))
	}
	if _, err := w.rotate(ctx, ids); err != nil { // warm
		return nil, err
	}
	return &sides{
		floor: func(ctx context.Context) ([]float64, error) {
			began := time.Now()
			err := cost.floor.measure(n, func() error {
				for range rounds {
					if err := each(len(bare), func(i int) error { return bare[i].rotate(ctx, root, freshEach) }); err != nil {
						return err
					}
				}
				return nil
			})
			return perSecond(n, time.Since(began)), err
		},
		reeve: reeve,
		note:  cost.String,
		close: w.close,
	}, nil
}

// unixEnvironment is what plugins/ssh and plugins/telnet set first.
const unixEnvironment = "LC_ALL=C; LANG=C; PATH=/usr/sbin:/usr/bin:/sbin:/bin; export LC_ALL LANG PATH; umask 022; "

// readUser is how plugins/sdk/shadow reads an account, for $1.
const readUser = `set -- %s; u=$1
p=$(getent passwd -- "$u") || { rc=$?; [ $rc -eq 2 ] && { echo 'exists no'; echo 'end'; exit 0; }; exit 70; }
case $p in "$u":*) ;; *) echo 'exists no'; echo 'end'; exit 0;; esac
printf 'passwd %%s\n' "$p"
if s=$(getent shadow -- "$u"); then
  h=${s#*:}; r=${h#*:}; h=${h%%%%:*}
  case $h in '') k=empty;; '!'|'!!'|'*'|'!*'|x) k=none;; '!'*) k=locked;; '*'*) k=none;; *) k=set;; esac
  echo "password $k"
  printf 'aging %%s\n' "$r"
  d=$(printf %%s "$h" | sha256sum) && printf 'hash %%.16s\n' "$d"
fi
printf 'groups %%s\n' "$(id -Gn -- "$u")"
f=/etc/sudoers.d/reeve-$u
[ -f "$f" ] && while IFS= read -r l || [ -n "$l" ]; do printf 'sudoers %%s\n' "$l"; done <"$f"
i=${p#*:*:}; i=${i%%%%:*}
ps -o sid=,comm= -u "$i" 2>/dev/null | while read -r l; do printf 'process %%s\n' "$l"; done
k=${p%%:*}; k=${k##*:}/.ssh/authorized_keys
[ -f "$k" ] && ssh-keygen -lf "$k" 2>/dev/null | while read -r l; do printf 'key %%s\n' "$l"; done
echo end
`

const setPassword = "s=$(getent shadow -- %s); s=${s#*:}; case ${s%%%%:*} in '!'?*) lock=-L;; *) lock=;; esac; " +
	`IFS= read -r line && printf '%%s\n' "$line" | chpasswd && { [ -z "$lock" ] || usermod -L -- %[1]s; }`

// rotate sets a new password with the bare library.
func (a *sshAccount) rotate(ctx context.Context, root string, freshEach bool) error {
	if err := testlab.SSHLogin(ctx, net.JoinHostPort(a.host.Addr, strconv.Itoa(a.host.Port)), a.name, a.password, a.host.HostKey()); err != nil {
		return err
	}
	next := rand.Text()
	read := unixEnvironment + fmt.Sprintf(readUser, a.name)
	var c *ssh.Client
	defer func() {
		if c != nil {
			_ = c.Close()
		}
	}()
	for _, command := range []struct{ text, input string }{
		{"id -u", ""}, {read, ""}, {fmt.Sprintf(setPassword, a.name), a.name + ":" + next + "\n"}, {read, ""},
	} {
		if c != nil && freshEach {
			_ = c.Close()
			c = nil
		}
		if c == nil {
			var err error
			if c, err = dialSSH(net.JoinHostPort(a.host.Addr, strconv.Itoa(a.host.Port)), a.host.HostKey(), "root", root); err != nil {
				return err
			}
		}
		s, err := c.NewSession()
		if err != nil {
			return err
		}
		s.Stdin = strings.NewReader(command.input)
		if out, err := s.CombinedOutput(command.text); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
	}
	a.password = next
	return testlab.SSHLogin(ctx, net.JoinHostPort(a.host.Addr, strconv.Itoa(a.host.Port)), a.name, a.password, a.host.HostKey())
}
