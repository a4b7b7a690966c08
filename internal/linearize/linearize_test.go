package linearize_test

import (
	"flag"
	"log/slog"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/internal/linearize"
)

var (
	seed = flag.Uint64("seed", 0, "of the run; 0: a new one")
	long = flag.Duration("for", 10*time.Second, "how long clients work")
	out  = flag.String("out", os.TempDir(), "directory for pictures of violations")
	logs = flag.Bool("logs", false, "show what the nodes log")
)

func options(t *testing.T) linearize.Options {
	t.Helper()
	opt := linearize.Options{Seed: *seed, For: *long, Dir: t.TempDir()}
	if opt.Seed == 0 {
		opt.Seed = rand.Uint64N(1 << 32) //nolint:gosec // printed, and can be given again
	}
	if *logs {
		opt.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	var err error
	if opt.Out, err = os.MkdirTemp(*out, "linearize-"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(opt.Out) }) // if it is empty
	return opt
}

func TestHistoriesUnderFaultsAreLinearizable_O1_O2_O3(t *testing.T) {
	report, err := linearize.Run(t.Context(), options(t))
	if err != nil {
		t.Fatalf("%v\n%v", err, report)
	}
	t.Log(report)
	if !report.Clean() {
		t.Fail()
	}
	if report.Operations < 200 { // on a machine that does much else; else it is thousands
		t.Errorf("only %d operations: that proves little", report.Operations)
	}
}
