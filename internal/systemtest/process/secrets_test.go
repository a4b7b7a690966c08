//go:build linux

package process

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/internal/testlab"
)

// hunt is a cluster whose every secret is looked for everywhere.
type hunt struct {
	*cluster
	t     *testing.T
	scan  scanner
	found map[string]finds  // by place
	legit map[string]string // files that are meant to hold a secret, and why
	env   []string
	tmp   string
	watch *sampler

	agentProc *agentProcess
}

// secret is looked for from now on.
func (h *hunt) secret(name, value string) {
	h.t.Helper()
	if len(value) < 8 {
		h.t.Fatalf("%s is too short to be looked for", name)
	}
	h.scan.add(name, []byte(value))
}

// decoy is no secret: it is planted everywhere in every form, and must be found.
const decoy = "decoy"

// Three controllers, an agent, connectors, a Linux host and a MariaDB server, each a
// process of its own, live a life of provisioning, rotation, reveal, rekeying and backup
// with passwords that are known to the test, and die with core dumps allowed. The secrets
// are in no file but those that are for them, no log, no trail, no backup, no core, no
// command line, no environment, and no packet. That the search would find them is shown
// with a decoy in each of these places, in every form.
func TestNoSecretIsSeenFromOutside_K1_A6(t *testing.T) {
	t.Parallel()
	odd := "'\"$`\\ &%/+" // what quoting changes
	h := &hunt{t: t, cluster: bootstrapped(t, clusterOptions{controllers: 3}), found: map[string]finds{}, legit: map[string]string{}}
	var err error
	if h.tmp, err = os.MkdirTemp("", "k1"); err != nil { // short: the names of sockets are
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(h.tmp) })
	h.env = []string{"TMPDIR=" + h.tmp, "GOTRACEBACK=crash"} // a crash dumps core if it may
	plant := newCanary(odd)
	h.secret(decoy, plant)
	h.legit["admin.yaml"], h.legit["seal.key"] = "the context file holds the root token", "the key file holds the seal key"
	h.secret("root token", h.readContext().Token)
	key, err := os.ReadFile(h.path("seal.key"))
	if err != nil {
		t.Fatal(err)
	}
	rawKey, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(key)))
	if err != nil {
		t.Fatal(err)
	}
	h.scan.add("seal key", rawKey)
	management, static := newCanary(odd), newCanary(odd)
	h.secret("management password", management)
	h.secret("static password", static)

	target := testlab.NewHost(t, h.lab, testlab.HostOptions{Name: "web01", Accounts: []testlab.HostAccount{{Name: "ops", Password: management, Sudo: testlab.SudoPassword}}})
	db := testlab.NewMariaDB(t, h.lab, testlab.MariaDBOptions{})
	h.secret("database management password", db.ManagementPassword)
	decoyAddr, err := h.lab.Address()
	if err != nil {
		t.Fatal(err)
	}
	addresses := []string{target.Addr, db.Addr, decoyAddr}
	for _, n := range h.nodes {
		addresses = append(addresses, host(n.api))
	}
	packets := startCapture(t, h.dir, addresses...)
	h.watch = startSampler(&h.scan)

	h.startAll()
	h.live(target, db, management, static)
	h.rekey()
	h.ok("cluster", "snapshot", "save", h.path("backup.snap"))
	h.write("audit.jsonl", h.ok("audit", "export").out)
	h.crash()
	h.plantDecoy(plant, decoyAddr+":9999")
	packets.sync(decoyAddr + ":9998")

	watch := h.watch
	watch.end()
	for place, f := range watch.found {
		h.note(place, f)
	}
	for _, name := range []string{"reeved", "reeve-agent", "sshd", "tcpdump"} {
		if !slices.ContainsFunc(slices.Collect(maps.Keys(watch.seen)), func(s string) bool { return strings.HasPrefix(s, name) }) {
			t.Errorf("no process %s was seen among %d reads: %v", name, watch.reads, slices.Sorted(maps.Keys(watch.seen)))
		}
	}
	h.lookAtPackets(packets.streams(), append(addresses[:2:2], addresses[3:]...))
	files, size := h.lookAtFiles()
	for name, text := range map[string]string{"sshd's log": target.Log(), "MariaDB's logs": must(db.Logs())} {
		h.look(name, []byte(text))
	}
	t.Logf("%d texts looked for in %d files (%d MB), %d readings of processes; %d kinds of process seen", len(h.scan.texts), files, size>>20, watch.reads, len(watch.seen))
	h.judge()
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// startAll starts the controllers and the agent, whose join tokens are secrets too.
func (h *hunt) startAll() {
	h.t.Helper()
	for i, n := range h.nodes {
		if i > 0 {
			var token client.JoinToken
			h.json(&token, "cluster", "join-token", n.name)
			h.secret("join token of "+n.name, token.Token)
			run(h.t, nil, h.dir, token.Token, "reeved", "join", "--config", n.config).must(h.t)
		}
		n.proc = startWith(h.t, h.env, nil, h.dir, n.name, "reeved", "server", "--config", n.config)
		h.unseal(n)
	}
	h.allVote()
	h.site("dmz")
	g := &agentProcess{c: h.cluster, name: "dmz-1", data: h.path("agent-dmz-1"), connectors: filepath.Join(bin(h.t), "connectors")}
	token := h.agentToken(g.name, "dmz")
	h.secret("join token of the agent", token)
	run(h.t, nil, h.dir, token, "reeve-agent", "enroll", "--data", g.data, "--token-file", "-").must(h.t)
	g.process = startWith(h.t, h.env, nil, h.dir, "agent-dmz-1", "reeve-agent", "run", "--data", g.data, "--connectors", g.connectors)
	h.connected(g.name, true, 20*time.Second)
	h.agentProc = g
}

// live provisions, reveals, rotates, verifies and fails on both kinds of target.
func (h *hunt) live(target *testlab.Host, db *testlab.Database, management, static string) {
	h.t.Helper()
	ca := h.write("db-ca.pem", db.CAPEM)
	keys := h.write("web01.pub", target.HostKey()+"\n")
	h.reeve(management, "asset", "add", "web01", "--site", "dmz", "--connector", "ssh", "--address", target.Addr,
		"--host-key-file", keys, "--username", "ops", "--password-file", "-", "--watch").must(h.t)
	h.reeve(db.ManagementPassword, "asset", "add", "db01", "--site", "dmz", "--connector", "mysql", "--address", db.Addr,
		"--asset-ca-file", ca, "--username", testlab.Management, "--password-file", "-", "--watch").must(h.t)
	for asset, role := range map[string][]string{"web01": {"linux-admin-sudo"}, "db01": {"mysql-db-rw", "--param", "Database=app"}} {
		args := append([]string{"account", "provision", "alice", "--asset", asset, "--password-file", "-", "--watch", "--role"}, role...)
		h.reeve(static, args...).must(h.t)
		ref := "alice@" + asset
		// Here the secret leaves, to standard output of this one command, which is not looked at.
		if got := h.reveal(ref); got != static {
			h.t.Errorf("%s: another password was revealed", ref)
		}
		h.ok("account", "rotate", ref, "--watch")
		rotated := h.reveal(ref)
		h.secret("rotated password of "+ref, rotated)
		h.handOver(ref, rotated)
		h.ok("account", "verify", ref, "--watch")
		h.ok("account", "inspect", ref)
		for _, list := range [][]string{{"account", "show", ref}, {"account", "show", ref, "--plans"}, {"asset", "show", asset}, {"job", "list"}, {"audit", "list", "--limit", "1000"}} {
			h.keep(h.ok(append(list, "-o", "json")...))
		}
		var jobs []client.Job
		h.json(&jobs, "job", "list")
		for _, j := range jobs {
			h.keep(h.ok("job", "logs", j.Id))
		}
	}
	// Errors quote what was given; a wrong password is a password.
	wrong := newCanary("'\"$`\\ &%/+")
	h.secret("wrong password", wrong)
	h.keep(h.reeve(wrong, "asset", "add", "web02", "--site", "dmz", "--connector", "ssh", "--address", target.Addr,
		"--host-key-file", keys, "--username", "ops", "--password-file", "-", "--watch"))
	short := "C7'\\\n" + wrong // a control character: refused
	h.keep(h.reeve(short, "account", "provision", "bob", "--role", "linux-standard", "--asset", "web01", "--password-file", "-"))
}

// handOver wraps a password, for which a token is good once.
func (h *hunt) handOver(ref, password string) {
	h.t.Helper()
	token := strings.TrimSpace(h.ok("account", "reveal", ref, "--reason", "a test hands it over", "--wrap", "5m").out)
	h.secret("wrapping token of "+ref, token)
	h.keep(h.reeve(token, "unwrap", "--lookup").must(h.t))
	if got := strings.TrimSuffix(h.reeve(token, "unwrap").must(h.t).out, "\n"); got != password {
		h.t.Errorf("%s: another password was unwrapped", ref)
	}
	used := h.reeve(token, "unwrap")
	if !strings.Contains(used.err, "[wrap_used]") {
		h.t.Errorf("%s: opened twice", ref)
	}
	h.keep(used)
	h.keep(h.ok("wrap", "list"))
}

// keep puts what a command printed where it is looked at.
func (h *hunt) keep(a answer) {
	h.t.Helper()
	f, err := os.OpenFile(h.path("answers"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		h.t.Fatal(err)
	}
	_, err = fmt.Fprintln(f, a)
	if cerr := f.Close(); err != nil || cerr != nil {
		h.t.Fatal(err, cerr)
	}
}

// rekey goes from the key file to shares, which are secrets, while everything runs.
func (h *hunt) rekey() {
	h.t.Helper()
	var made client.StartedRekey
	h.json(&made, "seal", "rekey", "start", "--shares", "3", "--threshold", "2")
	for i, share := range made.Shares {
		h.secret(fmt.Sprint("share ", i+1), share)
		h.keep(h.reeve(share, "seal", "rekey", "prove", made.Rekey.Id, "--share-file", "-").must(h.t))
	}
	h.keep(h.ok("seal", "rotate"))
	eventually(h.t, 30*time.Second, func() error {
		var s client.Seal
		h.json(&s, "seal", "status")
		if !s.Rewrapped || s.Generation != 2 || s.Scheme != "shamir" {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
}

// crash aborts the leader, a follower, a connector and the agent, each with core files
// of any size allowed, and sees that the kernel wrote none.
func (h *hunt) crash() {
	h.t.Helper()
	lead := h.leader()
	victims := map[string]*process{"the leader": lead.proc, "a follower": h.others(lead)[0].proc, "the agent": h.agentProc.process}
	for _, pid := range children(h.agentProc.cmd.Process.Pid) {
		allowCore(h.t, pid)
		_ = syscall.Kill(pid, syscall.SIGABRT) // its parent, the agent, is the one to see how it ended
	}
	for name, p := range victims {
		allowCore(h.t, p.cmd.Process.Pid)
		_ = p.cmd.Process.Signal(syscall.SIGABRT)
		p.status()
		ws, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
		if !ok || !ws.Signaled() || ws.Signal() != syscall.SIGABRT || ws.CoreDump() {
			h.t.Errorf("%s: ended with %v, core dumped: %v", name, p.cmd.ProcessState, ok && ws.CoreDump())
		}
		if !strings.Contains(p.logged(), "SIGABRT") {
			h.t.Errorf("%s says nothing of its end", name)
		}
	}
}

// allowCore takes back the limit that a program has set for itself; then only that it is
// not dumpable keeps it from leaving a core file. It takes CAP_SYS_RESOURCE: without that nobody
// can take the limit back.
func allowCore(t *testing.T, pid int) {
	t.Helper()
	all := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	switch err := unix.Prlimit(pid, unix.RLIMIT_CORE, &all, nil); {
	case errors.Is(err, unix.EPERM):
		t.Logf("the limit on core files of process %d cannot be raised", pid)
	case err != nil && !errors.Is(err, unix.ESRCH):
		t.Fatal(err)
	}
}

func children(pid int) (out []int) {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, task := range tasks {
		text, _ := os.ReadFile(task)
		for _, f := range strings.Fields(string(text)) {
			if child, err := strconv.Atoi(f); err == nil {
				out = append(out, child)
			}
		}
	}
	return out
}

// plantDecoy puts the decoy in every place, in every form that the place can hold.
func (h *hunt) plantDecoy(plant, addr string) {
	h.t.Helper()
	var all bytes.Buffer
	var started []func()
	for _, f := range formsOf([]byte(plant)) {
		all.Write(f.text)
		all.WriteString("\n--\n")
		if bytes.IndexByte(f.text, 0) >= 0 {
			continue // neither an argument nor a variable can hold it
		}
		cmd := exec.CommandContext(h.t.Context(), "/bin/sh", "-c", "read x", "reeved", string(f.text)) // until its input ends
		cmd.Env = []string{"PATH=/usr/bin:/bin", "DECOY=" + string(f.text)}
		in, err := cmd.StdinPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			h.t.Fatal(err)
		}
		started = append(started, func() { _, _ = in.Close(), cmd.Wait() })
	}
	rounds := h.watch.rounds.Load()
	eventually(h.t, 30*time.Second, func() error {
		if n := h.watch.rounds.Load(); n < rounds+2 {
			return fmt.Errorf("the processes were read %d times", n-rounds)
		}
		return nil
	})
	for _, end := range started {
		end()
	}
	for _, name := range []string{"c1/raft/decoy", "c2/decoy.db", "agent-dmz-1/decoy"} {
		if err := os.MkdirAll(filepath.Dir(h.path(name)), 0o700); err != nil {
			h.t.Fatal(err)
		}
		h.write(name, all.String())
	}
	if err := os.WriteFile(filepath.Join(h.tmp, "decoy"), all.Bytes(), 0o600); err != nil {
		h.t.Fatal(err)
	}
	log, err := os.OpenFile(h.nodes[0].proc.log, os.O_APPEND|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = log.Write(all.Bytes())
		_ = log.Close()
	}
	if err != nil {
		h.t.Fatal(err)
	}
	sendSplit(h.t, addr, plant)

	// A process that is not private leaves its memory in a core file, where it was.
	cores := h.path("core-of-a-shell")
	if err := os.Mkdir(cores, 0o700); err != nil {
		h.t.Fatal(err)
	}
	sh := exec.CommandContext(h.t.Context(), "/bin/sh", "-c", "ulimit -c unlimited; read x; kill -ABRT $$")
	sh.Dir, sh.Stdin = cores, strings.NewReader(strings.ReplaceAll(plant, `\`, `\\`)+"\n")
	_ = sh.Run()
	if ws, ok := sh.ProcessState.Sys().(syscall.WaitStatus); !ok || !ws.CoreDump() {
		h.t.Logf("this machine writes no core files at all: %v", sh.ProcessState)
		h.write("core-of-a-shell/core", all.String())
	}
}

// look looks through some bytes.
func (h *hunt) look(place string, b []byte) {
	f := finds{}
	h.scan.in(b, f)
	h.note(place, f)
}

func (h *hunt) note(place string, f finds) {
	if h.found[place] == nil {
		h.found[place] = finds{}
	}
	for k, n := range f {
		h.found[place][k] += n
	}
}

// lookAtFiles reads everything that was written: data, logs, backups, temporary files,
// core files, packets as they were captured.
func (h *hunt) lookAtFiles() (files int, size int64) {
	h.t.Helper()
	must := map[string]bool{"c1/state.db": false, "c2/state.db": false, "c3/state.db": false, "c1.log": false, "agent-dmz-1.log": false,
		"agent-dmz-1/logs.db": false, "backup.snap": false, "audit.jsonl": false, "answers": false, "packets.pcap": false}
	visit := func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		name := strings.TrimPrefix(strings.Replace(path, h.tmp, "tmp", 1), h.dir+"/")
		if h.legit[name] != "" {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		f := finds{}
		if err := h.scan.file(path, f); err != nil {
			return err
		}
		h.note(name, f)
		if _, ok := must[name]; ok && info.Size() > 0 {
			must[name] = true
		}
		files, size = files+1, size+info.Size()
		return nil
	}
	if err := errors.Join(filepath.WalkDir(h.dir, visit), filepath.WalkDir(h.tmp, visit)); err != nil {
		h.t.Fatal(err)
	}
	for name, read := range must {
		if !read {
			h.t.Errorf("%s is not there or empty: the test looks at the wrong things", name)
		}
	}
	return files, size
}

// lookAtPackets reads each direction of each connection, and sees that all links were
// listened to.
func (h *hunt) lookAtPackets(streams map[string][]byte, addresses []string) {
	h.t.Helper()
	heard := map[string]int{}
	for name, b := range streams {
		h.look("packets", b)
		_, to, _ := strings.Cut(name, " > ")
		heard[to] += len(b)
	}
	links := []string{addresses[0] + ":22", addresses[1] + ":3306"}
	for _, n := range h.nodes {
		links = append(links, n.raft, n.api, n.agents)
	}
	for _, to := range links {
		agents := strings.HasSuffix(to, ":8444") // the agent speaks to the leader; to others only to ask who leads
		if heard[to] < 500 && !agents {
			h.t.Errorf("%d bytes were heard on the way to %s", heard[to], to)
		}
	}
}

// judge says where secrets are, and where the decoy was not found.
func (h *hunt) judge() {
	h.t.Helper()
	for place, f := range h.found {
		for what, n := range f {
			if !strings.HasPrefix(what, decoy+" as ") {
				h.t.Errorf("%s is in %s, %d times", what, place, n)
			}
		}
	}
	var forms, printable []string
	for _, n := range h.scan.texts {
		if n.secret != decoy {
			continue
		}
		forms = append(forms, n.form)
		if bytes.IndexByte(n.text, 0) < 0 {
			printable = append(printable, n.form)
		}
	}
	for place, want := range map[string][]string{
		"c1/raft/decoy": forms, "c2/decoy.db": forms, "agent-dmz-1/decoy": forms, "tmp/decoy": forms, "c1.log": forms, "packets": forms,
		"/proc/…/cmdline": printable, "/proc/…/environ": printable, "core-of-a-shell/core": {"raw"},
	} {
		for _, f := range want {
			if h.found[place][decoy+" as "+f] == 0 {
				if place == "core-of-a-shell/core" && h.coreFound() {
					continue // named after its pid
				}
				h.t.Errorf("the decoy as %s was planted in %s and not found", f, place)
			}
		}
	}
	if len(forms) < 25 {
		h.t.Errorf("only %d forms", len(forms))
	}
}

func (h *hunt) coreFound() bool {
	for place, f := range h.found {
		if strings.HasPrefix(place, "core-of-a-shell/") && f[decoy+" as raw"] > 0 {
			return true
		}
	}
	return false
}
