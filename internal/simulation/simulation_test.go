package simulation

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime/debug"
	"slices"
	"sync"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"
)

var (
	seed      = flag.Uint64("seed", 0, "of everything that is random; 0: a new one")
	rotations = flag.Int("rotations", 0, "to be simulated")
	episode   = flag.Uint64("episode", 0, "play this episode alone, with its trace on standard output")
	part      = flag.Uint64("part", 0, "which part of a simulation this process plays; 0: all of them, each in a process")
)

// parts are processes at a time: one for each core of the machine the goal is set for.
const parts = 2

// perEpisode is how many rotations one world sees.
const perEpisode = 400

// outcome is what an episode, or many of them, came to.
type outcome struct {
	Rotations, Faults, Steps int
	Simulated                time.Duration
	Kinds                    map[string]int
	WorstLogins              int
	Trace                    uint64
	Problem                  string
	Episode                  uint64 // of the problem
	Asked                    int    // rotations, of the episode of the problem
}

func (o *outcome) add(p outcome) {
	o.Rotations += p.Rotations
	o.Faults += p.Faults
	o.Steps += p.Steps
	o.Simulated += p.Simulated
	o.WorstLogins = max(o.WorstLogins, p.WorstLogins)
	o.Trace = o.Trace*31 + p.Trace
	if o.Kinds == nil {
		o.Kinds = map[string]int{}
	}
	for k, n := range p.Kinds {
		o.Kinds[k] += n
	}
	if o.Problem == "" {
		o.Problem, o.Episode, o.Asked = p.Problem, p.Episode, p.Asked
	}
}

// play plays one episode, which depends on its seed alone.
func play(t *testing.T, seed uint64, rotations int, trace io.Writer) (o outcome) {
	t.Helper()
	root := memory(t)
	defer func() { _ = os.RemoveAll(root) }()
	cryptotest.SetGlobalRandom(t, seed)
	synctest.Test(t, func(*testing.T) {
		w := newWorld(root, seed)
		if trace != nil {
			w.trace = io.MultiWriter(w.trace, trace)
		}
		w.setup()
		if w.problem == "" {
			w.faulty = true
			w.live(rotations)
			w.run(30*24*time.Hour, func() bool { return w.rotations >= rotations })
			w.calm()
		}
		if w.problem == "" {
			w.finish()
		}
		w.stop()
		for _, n := range w.faults {
			o.Faults += n
		}
		o.Rotations, o.Problem, o.Episode, o.Asked, o.Trace, o.Steps = w.rotations, w.problem, seed, rotations, w.digest.Sum64(), w.steps
		o.Simulated, o.Kinds, o.WorstLogins = time.Since(w.begin), w.faults, w.worstLogins
	})
	return o
}

// many plays episodes until there have been enough rotations, or one goes wrong.
func many(t *testing.T, seed, part uint64, rotations int, progress io.Writer) (sum outcome) {
	t.Helper()
	defer debug.SetGCPercent(debug.SetGCPercent(800))
	pick := rand.New(rand.NewPCG(seed, part))
	for next := time.Now(); sum.Rotations < rotations && sum.Problem == ""; {
		sum.add(play(t, pick.Uint64(), min(perEpisode, rotations-sum.Rotations), nil))
		if time.Since(next) > 30*time.Second {
			next = time.Now()
			fmt.Fprintf(progress, "part %d: %d rotations, %d faults\n", part, sum.Rotations, sum.Faults)
		}
	}
	return sum
}

// TestMain plays what the flags say, in one process for each part; without flags it runs
// the tests.
func TestMain(m *testing.M) {
	flag.Parse()
	if *episode > 0 {
		_ = flag.Set("test.run", "^TestEpisode$")
	}
	if *rotations == 0 || *part > 0 || *episode > 0 {
		os.Exit(m.Run())
	}
	if *seed == 0 {
		*seed = rand.Uint64()>>1 + 1
	}
	if !simulate(os.Stdout) {
		os.Exit(1)
	}
}

// simulate plays all parts and says what they came to, and whether that is good.
func simulate(out io.Writer) bool {
	fmt.Fprintf(out, "simulation: seed %d\n", *seed)
	began := time.Now()
	seeds := make([]uint64, parts)
	for i := range seeds {
		seeds[i] = *seed
	}
	sum, err := together(context.Background(), seeds, *rotations/parts, out)
	for _, k := range slices.Sorted(maps.Keys(sum.Kinds)) {
		fmt.Fprintf(out, "  %7d  %s\n", sum.Kinds[k], k)
	}
	lost := 0
	switch {
	case err != nil:
		fmt.Fprintln(out, "simulation failed:", err)
	case sum.Problem != "":
		lost = 1
		fmt.Fprintf(out, "WRONG: %s\nreplay it with: make simulate ARGS=\"--episode %d --rotations %d\"\n", sum.Problem, sum.Episode, sum.Asked)
	}
	fmt.Fprintf(out, "%s of simulated time in %s; at most %d failed logins of an account in %s; trace %016x\n",
		sum.Simulated.Round(time.Hour), time.Since(began).Round(time.Second), sum.WorstLogins, lockWindow, sum.Trace)
	fmt.Fprintf(out, "simulation: %d rotations, %d faults, %d lost, seed %d\n", sum.Rotations, sum.Faults, lost, *seed)
	return err == nil && lost == 0
}

// together plays parts at the same time, each in a process of its own: the seeded source
// of randomness belongs to a whole process.
func together(ctx context.Context, seeds []uint64, rotations int, progress io.Writer) (sum outcome, err error) {
	outcomes, errs := make([]outcome, len(seeds)), make([]error, len(seeds))
	var running sync.WaitGroup
	for i, s := range seeds {
		running.Go(func() {
			cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestPart$", "-test.timeout=0", //nolint:gosec // this very program
				fmt.Sprintf("-seed=%d", s), fmt.Sprintf("-part=%d", i+1), fmt.Sprintf("-rotations=%d", rotations))
			cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
			cmd.Stderr = progress
			out, failed := cmd.Output()
			o := &outcomes[i]
			lines := bufio.NewScanner(bytes.NewReader(out))
			lines.Buffer(nil, 1<<20)
			for lines.Scan() && json.Unmarshal(lines.Bytes(), o) != nil {
				continue
			}
			if failed != nil && o.Problem == "" {
				errs[i] = fmt.Errorf("part %d: %w: %s", i+1, failed, out[max(0, len(out)-4000):])
			}
		})
	}
	running.Wait()
	for _, o := range outcomes { // in the order of the seeds, so that the trace is the same each time
		sum.add(o)
	}
	return sum, errors.Join(errs...)
}

// TestPart is one part of a simulation, in a process that together started.
func TestPart(t *testing.T) {
	if *part == 0 {
		t.Skip("started by TestMain")
	}
	o := many(t, *seed, *part, *rotations, os.Stderr)
	b, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = fmt.Fprintf(os.Stdout, "%s\n", b)
}

func TestEpisode(t *testing.T) {
	if *episode == 0 {
		t.Skip("of use with -episode")
	}
	n := *rotations
	if n == 0 {
		n = perEpisode
	}
	if o := play(t, *episode, n, os.Stdout); o.Problem != "" {
		t.Error(o.Problem)
	}
}

// One seed that never changes, so that a failure is of the change at hand, and a new one.
func TestFaultsEverywhereLoseNoPassword_R1_R2_R3_R4_R5_J1_J3(t *testing.T) {
	seeds := []uint64{1, rand.Uint64()>>1 + 1}
	sum, err := together(t.Context(), seeds, 5000, os.Stderr)
	if err != nil {
		t.Fatalf("seeds %d: %v", seeds, err)
	}
	t.Logf("simulation: %d rotations, %d faults, seeds %d", sum.Rotations, sum.Faults, seeds)
	if sum.Problem != "" {
		t.Errorf("%s\nreplay it with: make simulate ARGS=\"--episode %d --rotations %d\"", sum.Problem, sum.Episode, sum.Asked)
	}
	if sum.Rotations < 10_000 || sum.Faults < 500 || len(sum.Kinds) < 40 {
		t.Errorf("%d rotations, %d faults of %d kinds: the simulation does not do what it is for", sum.Rotations, sum.Faults, len(sum.Kinds))
	}
}

// The trace has everything that happened and when, to the nanosecond.
func TestASeedIsReplayedExactly(t *testing.T) {
	first, second := &bytes.Buffer{}, &bytes.Buffer{}
	a := play(t, 7, 100, first)
	b := play(t, 7, 100, second)
	if a.Trace != b.Trace || a.Steps != b.Steps || first.Len() < 10_000 {
		x, y := bytes.Split(first.Bytes(), []byte("\n")), bytes.Split(second.Bytes(), []byte("\n"))
		for i := range min(len(x), len(y)) {
			if !bytes.Equal(x[i], y[i]) {
				t.Fatalf("line %d is %q the first time and %q the second", i+1, x[i], y[i])
			}
		}
		t.Fatalf("%d and %d steps, %d lines", a.Steps, b.Steps, len(x))
	}
	if c := play(t, 8, 100, nil); c.Trace == a.Trace {
		t.Error("another seed gives the same trace")
	}
}
